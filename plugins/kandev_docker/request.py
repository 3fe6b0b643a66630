"""From what is to run to the request that makes its container: one pure function, and its final form is checked.

Everything a container may have is said here; `check` knows nothing of this file, and lets through nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from kandev_docker.seccomp import profile
from kandev_docker.terminals import TERM
from kandev_host import Mount, ProcessSpec
from kandev_sandbox import HOME, WORKSPACE, Limits

SNAPSHOTS = "/snapshots"
TMP = "/tmp"  # noqa: S108 - of the container
SHM_BYTES = 64 << 20
_LOG_FILES = 4
# The first line of stdout says that the container runs and that nothing of its output is missing; then it waits to be
# let go, so that its network and its pinned files are there before the command is.
GATE = 'printf "%s\\n" "$0"; read -r go || exit 125; exec "$@"'


class Folders(msgspec.Struct, frozen=True):
    """A place's folders on this machine."""

    workspace: Path
    home: Path
    tmp: Path
    snapshots: Path


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """What one container is made of. `user` is "uid:gid"; `volumes` are those that its image declares.

    With `adoptable` it goes on when its host dies, and `log_bytes` of its output are kept. `env` comes on top of the
    spec's. With a `terminal` all three streams are one. `shown` are further folders of the host's own. Without `init`
    the command is the first process itself. `seccomp` is the filter of system calls, or the path of its file.
    `user_processes` bounds those of its uid, in all containers together, where the engine would set a bound itself.
    `unasked` are variables that the engine adds by itself.
    """

    name: str
    spec: ProcessSpec
    image: str
    user: str
    limits: Limits
    folders: Folders | None
    marker: str
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    env: Mapping[str, str] = msgspec.field(default_factory=dict)
    volumes: Sequence[str] = ()
    adoptable: bool = False
    terminal: bool = False
    shown: Sequence[Mount] = ()
    init: bool = True
    log_bytes: int = 0
    scratch_bytes: int = 64 << 20
    seccomp: str = msgspec.field(default_factory=profile)
    user_processes: int | None = None
    unasked: Sequence[str] = ()


def create_request(container: Container) -> dict[str, Any]:
    """The body of the engine's `POST /containers/create`."""
    spec = container.spec
    return {
        "Image": container.image,
        "Entrypoint": ["sh", "-c", _gate(container), container.marker],
        "Cmd": [command_inside(spec.command[0]), *spec.command[1:]],
        "User": container.user,
        "WorkingDir": spec.cwd,
        "Env": [f"{name}={value}" for name, value in _environment(container).items()],
        "Hostname": "jail" if spec.network != "host" else "",
        "Tty": container.terminal,
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "OpenStdin": True,
        "StdinOnce": not container.adoptable,
        "StopSignal": "SIGTERM",
        "Healthcheck": {"Test": ["NONE"]},
        "Labels": dict(container.labels),
        "HostConfig": _host_config(container),
    }


def own_mounts(spec: ProcessSpec, folders: Folders | None) -> list[Mount]:
    """The place's own folders."""
    if folders is None:
        return []
    own = [Mount(str(folders.workspace), WORKSPACE, spec.read_only)]
    if spec.snapshots:
        # Beside the snapshots there is nothing that the agent can write to while they are made.
        return [*own, Mount(str(folders.snapshots), SNAPSHOTS, read_only=False)]
    return [*own, Mount(str(folders.home), HOME, read_only=False), Mount(str(folders.tmp), TMP, read_only=False)]


def asked_mounts(spec: ProcessSpec) -> list[Mount]:
    """Those of the run; `target` is absolute."""
    return list(map(_resolved, spec.mounts))


def _host_config(container: Container) -> dict[str, Any]:
    limits, spec = container.limits, container.spec
    mounts = [*own_mounts(spec, container.folders), *container.shown, *asked_mounts(spec)]
    return {
        "Init": container.init,
        "Privileged": False,
        "ReadonlyRootfs": True,
        "CapAdd": [],
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges", f"seccomp={container.seccomp}"],
        "NetworkMode": "host" if spec.network == "host" else "none",
        "IpcMode": "private",
        "CgroupnsMode": "private",
        "PidMode": "",
        "UTSMode": "",
        "UsernsMode": "",
        "Devices": [],
        "Mounts": [
            {
                "Type": "bind",
                "Source": mount.source,
                "Target": mount.target,
                "ReadOnly": mount.read_only,
                "BindOptions": {"Propagation": "rprivate"},
            }
            for mount in mounts
        ],
        "Tmpfs": _tmpfs(container, {mount.target for mount in mounts}),
        "ShmSize": SHM_BYTES,
        "PidsLimit": limits.tree_processes,
        "Memory": limits.memory_bytes,
        "MemorySwap": (limits.memory_bytes or 0) + limits.swap_bytes,
        "NanoCpus": int(limits.cpus * 1_000_000_000) if limits.cpus is not None else 0,
        "Ulimits": [
            {"Name": name, "Soft": value, "Hard": value}
            for name, value in (
                ("core", limits.core_bytes),
                ("fsize", limits.file_bytes),
                ("memlock", limits.locked_bytes),
                ("nofile", limits.open_files),
                ("sigpending", limits.pending_signals),
                *((("nproc", container.user_processes),) if container.user_processes is not None else ()),
            )
        ],
        "LogConfig": _log(container),
        "RestartPolicy": {"Name": "no"},
        "AutoRemove": False,
    }


def _log(container: Container) -> dict[str, Any]:
    """Only what may be adopted needs its output once more."""
    if not container.adoptable:
        return {"Type": "none", "Config": {}}
    config = {"max-size": str(container.log_bytes // _LOG_FILES), "max-file": str(_LOG_FILES)}
    return {"Type": "local", "Config": config}


def _tmpfs(container: Container, taken: set[str]) -> dict[str, str]:
    """Where programs write although nothing is bound; an image's volumes too, for the engine would make real ones."""
    size = f"rw,nosuid,nodev,size={container.scratch_bytes},mode=1777"
    places = ["/run", "/var/tmp", TMP, HOME, *container.volumes]  # noqa: S108 - of the container
    if container.folders is None:
        places.append(WORKSPACE)
    return {place: size for place in places if place not in taken}


def _gate(container: Container) -> str:
    added = [name for name in container.unasked if name not in container.spec.env and name not in container.env]
    return f"unset {' '.join(added)}; {GATE}" if added else GATE


def _environment(container: Container) -> dict[str, str]:
    """PATH is the image's, unless the spec has one."""
    return {
        "HOME": HOME,
        "LANG": "C.UTF-8",
        "TERM": TERM if container.terminal else "dumb",
        "TMPDIR": TMP,
        **container.env,
        **container.spec.env,
    }


def command_inside(command: str) -> str:
    """The host's own interpreter is called by what the image names so."""
    return "python3" if command == sys.executable else command


def _resolved(mount: Mount) -> Mount:
    target = HOME + mount.target[1:] if mount.target.startswith("~/") else mount.target
    return Mount(str(Path(mount.source).expanduser()), target, mount.read_only)
