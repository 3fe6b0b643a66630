"""What one jail may see and do: data only, checked when it is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from kandev_sandbox.errors import PolicyError

Network = Literal["none", "host"]

WORKSPACE = "/workspace"
HOME = "/home/agent"
SYSTEM_PATH = ("/usr/local/bin", "/usr/bin", "/bin")
MAX_ALLOWED = 32
_LOOPBACK = "127.0.0.1"
_RESERVED = ("/proc", "/dev", "/sys", "/run", "/etc")
_WHOLE = ("/", "/home", "/root", "/usr", "/etc", "/proc", "/sys", "/dev", "/run", "/var", "/boot")


@dataclass(frozen=True, slots=True)
class Bind:
    """A file or folder of the host at `target` inside; without a target, at its own path.

    A read-only regular file that the jail's uid could not read is shown as a copy made at the start.
    """

    source: Path
    target: str = ""
    read_only: bool = True

    @property
    def inside(self) -> str:
        return self.target or str(self.source)


@dataclass(frozen=True, slots=True)
class Limits:
    """Per-process limits (setrlimit); None leaves the host's. They do not bound a process *tree* as cgroups do.

    `processes` counts all processes of the jail's uid, so it is set only where the uid is the workspace's own.
    """

    open_files: int | None = 4096
    file_bytes: int | None = 8 << 30
    locked_bytes: int | None = 8 << 20
    processes: int | None = 2048
    pending_signals: int | None = 1024
    core_bytes: int | None = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What one jail may see and do.

    `workspace`, `home` and `tmp` are writable folders of the host at /workspace, /home/agent and /tmp; without
    one, the place is a tmpfs of `scratch_bytes` (RAM) that ends with the jail. `binds` come on top. `env` reaches
    the command alone, never bwrap. `network="none"` has loopback only; `allow` names host services
    ("127.0.0.1:8377") reachable at the same address inside. `network="host"` is the host's network, including
    its abstract unix sockets. `nested` lets the command make jails of its own, at the price of user namespaces
    and an unmasked /proc. `uid` is the host uid (and gid) the jail runs as when the caller is root.
    Raises `PolicyError`.
    """

    workspace: Path
    home: Path | None = None
    tmp: Path | None = None
    binds: tuple[Bind, ...] = ()
    path: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    network: Network = "none"
    allow: tuple[str, ...] = ()
    nested: bool = False
    uid: int | None = None
    limits: Limits = Limits()
    hostname: str = "jail"
    scratch_bytes: int = 512 << 20

    def __post_init__(self) -> None:
        _check_folders(self)
        _check_binds(self.binds)
        _check_env(self.env)
        _check_network(self)
        if self.uid is not None and not 0 < self.uid < 2**32 - 1:
            raise PolicyError(f"The jail's uid cannot be {self.uid}.", "use a uid above 0, one per workspace")
        if not self.hostname.replace("-", "").isalnum() or len(self.hostname) > 63:
            raise PolicyError(f"{self.hostname!r} is no host name.", "use letters, digits and hyphens")

    @property
    def ports(self) -> tuple[int, ...]:
        """The loopback ports of `allow`."""
        return tuple(parse_service(service) for service in self.allow)


def parse_service(service: str) -> int:
    """The port of "127.0.0.1:PORT". Raises `PolicyError` for anything else, names included."""
    host, _, port = service.rpartition(":")
    if host != _LOOPBACK or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise PolicyError(f"{service!r} names no loopback service.", "write it as 127.0.0.1:PORT")
    return int(port)


def _check_folders(policy: Policy) -> None:
    for name, folder in (("workspace", policy.workspace), ("home", policy.home), ("tmp", policy.tmp)):
        if folder is None:
            continue
        _check_source(folder, name)
        if not folder.is_dir():
            raise PolicyError(f"The {name} {folder} is no folder.", f"create it: mkdir -p {folder}")


def _check_source(source: Path, name: str) -> None:
    if not source.is_absolute() or ".." in source.parts or "\0" in str(source):
        raise PolicyError(f"The {name} {source} must be an absolute path without '..'.")
    if str(source) in _WHOLE:
        raise PolicyError(f"The {name} {source} would show the jail far too much.", "name the one folder it needs")


def _check_binds(binds: tuple[Bind, ...]) -> None:
    for bind in binds:
        _check_source(bind.source, "bind")
        target = PurePosixPath(bind.inside)
        if not target.is_absolute() or ".." in target.parts or "\0" in bind.inside or str(target) == "/":
            raise PolicyError(f"The target {bind.inside!r} must be an absolute path below /.")
        top = "/" + target.parts[1]
        if top in _RESERVED:
            raise PolicyError(f"Nothing is bound at {bind.inside}: {top} is the jail's own.", "choose another target")
    targets = [str(PurePosixPath(bind.inside)) for bind in binds]
    for target_text in sorted({text for text in targets if targets.count(text) > 1}):
        raise PolicyError(f"Two binds claim {target_text}.", "remove one of them")


def _check_env(env: Mapping[str, str]) -> None:
    for name, value in env.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise PolicyError(f"{name!r} cannot be an environment variable.", "no '=' and no NUL in names and values")


def _check_network(policy: Policy) -> None:
    if policy.network not in ("none", "host"):
        raise PolicyError(f"There is no network {policy.network!r}.", "choose none or host")
    if policy.allow and policy.network == "host":
        raise PolicyError("allow has no meaning with the host's network.", "drop allow, or set network to none")
    if len(policy.allow) > MAX_ALLOWED:
        raise PolicyError(f"A jail may name {MAX_ALLOWED} loopback services, not {len(policy.allow)}.")
    if len(set(policy.ports)) < len(policy.allow):
        raise PolicyError("allow names a service twice.", "remove one of them")
