"""What a dynamic ELF binary asks for outside of the system's folders: its loader and its run paths."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_STRTAB, _DT_RPATH, _DT_RUNPATH = 5, 15, 29
_TABLE_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class Elf:
    """`interpreter` is None for a static binary; `run_paths` have $ORIGIN already replaced."""

    interpreter: Path | None
    run_paths: tuple[Path, ...]


def read(path: Path) -> Elf | None:
    """Parse a 64-bit little-endian ELF; None if the file is nothing of the kind (or cut off)."""
    with path.open("rb") as file:
        head = file.read(64)
        if len(head) < 64 or head[:6] != b"\x7fELF\x02\x01":
            return None
        try:
            return _parse(file, head, path)
        except struct.error:
            return None


def _parse(file: BinaryIO, head: bytes, path: Path) -> Elf:
    (offset,) = struct.unpack_from("<Q", head, 32)
    size, count = struct.unpack_from("<HH", head, 54)
    file.seek(offset)
    table = file.read(size * count)
    segments = [struct.unpack_from("<IIQQQQQQ", table, index * size) for index in range(count)]
    interpreter = None
    dynamic: list[tuple[int, int]] = []
    for kind, _, where, _, _, length, _, _ in segments:
        file.seek(where)
        if kind == _PT_INTERP:
            interpreter = Path(file.read(min(length, 4096)).rstrip(b"\0").decode())
        elif kind == _PT_DYNAMIC:
            dynamic = list(struct.iter_unpack("<QQ", file.read(min(length, _TABLE_LIMIT) // 16 * 16)))
    return Elf(interpreter, _run_paths(file, segments, dynamic, path))


def _run_paths(
    file: BinaryIO, segments: list[tuple[int, ...]], dynamic: list[tuple[int, int]], path: Path
) -> tuple[Path, ...]:
    strings = next((value for tag, value in dynamic if tag == _DT_STRTAB), None)
    if strings is None:
        return ()
    start = next((s[2] + strings - s[3] for s in segments if s[0] == _PT_LOAD and s[3] <= strings < s[3] + s[5]), None)
    result = []
    for tag, value in dynamic:
        if tag in (_DT_RPATH, _DT_RUNPATH) and start is not None:
            file.seek(start + value)
            text = file.read(4096).split(b"\0")[0].decode(errors="replace")
            result += [entry.replace("${ORIGIN}", "$ORIGIN") for entry in text.split(":") if entry]
    origin = str(path.resolve().parent)
    return tuple(Path(entry.replace("$ORIGIN", origin)) for entry in result)
