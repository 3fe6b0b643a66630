"""Making the workspace what a snapshot holds. Only what another snapshot holds as well is ever written over."""

from __future__ import annotations

import os
import secrets
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kandev_host.services.jailed import files, store
from kandev_host.services.jailed.walk import Skipped

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_Change = tuple[bytes, str, bytes, bytes]  # status, mode, object, path


def restore(*, now: str, to: str, keep: list[str], delete: bool, workspace: str = "/workspace") -> dict[str, Any]:
    """From the tree `now`, which the workspace is, to the tree `to`.

    What is only in `now` goes if `delete`, but for the paths of `keep`. Raises `GitError`.
    """
    store.ensure()
    root = files.open_folder(os.fsencode(workspace))
    restoring = _Restoring(root, Skipped())
    deleted = written = 0
    kept = {os.fsencode(path) for path in keep}
    gone: list[_Change] = []
    changes: list[_Change] = []
    for status, mode, id, path in _changes(now, to):
        (gone if status == b"D" else changes).append((status, mode, id, path))
    for _, _, _, path in gone:
        deleted += delete and path not in kept and restoring.delete(path)
    with _Contents() as contents:
        for status, mode, id, path in changes:
            written += restoring.write(path, mode, contents.of(id), new=status == b"A")
    os.close(root)
    skipped = restoring.skipped
    return {"deleted": deleted, "written": written, "skipped": skipped.named, "skipped_files": skipped.count}


def _changes(now: str, to: str) -> Iterator[_Change]:
    parts = iter(store.git("diff-tree", "-r", "-z", "--no-renames", "--raw", now, to).split(b"\0"))
    for told in parts:
        if told:
            _, mode, _, id, status = told.split(b" ")
            yield status[:1], mode.decode(), id, next(parts)


class _Contents:
    """`git cat-file --batch`: what objects hold."""

    def __enter__(self) -> _Contents:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            ["git", "cat-file", "--batch"], stdin=pipe, stdout=pipe, env=store.environment(), cwd="/"
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def of(self, id: bytes) -> bytes:
        asked, told = self._process.stdin, self._process.stdout
        assert asked is not None
        assert told is not None
        asked.write(id + b"\n")
        asked.flush()
        head = told.readline().split()
        if len(head) != 3:
            raise store.GitError(f"the object {id.decode()} is not there")
        content = told.read(int(head[2]))
        told.read(1)
        return content


class _Restoring:
    def __init__(self, root: int, skipped: Skipped) -> None:
        self._root = root
        self.skipped = skipped

    def delete(self, path: bytes) -> bool:
        """The file or link, and the folders that are empty without it."""
        try:
            with self._folder_of(path, make=False) as (folder, name):
                if folder is None:
                    return False
                os.unlink(name, dir_fd=folder)
            self._tidy(path)
        except FileNotFoundError:
            return False
        except OSError as error:
            self.skipped.add(path, error.strerror or str(error))
            return False
        return True

    def _tidy(self, path: bytes) -> None:
        outer = os.path.dirname(path)
        while outer:
            with self._folder_of(outer, make=False) as (folder, name):
                if folder is None:
                    return
                try:
                    os.rmdir(name, dir_fd=folder)
                except OSError:
                    return  # something else is in it
            outer = os.path.dirname(outer)

    def write(self, path: bytes, mode: str, content: bytes, *, new: bool) -> bool:
        """Put it there. What is there already must be in the snapshot made before, unless it is the same."""
        try:
            with self._folder_of(path, make=True) as (folder, name):
                if folder is not None:
                    return self._put(folder, name, path, mode, content, new=new)
                self.skipped.add(path, "something else is in its way")
        except OSError as error:
            self.skipped.add(path, error.strerror or str(error))
        return False

    def _put(self, folder: int, name: bytes, path: bytes, mode: str, content: bytes, *, new: bool) -> bool:
        there = _status(name, folder)
        if there is not None and (new or not _replaceable(there)):
            self.skipped.add(path, "something is there that the snapshot before the restore does not hold")
            return False
        draft = b".kandev-restore-" + secrets.token_hex(8).encode()
        if mode == "120000":
            os.symlink(content, draft, dir_fd=folder)
        else:
            descriptor = os.open(draft, _NEW, 0o755 if mode == "100755" else 0o644, dir_fd=folder)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(content)
            except OSError:
                os.unlink(draft, dir_fd=folder)
                raise
        os.rename(draft, name, src_dir_fd=folder, dst_dir_fd=folder)
        return True

    @contextmanager
    def _folder_of(self, path: bytes, *, make: bool) -> Iterator[tuple[int | None, bytes]]:
        """The folder that the path lies in, by descriptor; None if something else is in its way, or it is not there."""
        *outer, name = path.split(b"/")
        folder: int | None = os.dup(self._root)
        try:
            for part in outer:
                assert folder is not None
                inner = _entered(part, folder, make=make)
                os.close(folder)
                folder = inner
                if folder is None:
                    break
            if folder is not None:
                _make_writable(folder)
            yield folder, name
        finally:
            if folder is not None:
                os.close(folder)


def _entered(name: bytes, parent: int, *, make: bool) -> int | None:
    if make and _status(name, parent) is None:
        _make_writable(parent)
        os.mkdir(name, 0o755, dir_fd=parent)
    try:
        return files.open_folder(name, parent)
    except OSError:
        return None


def _make_writable(folder: int) -> None:
    mode = stat.S_IMODE(os.fstat(folder).st_mode)
    if mode & 0o300 != 0o300:
        os.fchmod(folder, mode | 0o700)


def _status(name: bytes, folder: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _replaceable(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)
