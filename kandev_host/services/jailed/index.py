"""The paths that a git index names (gitformat-index), read by us: the file is the agent's, and may be anything."""

from __future__ import annotations

from collections.abc import Iterator

FILE_BYTES = 64 << 20
_FIXED = 40  # times, device, inode, mode, owner, size
_EXTENDED = 0x4000


def tracked(content: bytes) -> set[bytes]:
    """The paths of an index, of SHA-1 or SHA-256; of a broken one, those before the first thing that makes no sense."""
    found = [set(_paths(content, size)) for size in (20, 32)]
    return max(found, key=len)


def _paths(content: bytes, hash_bytes: int) -> Iterator[bytes]:
    version, count = int.from_bytes(content[4:8]), int.from_bytes(content[8:12])
    if content[:4] != b"DIRC" or version not in (2, 3, 4):
        return
    at, previous = 12, b""
    for _ in range(count):
        flags_at = at + _FIXED + hash_bytes
        flags = int.from_bytes(content[flags_at : flags_at + 2])
        begin = flags_at + 2 + (2 if flags & _EXTENDED and version > 2 else 0)
        if version == 4:
            strip, begin = _varint(content, begin)
            if strip > len(previous):
                return
        end = content.find(b"\0", begin)
        if end < 0:
            return
        path = content[begin:end]
        if version == 4:
            path = previous[: len(previous) - strip] + path
            at = end + 1
        else:
            at += (end - at) // 8 * 8 + 8
        if not path or path.startswith(b"/") or len(path) > 4096:
            return
        yield path
        previous = path


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """As git's varint.c has it; a number too large to be one is given back as it is."""
    value = 0
    for end, byte in enumerate(content[at : at + 9], at + 1):
        value = (value << 7) + (byte & 127)
        if not byte & 128:
            return value, end
        value += 1
    return 1 << 40, at
