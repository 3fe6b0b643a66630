"""Looking at /workspace again and again for what changed: it knows each file by its times and content, and stores none.

A change is another content or kind: what was only touched is read again, and found unchanged. A file too large to be
read, or closed to us, counts as changed when its times did.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

from kandev_host.services.jailed import files
from kandev_host.services.jailed.take import LISTING, SETTLED_NS
from kandev_host.services.jailed.walk import Budget, OutOfTime, Skipped, Walk

MOMENTS = 1000
REMEMBERED = 200_000
NAMES_BYTES = 256 << 10
_READ_BYTES = 1 << 20

Status = tuple[str, int, int, int, int]  # mode, size, mtime, ctime, inode
Shape = tuple[str, str]  # mode, content
Entry = tuple[Status, Shape]


def serve(*, name: str, budget_s: float, max_files: int, file_bytes: int, workspace: str = "/workspace") -> None:
    """Answer each line of stdin, a moment or null, with a line of JSON. Raises `OSError` for a lost workspace.

    Moments are called `name.NUMBER`.
    """
    seen = Seen(name, file_bytes, _remembered())
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        cut = seen.look(workspace, budget_s, max_files)
        reply = {"known": False} if cut else seen.since(asked["moment"], asked["limit"])
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()


@dataclass(slots=True)
class Seen:
    """The workspace as it was at the last look, and what it was at moments before.

    `_undo` has, for each moment but the last, what the files that changed until the next one had been.
    """

    name: str
    file_bytes: int
    entries: dict[bytes, Entry] = field(default_factory=dict)
    _moment: int = 0
    _undo: deque[dict[bytes, Shape | None]] = field(default_factory=deque)
    _remembered: int = 0

    def look(self, workspace: str, budget_s: float, max_files: int) -> str | None:
        """What it is now; or why that is not known, and then all is as before."""
        found: dict[bytes, Entry] = {}

        def visit(folder: int, name: bytes, path: bytes, status: os.stat_result) -> None:
            found[path] = self._entry(folder, name, path, status)

        root = files.open_folder(os.fsencode(workspace))
        walk = Walk(visit, Skipped(), max_files)
        budget = Budget(budget_s)
        try:
            budget.start()
            walk.run(root)
            budget.over()
        except OutOfTime:
            return "time"
        finally:
            os.close(root)
        if walk.cut is None:
            self._became(found)
        return walk.cut

    def since(self, moment: str | None, limit: int) -> dict[str, object]:
        """The paths that differ from a moment, the first `limit` of them and of 256 KiB, and how many there are."""
        name, _, number = (moment or self._now()).rpartition(".")
        back = self._moment - int(number) if number.isdecimal() else -1
        if name != self.name or not 0 <= back <= len(self._undo):
            return {"known": False}
        before: dict[bytes, Shape | None] = {}
        for undo in islice(self._undo, len(self._undo) - back, None):
            for path, shape in undo.items():
                before.setdefault(path, shape)  # the oldest says what it was
        changed = sorted(path for path, shape in before.items() if _shape(self.entries.get(path)) != shape)
        return {"known": True, "paths": _first(changed, limit), "count": len(changed), "moment": self._now()}

    def _now(self) -> str:
        return f"{self.name}.{self._moment}"

    def _became(self, found: dict[bytes, Entry]) -> None:
        old = self.entries
        changed = [path for path, entry in found.items() if entry is not old.get(path)]
        undo = {path: _shape(old.get(path)) for path in (*changed, *(old.keys() - found.keys()))}
        undo = {path: shape for path, shape in undo.items() if shape != _shape(found.get(path))}
        self.entries = found
        if not self._moment:  # what was known before is of no moment that anybody was told
            self._moment = 1
        elif undo:
            self._moment += 1
            self._undo.append(undo)
            self._remembered += len(undo)
            while len(self._undo) > MOMENTS or self._remembered > REMEMBERED:
                self._remembered -= len(self._undo.popleft())

    def _entry(self, folder: int, name: bytes, path: bytes, status: os.stat_result) -> Entry:
        now, known = _status(status), self.entries.get(path)
        if known is not None and known[0] == now:
            return known
        unsure = False
        try:
            if stat.S_ISLNK(status.st_mode):
                content: str | None = _of_link(name, folder)
            else:
                content, unsure = self._of_file(name, folder, status.st_size)
        except OSError:
            content = None
        if content is None and not _settled(now):
            time.sleep(SETTLED_NS / 1e9)  # then another change has another time
            now = _status(os.stat(name, dir_fd=folder, follow_symlinks=False))
        shape = (now[0], repr(now) if content is None else content)
        if unsure or not _settled(now):
            now = (*now[:3], 0, now[4])  # it is read again the next time
        return now, shape

    def _of_file(self, name: bytes, folder: int, size: int) -> tuple[str | None, bool]:
        """The name of its content, None for one that is too large; and whether it may change without a new time."""
        if size > self.file_bytes:
            return None, False
        descriptor, status = files.open_file(name, folder)
        try:
            unsure = files.is_open_to_write(descriptor)  # before it is read
            content = hashlib.sha256(b"blob %d\0" % status.st_size)
            rest = self.file_bytes + 1
            while rest > 0 and (part := os.read(descriptor, min(rest, _READ_BYTES))):
                content.update(part)
                rest -= len(part)
        finally:
            os.close(descriptor)
        return content.hexdigest() if rest > 0 else None, unsure


def _status(status: os.stat_result) -> Status:
    mode = "100755" if status.st_mode & stat.S_IXUSR else "100644"
    kind = "120000" if stat.S_ISLNK(status.st_mode) else mode
    return kind, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _settled(status: Status) -> bool:
    return status[3] <= time.time_ns() - SETTLED_NS


def _of_link(name: bytes, folder: int) -> str:
    content = os.fsencode(os.readlink(name, dir_fd=folder))
    return hashlib.sha256(b"blob %d\0" % len(content) + content).hexdigest()


def _shape(entry: Entry | None) -> Shape | None:
    return None if entry is None else entry[1]


def _first(paths: Iterable[bytes], limit: int) -> list[str]:
    told: list[str] = []
    room = NAMES_BYTES
    for path in paths:
        room -= len(path)
        if room < 0 or len(told) == limit:
            break
        told.append(path.decode("utf-8", "replace"))
    return told


def _remembered() -> dict[bytes, Entry]:
    """What the last snapshot read needs not be read again; nothing, if there is none."""
    try:
        found = json.loads(LISTING.read_bytes())["files"].items()
        return {
            os.fsencode(path): ((mode, size, mtime, ctime, inode), (mode, id))
            for path, (mode, size, mtime, ctime, inode, id) in found
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
