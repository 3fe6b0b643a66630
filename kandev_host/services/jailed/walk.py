"""All files of a workspace that its .gitignore files do not leave out; those that are tracked always. Links are links.

Bounded in time, files and depth, whatever the tree is: what is left out is named, with the reason.
"""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kandev_host.services.jailed import files, ignores, index

DEPTH = 128
PATH_BYTES = 4000
NAMED = 100
INDEX_BYTES = 128 << 20
_KINDS = {
    stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"
}  # fmt: skip

Visit = Callable[[int, bytes, bytes, os.stat_result], None]
Stack = tuple[tuple[int, ignores.Rules], ...]


class OutOfTime(Exception):
    """The time for the walk is over."""


class Budget:
    """From `start` on raises `OutOfTime` in the middle of whatever takes too long, except within it as a context.

    Once: whoever caught it goes on undisturbed.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds
        self._held = False
        signal.signal(signal.SIGALRM, self._alarm)

    def start(self) -> None:
        """Only where `OutOfTime` is caught: a short time may be over at once."""
        self._end = time.monotonic() + self._seconds
        signal.setitimer(signal.ITIMER_REAL, max(self._seconds, 0.001))

    def _alarm(self, *_: object) -> None:
        if not self._held:
            self._held = True
            raise OutOfTime

    def __enter__(self) -> None:
        self._held = True

    def __exit__(self, *_: object) -> None:
        self._held = False
        if time.monotonic() >= self._end:
            self._held = True  # the alarm may still be on its way
            raise OutOfTime

    def over(self) -> None:
        """From here on nothing is interrupted any more."""
        signal.setitimer(signal.ITIMER_REAL, 0)


@dataclass(slots=True)
class Skipped:
    """What is not in the snapshot: the first of it by name, all of it by number."""

    named: list[dict[str, str]] = field(default_factory=list)
    count: int = 0

    def add(self, path: bytes, reason: str) -> None:
        self.count += 1
        if len(self.named) < NAMED:
            self.named.append({"path": path[:1000].decode("utf-8", "replace"), "reason": reason})


@dataclass(slots=True)
class Walk:
    """`visit(folder, name, path, stat)` gets each regular file and link. `tracked` count as if git tracked them."""

    visit: Visit
    skipped: Skipped
    max_files: int
    tracked: set[bytes] = field(default_factory=set)
    cut: str | None = None  # why the walk ended early
    _folders: set[bytes] = field(default_factory=set)
    _seen: int = 0
    _index_bytes: int = 0

    def run(self, root: int) -> None:
        """Raises `OutOfTime`, and `OSError` for a root that cannot be read."""
        self._remember(b"", set(self.tracked))
        self._folder(root, b"", (), 0, only_tracked=False)

    def _folder(self, folder: int, prefix: bytes, rules: Stack, depth: int, *, only_tracked: bool) -> None:
        with os.scandir(folder) as entries:
            found = sorted((os.fsencode(entry.name), entry) for entry in entries)
        names = {name for name, _ in found}
        if b".git" in names:
            self._index(folder, prefix)
        if b".gitignore" in names and (content := files.read_small(b".gitignore", folder, ignores.FILE_BYTES)):
            rules = (*rules, (len(prefix), ignores.Rules(content)))
        for name, entry in found:
            if self.cut is not None:
                return
            if name != b".git":
                self._entry(folder, name, prefix + name, entry, rules, depth, only_tracked=only_tracked)

    def _entry(
        self,
        folder: int,
        name: bytes,
        path: bytes,
        entry: os.DirEntry[Any],
        rules: Stack,
        depth: int,
        *,
        only_tracked: bool,
    ) -> None:
        self._seen += 1
        if self._seen > self.max_files:
            self.cut = "files"
            return
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError:
            return  # it went away, which may happen at any time
        is_folder = stat.S_ISDIR(status.st_mode)
        ignored = only_tracked or _ignored(name, path, rules, is_folder)
        if ignored and path not in (self._folders if is_folder else self.tracked):
            return
        if name.lower() == b".git" or len(path) > PATH_BYTES:
            self.skipped.add(path, "git takes no such name")
        elif is_folder:
            self._inner(folder, name, path, rules, depth, only_tracked=ignored)
        elif stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
            self.visit(folder, name, path, status)
        else:
            self.skipped.add(path, _KINDS.get(stat.S_IFMT(status.st_mode), "no regular file"))

    def _inner(self, folder: int, name: bytes, path: bytes, rules: Stack, depth: int, *, only_tracked: bool) -> None:
        if depth >= DEPTH:
            self.skipped.add(path, "too deep")
            return
        try:
            inner = files.open_folder(name, folder)
        except OSError as error:
            self.skipped.add(path, error.strerror or "cannot be opened")
            return
        try:
            self._folder(inner, path + b"/", rules, depth + 1, only_tracked=only_tracked)
        except OSError as error:
            self.skipped.add(path, error.strerror or "cannot be read")
        finally:
            os.close(inner)

    def _index(self, folder: int, prefix: bytes) -> None:
        """What the repository whose folder this is tracks; also one inside the workspace's own."""
        content = files.read_small(b".git/index", folder, index.FILE_BYTES)
        if content is None:
            return
        self._index_bytes += len(content)
        if self._index_bytes <= INDEX_BYTES:
            self._remember(prefix, index.tracked(content))

    def _remember(self, prefix: bytes, paths: set[bytes]) -> None:
        for path in paths:
            whole = prefix + path
            self.tracked.add(whole)
            at = whole.rfind(b"/")
            while at > 0 and whole[:at] not in self._folders:
                self._folders.add(whole[:at])
                at = whole.rfind(b"/", 0, at)


def _ignored(name: bytes, path: bytes, rules: Stack, is_folder: bool) -> bool:
    for length, each in reversed(rules):
        told = each.ignored(name, path[length:], is_folder)
        if told is not None:
            return told
    return False
