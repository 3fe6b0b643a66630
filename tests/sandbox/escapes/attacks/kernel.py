"""Calls that Python has no function for. Each raises `OSError`."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from contextlib import suppress

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.shmat.restype = ctypes.c_void_p
ARM = os.uname().machine == "aarch64"

NEWNS, NEWCGROUP, NEWUTS, NEWIPC = 0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000
NEWUSER, NEWPID, NEWNET = 0x1000_0000, 0x2000_0000, 0x4000_0000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_MOVE, MS_REC, MS_PRIVATE = 1, 32, 4096, 8192, 16384, 1 << 18
MNT_DETACH = 2


def check(result: int | None) -> int:
    if result is None or result == -1 or result == ctypes.c_void_p(-1).value:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def call(number: int, *arguments: object) -> int:
    """syscall(2)."""
    wide = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return check(LIBC.syscall(ctypes.c_long(number), *wide))


def mount(source: str, target: str, kind: str | None, flags: int = 0, options: str | None = None) -> None:
    names = [None if text is None else os.fsencode(text) for text in (source, target, kind, options)]
    check(LIBC.mount(names[0], names[1], names[2], ctypes.c_ulong(flags), names[3]))


def umount(target: str, flags: int = MNT_DETACH) -> None:
    check(LIBC.umount2(os.fsencode(target), flags))


def unshare(flags: int) -> None:
    check(LIBC.unshare(flags))


def setns(descriptor: int, kind: int = 0) -> None:
    check(LIBC.setns(descriptor, kind))


def namespaces(flags: int) -> None:
    """Take new ones as root of a new user namespace, or as root of this one. Mounts made then stay in there."""
    uid, gid = os.getuid(), os.getgid()
    if uid == 0:
        unshare(flags)
    else:
        unshare(NEWUSER | flags)
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    if flags & NEWNS:
        mount("none", "/", None, MS_REC | MS_PRIVATE)


def attempt(*tries: Callable[[], object]) -> bool:
    """Do each, whatever becomes of the others; True if one was not refused."""
    done = False
    for one in tries:
        with suppress(OSError):
            one()
            done = True
    return done


def read(path: str | int, size: int = 1 << 20) -> str:
    with open(path, "rb") as file:
        return file.read(size).decode(errors="replace")


def write(path: str, text: str = "escaped") -> bool:
    with open(path, "w") as file:
        file.write(text)
    return True


def first(paths: list[str], token_like: Callable[[str], bool] = bool) -> str:
    """What the first readable of these files says. Raises the last refusal."""
    refused = OSError(2, "nothing to try")
    for path in paths:
        try:
            text = read(path)
        except OSError as error:
            refused = error
            continue
        if token_like(text):
            return text
    raise refused


def pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]
