"""What is made in a container's namespaces before its command may run: listeners, and pinned files. As root alone."""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path

from kandev_sandbox import Policy, SandboxError, hierarchies, pins
from kandev_sandbox.namespaces import within
from kandev_sandbox.processes import Identity, identify, pid_inside
from kandev_sandbox.walking import OPEN, walk

# The same on every machine: asm-generic/unistd.h
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_AT_EMPTY_PATH, _AT_RECURSIVE, _CLONE, _CLOEXEC = 0x1000, 0x8000, 1, 0o2000000
_FROM_EMPTY, _TO_EMPTY = 0x4, 0x40
_OPENAT2, _IN_ROOT, _NO_MAGICLINKS = 437, 0x10, 0x02
_READ_ONLY = 1  # MOUNT_ATTR_RDONLY


def init_of(pid: int, container_id: str) -> Identity | None:
    """The container's first process, if the engine's pid is one of this machine's pids; else None. Blocks.

    None also where containers have no cgroups of their own.
    """
    who = identify(pid) if pid > 0 else None
    try:
        groups = Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return None
    # Of an engine elsewhere it is somebody else's pid, or nobody's.
    return who if who is not None and container_id in groups and who.alive() else None


def named(pid: int, marker: str) -> Identity | None:
    """As `init_of`, of a container without a cgroup that has written its first line, which is also an argument of it.

    Nobody else had heard of that line.
    """
    who = identify(pid) if pid > 0 else None
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return None
    first = marker.encode() in arguments and pid_inside(pid) == 1
    return who if who is not None and first and who.alive() else None


def tasks(pid: int, container_id: str) -> int | None:
    """How many threads there are in the cgroup of a container's first process; None where that is not seen. Blocks."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return None
    for hierarchy in hierarchies.read():
        for number, names, path in (line.split(":", 2) for line in lines if container_id in line):
            if "pids" in names.split(",") if hierarchy.version == 1 else number == "0":
                try:
                    return int((hierarchy.mount / path.lstrip("/") / "pids.current").read_text())
                except (OSError, ValueError):
                    continue
    return None


def identity(pid: int, path: str) -> tuple[int, int]:
    """Device and inode of what a container, whose first process this is, sees at a path. Blocks. Raises `OSError`."""
    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        how = (ctypes.c_uint64 * 3)(os.O_PATH | os.O_CLOEXEC, 0, _IN_ROOT | _NO_MAGICLINKS)  # struct open_how
        seen = _call(_OPENAT2, root, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how))
    finally:
        os.close(root)
    try:
        found = os.fstat(seen)
    finally:
        os.close(seen)
    return found.st_dev, found.st_ino


def pin(pid: int, policy: Policy) -> None:
    """Make the policy's protected files of /workspace read-only, by descriptor and through no link. Blocks.

    Raises `SandboxError` when that cannot be done, or something was swapped meanwhile.
    """
    if platform.machine() not in ("x86_64", "aarch64"):
        raise SandboxError("Files of a workspace cannot be protected on this machine.")
    try:
        namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise SandboxError(f"The container's mounts are not reached: {error.strerror}.") from error
    try:
        within(namespace, _pin, policy)
    except OSError as error:
        raise SandboxError(f"Files of the workspace cannot be protected: {error.strerror}.") from error
    finally:
        os.close(namespace)


def _pin(policy: Policy) -> None:
    with pins.found(policy, "/workspace") as found:
        # From the inside out: an outer folder is bound with the mounts that are in it.
        for item in reversed(found):
            _mount(item.descriptor, item.read_only)
        for item in found:
            _check(item)


def _mount(descriptor: int, read_only: bool) -> None:
    """Onto itself: then it can be neither renamed nor removed."""
    tree = _call(_OPEN_TREE, descriptor, b"", _AT_EMPTY_PATH | _CLONE | _CLOEXEC | (0 if read_only else _AT_RECURSIVE))
    try:
        if read_only:
            wanted = (ctypes.c_uint64 * 4)(_READ_ONLY, 0, 0, 0)  # struct mount_attr
            _call(_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, ctypes.byref(wanted), ctypes.sizeof(wanted))
        _call(_MOVE_MOUNT, tree, b"", descriptor, b"", _FROM_EMPTY | _TO_EMPTY)
    finally:
        os.close(tree)


def _check(item: pins.Pin) -> None:
    """Seen by its path it is what was mounted. What only holds others is right if they are."""
    root = os.open("/workspace", OPEN | os.O_DIRECTORY)
    try:
        seen = walk(root, item.path)
    finally:
        os.close(root)
    if seen is None:
        raise SandboxError(f"{item.inside} was replaced while the container was started.")
    try:
        closed = bool(os.fstatvfs(seen).f_flag & os.ST_RDONLY)
        if not os.path.samestat(os.fstat(seen), os.fstat(item.descriptor)) or closed < item.read_only:
            raise SandboxError(f"{item.inside} was replaced while the container was started.")
    finally:
        os.close(seen)


def _call(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result = int(libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
