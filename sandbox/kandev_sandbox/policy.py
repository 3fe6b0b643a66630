"""What one jail may see and do: data only, checked when it is made."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from kandev_sandbox.egress.decisions import Decision
from kandev_sandbox.egress.gate import HINT
from kandev_sandbox.egress.lookup import Lookup
from kandev_sandbox.egress.rules import names_of, services
from kandev_sandbox.errors import PolicyError
from kandev_sandbox.seccomp import Seccomp

Network = Literal["none", "allowlist", "host"]

WORKSPACE = "/workspace"
HOME = "/home/agent"
SYSTEM_PATH = ("/usr/local/bin", "/usr/bin", "/bin")
MAX_ALLOWED = 32
MIN_MEMORY_BYTES = 4 << 20
MIN_DISK_BYTES = 4096
MIN_PROCESSES = 4  # two of them are bwrap's
MIN_CPUS = 0.01
MAX_PROTECTED = 256
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
    """What a jail may use; None sets no limit.

    The first six hold for each process alone (setrlimit). `processes` counts all processes of the jail's uid in its
    user namespace; before Linux 5.14 in all, so there it is set only where the uid is the workspace's own.

    The others hold for all processes of the jail together, by cgroups: `memory_bytes` (RAM, with the files that it
    keeps in tmpfs), `swap_bytes` on top, `tree_processes` (threads count), `cpus` (1.5 is one and a half). Where there
    are no cgroups, a watchdog ends the jail that goes beyond its memory, and nothing holds `cpus`. `wall_s` is the
    time after which the jail is ended. `disk_bytes` is what the workspace, home and tmp folders may hold together:
    they are measured while the jail runs, and above it the jail is ended. Raises `PolicyError`.
    """

    open_files: int | None = 4096
    file_bytes: int | None = 8 << 30
    locked_bytes: int | None = 8 << 20
    processes: int | None = 2048
    pending_signals: int | None = 1024
    core_bytes: int | None = 0
    memory_bytes: int | None = None
    swap_bytes: int = 0
    tree_processes: int | None = None
    cpus: float | None = None
    wall_s: float | None = None
    disk_bytes: int | None = None

    def __post_init__(self) -> None:
        _check_least("memory_bytes", self.memory_bytes, MIN_MEMORY_BYTES)
        _check_least("swap_bytes", self.swap_bytes, 0)
        _check_least("tree_processes", self.tree_processes, MIN_PROCESSES)
        _check_least("cpus", self.cpus, MIN_CPUS)
        _check_least("wall_s", self.wall_s, 0.001)
        _check_least("disk_bytes", self.disk_bytes, MIN_DISK_BYTES)


def _check_least(name: str, value: float | None, least: float) -> None:
    if value is not None and not least <= value < float("inf"):
        raise PolicyError(f"The limit {name} cannot be {value}.", f"use {least} or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What one jail may see and do.

    `workspace`, `home` and `tmp` are writable folders of the host at /workspace, /home/agent and /tmp; without
    one, the place is a tmpfs of `scratch_bytes` (RAM) that ends with the jail. With `workspace_read_only` nothing can
    be written to the workspace. `binds` come on top. `env` reaches
    the command alone, never bwrap. `network="none"` has loopback only; `allow` names host services
    ("127.0.0.1:8377") reachable at the same address inside. With `network="allowlist"` it also names what of the
    outside is reachable through a proxy (egress/rules.py); `on_decision` hears, on the event loop, of every connection
    that is asked for, `allow_hint` says in denials how a person allows an `{entry}`, and `lookup` resolves names in
    place of the host's resolver. `network="host"` is the host's network, including its abstract unix sockets.
    `nested` lets the command make jails of its own, at the price of user namespaces and an unmasked /proc. The filter
    of system calls is in every jail; `seccomp="strict"` also refuses debuggers (ptrace). `protected` are paths of the
    workspace that are read-only, and stay in their place, where they are regular files or folders at the start;
    `pin_git` does that with the hooks and the configuration of its git repository. `uid` is the host uid (and gid) the
    jail runs as when the caller is root.
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
    allow_hint: str = HINT
    on_decision: Callable[[Decision], None] | None = field(default=None, repr=False, compare=False)
    lookup: Lookup | None = field(default=None, repr=False, compare=False)
    nested: bool = False
    seccomp: Seccomp = "default"
    workspace_read_only: bool = False
    protected: tuple[str, ...] = ()
    pin_git: bool = True
    uid: int | None = None
    limits: Limits = Limits()
    hostname: str = "jail"
    scratch_bytes: int = 512 << 20

    def __post_init__(self) -> None:
        _check_folders(self)
        _check_binds(self.binds)
        _check_env(self.env)
        _check_network(self)
        _check_protected(self.protected)
        if self.seccomp not in ("default", "strict"):
            raise PolicyError(f"There is no filter {self.seccomp!r}.", "choose default or strict")
        if self.uid is not None and not 0 < self.uid < 2**32 - 1:
            raise PolicyError(f"The jail's uid cannot be {self.uid}.", "use a uid above 0, one per workspace")
        if not self.hostname.replace("-", "").isalnum() or len(self.hostname) > 63:
            raise PolicyError(f"{self.hostname!r} is no host name.", "use letters, digits and hyphens")

    @property
    def ports(self) -> tuple[int, ...]:
        """The loopback ports of `allow`."""
        return services(self.allow)


def parse_service(service: str) -> int:
    """The port of "127.0.0.1:PORT". Raises `PolicyError` for anything else, names included."""
    host, _, port = service.rpartition(":")
    if host != _LOOPBACK or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise PolicyError(f"{service!r} names no loopback service.", "write it as 127.0.0.1:PORT")
    return int(port)


def _check_folders(policy: Policy) -> None:
    for name, folder in (("workspace", policy.workspace), ("home", policy.home), ("tmp", policy.tmp)):
        if folder is not None:
            check_folder(folder, name)


def check_folder(folder: Path, name: str) -> None:
    """That a jail may write to it. Raises `PolicyError` for what is no folder, or none for that: /, /usr, the home."""
    _check_source(folder, name)
    if str(folder) == os.path.realpath(os.path.expanduser("~")):
        raise PolicyError(f"The {name} {folder} is your home: keys and log-ins lie there.", "name a folder in it")
    if not folder.is_dir():
        there = os.path.lexists(folder)
        raise PolicyError(
            f"The {name} {folder} is no folder.", "name a folder" if there else f"create it: mkdir -p {folder}"
        )


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


def _check_protected(paths: tuple[str, ...]) -> None:
    if len(paths) > MAX_PROTECTED:
        raise PolicyError(f"A jail may protect {MAX_PROTECTED} paths, not {len(paths)}.")
    for path in paths:
        parts = PurePosixPath(path).parts
        if not parts or parts[0] == "/" or ".." in parts or "\0" in path:
            raise PolicyError(f"{path!r} is no path of the workspace.", "write it relative to the workspace")


def _check_env(env: Mapping[str, str]) -> None:
    for name, value in env.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise PolicyError(f"{name!r} cannot be an environment variable.", "no '=' and no NUL in names and values")


def _check_network(policy: Policy) -> None:
    if policy.network not in ("none", "allowlist", "host"):
        raise PolicyError(f"There is no network {policy.network!r}.", "choose none, allowlist or host")
    if policy.allow and policy.network == "host":
        raise PolicyError("allow has no meaning with the host's network.", "drop allow, or set network to allowlist")
    outside = names_of(policy.allow)
    if outside and policy.network == "none":
        raise PolicyError(f"{outside[0]!r} needs the network allowlist.", "set network to allowlist")
    ports = policy.ports
    if len(ports) > MAX_ALLOWED:
        raise PolicyError(f"A jail may name {MAX_ALLOWED} loopback services, not {len(ports)}.")
    if len(set(ports)) < len(ports):
        raise PolicyError("allow names a service twice.", "remove one of them")
