"""Where captures lie: `<data>/captures/<task>/<agent>.<offset>.jsonl`, at most two files an agent.

`offset` is where the file begins in all that was captured of the agent, so that a reader goes on where it was, also
when the older file has gone. Files are 0600, folders 0700.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
# Longer than any line that is written.
READ_LIMIT_BYTES = 4 << 20


class Page(msgspec.Struct, frozen=True):
    """Whole lines without their newlines, and where the next one begins; so many bytes before them are gone."""

    lines: list[str]
    next_offset: int
    dropped_bytes: int


class Part(msgspec.Struct, frozen=True):
    """One file of an agent's capture; it begins at `offset`."""

    path: Path
    offset: int


class Tape:
    """The files of one agent, written by one thread. Only whole lines go in, and stay if the disk is full."""

    def __init__(self, folder: Path, agent_id: str, limit_bytes: int) -> None:
        self._folder = folder
        self._agent_id = agent_id
        self._part_bytes = max(1, limit_bytes // 2)
        self._file = -1
        self._size = 0
        self._offset = 0
        self._older: Path | None = None
        self.path: Path | None = None
        self.written = 0

    def write(self, lines: bytes) -> None:
        """Append them. Raises `OSError`; `written` says how many bytes went in, all told."""
        at = 0
        while at < len(lines):
            if self.path is None:
                self._open()
            room = self._part_bytes - self._size
            end = len(lines) if len(lines) - at <= room else lines.rfind(b"\n", at, at + room) + 1
            if end <= at and self._size == 0:
                end = lines.index(b"\n", at) + 1  # one line longer than a file is to be: a file of its own
            if end <= at:
                self.end_part()
                continue
            self._append(lines[at:end])
            at = end

    def end_part(self) -> None:
        """The next line begins a file; of those before, the last one stays."""
        if self.path is None:
            return
        os.close(self._file)
        if self._older is not None:
            self._older.unlink(missing_ok=True)
        self._older, self.path = self.path, None
        self._offset += self._size
        self._size = 0

    def close(self) -> None:
        if self.path is not None:
            os.close(self._file)
            self.path = None

    def _open(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._offset == 0 and (before := parts(self._folder, self._agent_id)):
            self._go_on_behind(before[-1])
        path = self._folder / f"{self._agent_id}.{self._offset}.jsonl"
        self._file = os.open(path, _FLAGS, 0o600)
        self.path = path

    def _go_on_behind(self, last: Part) -> None:
        """The host that wrote this one died, and its agent goes on."""
        size = last.path.stat().st_size
        self._offset = last.offset + size
        if size:
            self._older = last.path
        else:
            last.path.unlink()

    def _append(self, lines: bytes) -> None:
        try:
            written = 0
            while written < len(lines):
                written += os.write(self._file, lines[written:])
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._size += len(lines)
        self.written += len(lines)


def parts(folder: Path, agent_id: str) -> list[Part]:
    """The files of an agent, oldest first."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    found = (name.split(".") for name in names if name.startswith(f"{agent_id}."))
    offsets = sorted(int(words[1]) for words in found if len(words) == 3 and words[1].isdecimal())
    return [Part(folder / f"{agent_id}.{offset}.jsonl", offset) for offset in offsets]


def read(files: list[Part], offset: int, limit_bytes: int) -> Page:
    """Lines from `offset` on, together no more than the limit, but one at least if there is one.

    Raises `FileNotFoundError` when a file goes meanwhile.
    """
    for index, part in enumerate(files):
        following = files[index + 1].offset if index + 1 < len(files) else None
        if following is not None and offset >= following:
            continue
        start = max(offset, part.offset)
        lines, end = _lines(part, start, limit_bytes)
        if lines or following is None:
            return Page(lines, end, start - offset)
    return Page([], offset, 0)


def _lines(part: Part, start: int, limit_bytes: int) -> tuple[list[str], int]:
    """Those that begin at `start` or after it, and where they end."""
    with part.path.open("rb") as file:
        if start > part.offset:
            file.seek(start - part.offset - 1)
            skipped = file.readline(READ_LIMIT_BYTES)
            if not skipped:
                return [], start
            start += len(skipped) - 1
        data = file.read(limit_bytes)
        end = data.rfind(b"\n") + 1
        if not end and data:
            data += file.readline(READ_LIMIT_BYTES)
            end = len(data) if data.endswith(b"\n") else 0
    whole = data[:end]
    return whole.decode("utf-8", "replace").split("\n")[:-1], start + len(whole)


def every(root: Path) -> Iterator[tuple[float, int, Path]]:
    """All files of all captures: when last written, size, path."""
    for folder in _entries(root):
        for entry in _entries(Path(folder.path)):
            status = entry.stat(follow_symlinks=False)
            yield status.st_mtime, status.st_size, Path(entry.path)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def tasks(root: Path) -> list[str]:
    """The tasks that have captures."""
    return [entry.name for entry in _entries(root)]


def remove(folder: Path) -> None:
    """A task's captures; nothing if there are none. Raises `OSError`."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
