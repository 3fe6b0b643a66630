"""Reading a hostile tree: below one descriptor, never through a link, regular files only, without waiting."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import stat

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_COMMIT = re.compile(rb"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_BRANCH = b"ref: refs/heads/"
SMALL_BYTES = 64 << 10
PACKED_BYTES = 8 << 20


def open_folder(name: bytes, parent: int | None = None) -> int:
    """A folder; `OSError` for a link or anything else."""
    return os.open(name, _FOLDER, dir_fd=parent)


def open_file(name: bytes, parent: int) -> tuple[int, os.stat_result]:
    """A regular file, and what it is; `OSError` for anything else."""
    descriptor = os.open(name, _FILE, dir_fd=parent)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise OSError("no regular file")
    return descriptor, found


def is_open_to_write(descriptor: int) -> bool:
    """May somebody change the file without a new time? Who has mapped a page writable, and written to it, can.

    Known from a lease, which there is only on files that nobody has open for writing (fcntl(2): F_SETLEASE). Where the
    filesystem has none, or the file is somebody else's: False. What is opened from here on gives it a new time at its
    first write.
    """
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # what the kernel sends to the holder when it is opened meanwhile
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def read_all(descriptor: int, limit_bytes: int) -> bytes:
    """The rest of the file, at most so much."""
    parts: list[bytes] = []
    room = limit_bytes
    while room > 0 and (part := os.read(descriptor, min(room, 1 << 20))):
        parts.append(part)
        room -= len(part)
    return b"".join(parts)


def read_small(path: bytes, root: int, limit_bytes: int = SMALL_BYTES) -> bytes | None:
    """The content of the regular file at this path below `root`; None if there is none, or a larger one."""
    *folders, name = path.split(b"/")
    parent = os.dup(root)
    try:
        for folder in folders:
            inner = open_folder(folder, parent)
            os.close(parent)
            parent = inner
        descriptor, found = open_file(name, parent)
        try:
            return read_all(descriptor, limit_bytes) if found.st_size <= limit_bytes else None
        finally:
            os.close(descriptor)
    except OSError:
        return None
    finally:
        os.close(parent)


def head_of(root: int) -> tuple[str | None, str | None]:
    """The branch and the commit that a workspace's repository says is checked out, as far as it makes sense."""
    head = (read_small(b".git/HEAD", root) or b"").strip()
    if _COMMIT.fullmatch(head):
        return None, head.decode()
    name = head.removeprefix(_BRANCH)
    if name == head or not name or b".." in name or name.startswith(b"/"):
        return None, None
    branch = name[:255].decode("utf-8", "replace")
    loose = (read_small(b".git/refs/heads/" + name, root) or b"").strip()
    if _COMMIT.fullmatch(loose):
        return branch, loose.decode()
    packed = read_small(b".git/packed-refs", root, PACKED_BYTES) or b""
    for line in packed.splitlines():
        commit, _, ref = line.partition(b" ")
        if ref == b"refs/heads/" + name and _COMMIT.fullmatch(commit):
            return branch, commit.decode()
    return branch, None
