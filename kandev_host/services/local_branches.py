"""Putting a branch into a local repository of the user's by writing three files: no git runs there.

So neither its hooks nor its settings have a say. gitrepository-layout: a pack and its index in `objects/pack`; a ref
is a file below `refs/heads`, made as `NAME.lock` and renamed (lockfile.c), or a line of `packed-refs`.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kandev_host.errors import Conflict, Unavailable

PACKED_BYTES = 256 << 20
SMALL_BYTES = 4096
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_BRANCH = "refs/heads/"


class LocalBranches:
    """The branches of the repository in `git_dir`. Every method blocks, and raises `OSError` for a broken one."""

    def __init__(self, git_dir: str) -> None:
        self._git_dir = Path(git_dir)

    def tip(self, branch: str) -> str | None:
        """The commit of a branch, None if there is none. Raises `Conflict` where one cannot be, `Unavailable`."""
        if (self._git_dir / "reftable").exists():
            raise Unavailable(
                "This repository keeps its refs in a reftable, which is not supported",
                fix="take the work home from a clone of it that uses files",
            )
        *outer, name = branch.split("/")
        with self._opened("refs", "heads", *outer) as folder:
            loose = None if folder is None else _small(name, folder, branch)
        return loose or self._packed(branch)

    def _packed(self, branch: str) -> str | None:
        try:
            with self._file("packed-refs") as packed:
                lines = _all(packed).decode("utf-8", "replace").splitlines()
        except FileNotFoundError:
            return None
        found = None
        for line in lines:
            commit, _, ref = line.partition(" ")
            other = ref.removeprefix(_BRANCH)
            if ref == _BRANCH + branch and _COMMIT.fullmatch(commit):
                found = commit
            elif ref.startswith(_BRANCH) and (branch.startswith(other + "/") or other.startswith(branch + "/")):
                raise Conflict(f"A branch {other!r} stands in the way of {branch!r}", state="branch")
        return found

    def check_free(self, branch: str) -> None:
        """Raise `Conflict` for a branch that is checked out, or being rebased, here or in a worktree."""
        trees = self._git_dir / "worktrees"
        folders = [self._git_dir, *(trees.iterdir() if trees.is_dir() else ())]
        for folder in folders:
            for name in ("HEAD", "rebase-merge/head-name", "rebase-apply/head-name"):
                try:
                    text = (folder / name).read_text(errors="replace")[:SMALL_BYTES]
                except (FileNotFoundError, NotADirectoryError):
                    continue
                if text.strip().removeprefix("ref: ") == _BRANCH + branch:
                    raise Conflict(f"The branch {branch!r} is checked out: name another", state="checked_out")

    def add_pack(self, name: str, pack: bytes, index: bytes) -> None:
        """Put objects there. git finds them by the index, so that comes last."""
        with self._opened("objects", "pack", make=True) as folder:
            assert folder is not None
            for suffix, content in ((".pack", pack), (".idx", index)):
                draft = f"tmp_{secrets.token_hex(8)}"
                _write(draft, folder, content, 0o444)
                os.replace(draft, name + suffix, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)

    def move(self, branch: str, commit: str, previous: str | None) -> None:
        """Have the branch name `commit`, if it still is at `previous`. Raises `Conflict` if somebody was faster."""
        *outer, name = branch.split("/")
        with self._opened("refs", "heads", *outer, make=True) as folder:
            assert folder is not None
            lock = name + ".lock"
            try:
                _write(lock, folder, commit.encode() + b"\n", 0o644)
            except FileExistsError:
                raise Conflict(f"Another git is changing the branch {branch!r}", state="locked") from None
            try:
                if self.tip(branch) != previous:
                    raise Conflict(f"The branch {branch!r} has changed meanwhile", state="branch")
                os.rename(lock, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException as error:
                os.unlink(lock, dir_fd=folder)
                if isinstance(error, IsADirectoryError):
                    raise Conflict(f"Branches below {branch!r} stand in its way", state="branch") from None
                raise
            os.fsync(folder)

    @contextmanager
    def _file(self, name: str) -> Iterator[int]:
        with self._opened() as folder:
            descriptor = os.open(name, _READ, dir_fd=folder)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def _opened(self, *parts: str, make: bool = False) -> Iterator[int | None]:
        """A folder of the repository, through no link; None if it is not there, and not to be made.

        Raises `Conflict` for a file in its place: a branch of that name.
        """
        folder = os.open(self._git_dir, _FOLDER)
        try:
            for part in parts:
                try:
                    inner = _entered(part, folder, make=make)
                except NotADirectoryError:
                    raise Conflict(f"A branch ending in {part!r} stands in the way", state="branch") from None
                except FileNotFoundError:
                    yield None
                    return
                os.close(folder)
                folder = inner
            yield folder
        finally:
            os.close(folder)


def _entered(name: str, parent: int, *, make: bool) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=parent)
    except FileNotFoundError:
        if not make:
            raise
    os.mkdir(name, stat.S_IMODE(os.fstat(parent).st_mode), dir_fd=parent)
    made = os.open(name, _FOLDER, dir_fd=parent)
    _as_owner_of(parent, made)
    return made


def _write(name: str, folder: int, content: bytes, mode: int) -> None:
    """A new file, wholly on the disk, of the owner of the folder; nothing stays of one that could not be written."""
    descriptor = os.open(name, _NEW, mode, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            _as_owner_of(folder, descriptor)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        os.unlink(name, dir_fd=folder)
        raise


def _as_owner_of(folder: int, descriptor: int) -> None:
    if os.geteuid() == 0:
        owner = os.fstat(folder)
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _small(name: str, folder: int, branch: str) -> str | None:
    """The commit in the file of a loose ref. Raises `Conflict` for a folder of branches, and for a symbolic ref."""
    try:
        descriptor = os.open(name, _READ, dir_fd=folder)
    except FileNotFoundError:
        return None
    try:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            if any(files for _, _, files, _ in os.fwalk(".", dir_fd=descriptor)):
                raise Conflict(f"Branches below {branch!r} stand in its way", state="branch")
            return None
        text = os.read(descriptor, SMALL_BYTES).decode("utf-8", "replace").strip()
    finally:
        os.close(descriptor)
    if not _COMMIT.fullmatch(text):
        raise Conflict(f"The branch {branch!r} names no commit", state="branch")
    return text


def _all(descriptor: int) -> bytes:
    parts = []
    left = PACKED_BYTES
    while left > 0 and (part := os.read(descriptor, min(left, 1 << 20))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
