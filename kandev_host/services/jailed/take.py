"""Taking a snapshot: /workspace as it is, into the repository of snapshots.

`listing` remembers what each file was (size, times, inode) when it was read, so that the next snapshot reads only what
changed. It lies beside the repository, where no agent reaches; a change time cannot be set back by one either.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from dataclasses import dataclass, field
from typing import Any

from kandev_host.services.jailed import files, store
from kandev_host.services.jailed.walk import Budget, OutOfTime, Skipped, Walk

LAST = "refs/kandev/last"
SETTLED_NS = 50_000_000  # a file changed so recently may change again without a new time
LISTING = store.FOLDER / "listing.json"

Entry = list[Any]  # mode, size, mtime, ctime, inode, object


@dataclass(frozen=True, slots=True)
class Listing:
    """What `LAST` holds: its tree, and the files. `whole` is False if some are of an earlier snapshot."""

    tree: str | None = None
    whole: bool = True
    files: dict[str, Entry] = field(default_factory=dict)

    @classmethod
    def read(cls) -> Listing:
        """Nothing, if the repository does not hold what the file says."""
        try:
            found = json.loads(LISTING.read_bytes())
            listing = cls(found["tree"], found["whole"], found["files"])
        except (OSError, ValueError, KeyError, TypeError):
            return cls()
        return listing if store.resolved(f"{LAST}^{{tree}}") == listing.tree else cls()

    def write(self) -> None:
        """Only after the objects are stored: what it names is there."""
        draft = LISTING.with_suffix(".new")
        draft.write_text(json.dumps({"tree": self.tree, "whole": self.whole, "files": self.files}))
        draft.replace(LISTING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Seconds for the walk, files in all, bytes of one file, bytes of the repository."""

    budget_s: float
    max_files: int
    file_bytes: int
    limit_bytes: int


def take(
    *,
    ref: str | None,
    unless_tree: str | None = None,
    also_tree: str | None = None,
    workspace: str = "/workspace",
    **bounds: Any,
) -> dict[str, Any]:
    """The tree of the workspace, kept under `ref` unless it is `unless_tree` and whole.

    Files of the tree `also_tree` count as tracked. Raises `GitError`, `OSError` if the workspace cannot be read.
    """
    store.ensure()
    tracked = {path for _, _, path in store.listed(also_tree)} if also_tree else set()
    last, limits = Listing.read(), Bounds(**bounds)
    try:
        taken = _taken(last, tracked, limits, workspace)
    except store.GitError:
        if not last.files:
            raise
        taken = _taken(Listing(), tracked, limits, workspace)  # an object is gone: read everything anew
    unchanged = taken["tree"] == unless_tree and not taken["cut"]
    if ref is not None and not unchanged:
        store.git("update-ref", ref, LAST)
    return {**taken, "unchanged": unchanged, "repository_bytes": store.size_bytes()}


def _taken(last: Listing, tracked: set[bytes], bounds: Bounds, workspace: str) -> dict[str, Any]:
    root = files.open_folder(os.fsencode(workspace))
    try:
        branch, head = files.head_of(root)
        taking = _Taking(last, bounds)
        walk = Walk(taking.visit, taking.skipped, bounds.max_files, tracked)
        try:
            taking.budget.start()
            walk.run(root)
            taking.budget.over()
        except OutOfTime:
            walk.cut = "time"
    finally:
        os.close(root)
    tree, changed = taking.finish(whole=walk.cut is None)
    return {
        "tree": tree,
        "files": len(taking.entries),
        "bytes": sum(entry[1] for entry in taking.entries.values()),
        "changed": changed,
        "cut": walk.cut,
        "skipped": taking.skipped.named,
        "skipped_files": taking.skipped.count,
        "branch": branch,
        "head": head,
    }


class _Taking:
    def __init__(self, last: Listing, bounds: Bounds) -> None:
        self.budget = Budget(bounds.budget_s)
        self.skipped = Skipped()
        self.entries: dict[str, Entry] = {}
        self._last = last
        self._file_bytes = bounds.file_bytes
        self._room_bytes = bounds.limit_bytes - store.size_bytes()
        self._writer = store.Writer()
        self._stored = {entry[5] for entry in last.files.values()}

    def visit(self, folder: int, name: bytes, path: bytes, status: os.stat_result) -> None:
        link = stat.S_ISLNK(status.st_mode)
        mode = "120000" if link else "100755" if status.st_mode & stat.S_IXUSR else "100644"
        entry: Entry = [mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        known = self._last.files.get(os.fsdecode(path))
        if known is not None and known[:5] == entry:
            self.entries[os.fsdecode(path)] = known
            return
        unsure = False
        try:
            if link:
                content: bytes | None = os.fsencode(os.readlink(name, dir_fd=folder))
            else:
                content, unsure = self._content(name, folder, status)
        except OSError as error:
            self.skipped.add(path, error.strerror or str(error))
            return
        if content is None:
            self.skipped.add(path, f"more than {self._file_bytes} bytes")
        elif (id := self._keep(content)) is None:
            self.skipped.add(path, "no room is left for it")
        else:
            if unsure or status.st_ctime_ns > time.time_ns() - SETTLED_NS:
                entry[3] = 0
            self.entries[os.fsdecode(path)] = [mode, len(content), *entry[2:], id]

    def _content(self, name: bytes, folder: int, status: os.stat_result) -> tuple[bytes | None, bool]:
        """None for one that is too large; and whether it may change without a new time."""
        if status.st_size > self._file_bytes:
            return None, False
        descriptor, _ = files.open_file(name, folder)
        try:
            unsure = files.is_open_to_write(descriptor)  # before it is read
            content = files.read_all(descriptor, self._file_bytes + 1)
        finally:
            os.close(descriptor)
        return content if len(content) <= self._file_bytes else None, unsure

    def _keep(self, content: bytes) -> str | None:
        """Its name in the repository; None where there is no room for it."""
        id = hashlib.sha256(b"blob %d\0" % len(content) + content).hexdigest()
        if id in self._stored:
            return id
        if len(content) > self._room_bytes:
            return None
        with self.budget:
            self._writer.blob(content)
            self._stored.add(id)
            self._room_bytes -= len(content)
        return id

    def finish(self, *, whole: bool) -> tuple[str, int | None]:
        """Have it stored under `LAST`: the tree's name, and how many files differ from the last time."""
        old, new = _shape(self._last.files), _shape(self.entries)
        if self._last.tree is None or old != new:
            self._writer.commit(LAST, ((shape[0].encode(), shape[1], os.fsencode(path)) for path, shape in new.items()))
        self._writer.close()
        tree = store.git("rev-parse", "--verify", f"{LAST}^{{tree}}").decode().strip()
        kept = self.entries if whole else {**self._last.files, **self.entries}
        if kept != self._last.files or tree != self._last.tree:
            Listing(tree, whole, kept).write()
        if not whole or not self._last.whole:
            return tree, None
        return tree, sum(old.get(path) != shape for path, shape in new.items()) + len(old.keys() - new.keys())


def _shape(entries: dict[str, Entry]) -> dict[str, tuple[str, str]]:
    return {path: (entry[0], entry[5]) for path, entry in entries.items()}
