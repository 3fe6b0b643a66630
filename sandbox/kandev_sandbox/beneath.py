"""Opening what is below a folder while a hostile program changes it: never through a link, never out of the folder.

openat2(2) resolves the whole path in the kernel. Where it is missing (before Linux 5.6, or filtered by a container),
each component is opened by itself and looked at before the next one. Both refuse `..`, so that a folder which is moved
away meanwhile leads nowhere else.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from functools import cache

PATH_BYTES = 4096
_OPENAT2 = 437  # the same number on every architecture that has it, but for alpha
_NO_XDEV, _NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x01, 0x02, 0x04, 0x08
_RESOLVE = _NO_XDEV | _NO_MAGICLINKS | _NO_SYMLINKS | _BENEATH
_MISSING = {errno.ENOSYS, errno.EPERM}  # EPERM: seccomp filters of older container engines


class _OpenHow(ctypes.Structure):
    """`struct open_how` of <linux/openat2.h>."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def parts_of(path: str) -> tuple[str, ...]:
    """The names on the way; none for "" and ".", the folder itself. Raises `ValueError` for what is no path below."""
    if "\0" in path or len(os.fsencode(path)) >= PATH_BYTES:
        raise ValueError("it holds a NUL, or is too long")
    if path.startswith("/"):
        raise ValueError("it is absolute")
    parts = tuple(part for part in path.split("/") if part not in {"", "."})
    if ".." in parts:
        raise ValueError("it leads upwards")
    return parts


def open_beneath(folder: int, parts: tuple[str, ...], flags: int) -> int:
    """A descriptor of what `parts` name below the folder, never inherited. The caller closes it.

    Raises `OSError`: ELOOP for a link on the way or at the end, EXDEV for another file system, ENOENT, ENOTDIR, EACCES.
    """
    if has_openat2():
        return _openat2(folder, "/".join(parts) or ".", flags)
    return _one_by_one(folder, parts, flags)


@cache
def has_openat2() -> bool:
    """Does this kernel have it, and may this process call it?"""
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        os.close(_openat2(root, ".", os.O_PATH))
    except OSError as error:
        if error.errno in _MISSING:
            return False
        raise
    finally:
        os.close(root)
    return True


def _openat2(folder: int, path: str, flags: int) -> int:
    how = _OpenHow(flags | os.O_CLOEXEC, 0, _RESOLVE)
    size = ctypes.c_size_t(ctypes.sizeof(how))
    opened = _libc().syscall(ctypes.c_long(_OPENAT2), ctypes.c_int(folder), os.fsencode(path), ctypes.byref(how), size)
    if opened < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return int(opened)


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return libc


def _one_by_one(folder: int, parts: tuple[str, ...], flags: int) -> int:
    """Each component as an O_PATH descriptor, which opens nothing; the last is opened again through /proc."""
    device = os.fstat(folder).st_dev
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        for part in parts:
            inner = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = inner
            found = os.fstat(here)
            if stat.S_ISLNK(found.st_mode):
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), part)
            if found.st_dev != device:
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), part)
        return reopen(here, flags)
    finally:
        os.close(here)


def reopen(handle: int, flags: int) -> int:
    """What an O_PATH descriptor stands for, opened with these flags: that very file, whatever its name is by now."""
    if flags & os.O_PATH:
        if flags & os.O_DIRECTORY and not stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        return os.dup(handle)
    return os.open(f"/proc/self/fd/{handle}", flags | os.O_CLOEXEC)
