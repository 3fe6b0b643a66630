"""The few Linux calls that Python 3.11 lacks. Each raises `OSError`."""

from __future__ import annotations

import ctypes
import os
from functools import cache

CLONE_FS = 0x0000_0200
CLONE_NEWNS = 0x0002_0000
CLONE_NEWNET = 0x4000_0000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 32, 4096, 16384, 1 << 18
MS_SLAVE = 1 << 19
# setresgid, setresuid: the machines are those that have a filter (syscalls.py).
_SET_REAL_IDS = {"x86_64": (119, 117), "aarch64": (149, 147)}


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Give the calling *thread* namespaces of its own (CLONE_NEWNS also gives it a cwd of its own)."""
    _check(_libc().unshare(flags), "unshare")


def setns(descriptor: int, flags: int) -> None:
    """Move the calling thread into a namespace."""
    _check(_libc().setns(descriptor, flags), "setns")


def set_real_ids(number: int) -> None:
    """Give the calling *thread* this real uid and gid. What it may do depends on its effective ones, which stay.

    The C library's own functions would do so to every thread.
    """
    for call in _SET_REAL_IDS[os.uname().machine]:
        _check(_libc().syscall(*map(ctypes.c_long, (call, number, -1, -1))), "set the real ids")


def close_mount(path: str) -> None:
    """Make the mount at `path`, and it alone, read-only; what else it forbids stays forbidden."""
    kept = os.statvfs(path).f_flag & (MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("none", path, flags=MS_BIND | MS_REMOUNT | MS_RDONLY | kept)


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """mount(2)."""
    arguments = (source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), options.encode())
    _check(_libc().mount(*arguments), f"mount {target}")
