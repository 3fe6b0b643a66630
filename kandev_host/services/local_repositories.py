"""Find the git folder of a local repository by reading its small files. No git runs on the host.

gitrepository-layout: `.git` may be a folder, or a file `gitdir: PATH`; a linked worktree's git folder names the
shared one in `commondir`; `objects/info/alternates` names further folders of objects.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec

from kandev_host.errors import ValidationFailed

SMALL_FILE_BYTES = 64 << 10
ALTERNATES_MAX = 32


class LocalRepository(msgspec.Struct, frozen=True):
    """`git_dir` holds objects and refs. `head` is what clone would not find: the HEAD of a linked worktree (a ref, or a
    commit), and a detached one, for which git guesses a branch. Else None.

    `alternates` are folders of objects outside of `git_dir` that it borrows from.
    """

    git_dir: str
    head: str | None
    alternates: tuple[str, ...]


def find_local_repository(location: str, field: str) -> LocalRepository:
    """The repository at a path. Blocking. Raises `ValidationFailed` saying what is wrong with the path."""
    path = Path(location).expanduser()
    if not path.is_absolute():
        raise ValidationFailed(field, "Give an absolute path")
    try:
        path = path.resolve(strict=True)
        return _find(path, field)
    except FileNotFoundError:
        raise ValidationFailed(field, f"No such folder: {location}") from None
    except PermissionError as error:
        raise ValidationFailed(field, f"Not readable: {error.filename}") from None
    except (OSError, RuntimeError) as error:
        raise ValidationFailed(field, f"Not usable: {location} ({error})") from None


def _find(path: Path, field: str) -> LocalRepository:
    if not path.is_dir():
        raise ValidationFailed(field, f"Not a folder: {path}")
    dot_git = path / ".git"
    if dot_git.is_dir():
        git_dir = dot_git.resolve()
    elif dot_git.exists():
        git_dir = _linked(dot_git, field)
    else:
        git_dir = path
    common = git_dir
    if (git_dir / "commondir").exists():
        common = (git_dir / _read(git_dir / "commondir").strip()).resolve(strict=True)
    if not _is_git_dir(common):
        raise ValidationFailed(field, _not_git(path))
    head = _read(git_dir / "HEAD").strip()
    told = head if common != git_dir or not head.startswith("ref:") else None
    return LocalRepository(str(common), told, tuple(_alternates(common / "objects")))


def _linked(dot_git: Path, field: str) -> Path:
    text = _read(dot_git)
    if not text.startswith("gitdir:"):
        raise ValidationFailed(field, f"Not a git repository: {dot_git} is no folder and names none")
    try:
        return (dot_git.parent / text.removeprefix("gitdir:").strip()).resolve(strict=True)
    except FileNotFoundError:
        raise ValidationFailed(field, f"Not a git repository: {dot_git} points to a folder that is gone") from None


def _is_git_dir(path: Path) -> bool:
    return (path / "HEAD").is_file() and (path / "objects").is_dir() and (path / "refs").is_dir()


def _not_git(path: Path) -> str:
    for parent in path.parents:
        if (parent / ".git").exists():
            return f"Not the top of a git repository: {path}; did you mean {parent}?"
    return f"Not a git repository: {path}"


def _alternates(objects: Path) -> list[str]:
    """Every folder of borrowed objects, and those that they borrow from; ones that are gone are left out."""
    found: list[str] = []
    waiting = [objects]
    while waiting and len(found) < ALTERNATES_MAX:
        base = waiting.pop()
        listing = base / "info" / "alternates"
        if not listing.exists():
            continue
        for line in _read(listing).splitlines():
            if not line or line.startswith("#"):
                continue
            folder = (base / line).resolve()
            if folder.is_dir() and folder.name == "objects" and str(folder) not in found:
                found.append(str(folder))
                waiting.append(folder)
    return found


def _read(path: Path) -> str:
    """The text of a small regular file; never waits on a FIFO or a device. Raises `OSError` for what is no text."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path} is no regular file")
        content = os.read(descriptor, SMALL_FILE_BYTES)
    finally:
        os.close(descriptor)
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise OSError(f"{path} is not UTF-8") from None
    if "\0" in text:
        raise OSError(f"{path} holds a NUL")
    return text
