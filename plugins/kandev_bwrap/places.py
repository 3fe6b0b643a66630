"""The folders of the workspaces: who owns them, how they are made, filled and removed."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from kandev_bwrap.removal import remove_tree
from kandev_host import errors
from kandev_sandbox import Uids

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Place:
    """The folders of one workspace, and the uid that owns them (None: the host's own user)."""

    root: Path
    uid: int | None

    @property
    def workspace(self) -> Path:
        return self.root / "workspace"

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def tmp(self) -> Path:
        return self.root / "tmp"


class Places:
    """All places below one folder that only the host may enter. Every method blocks."""

    def __init__(self, folder: Path, uids: Uids | None) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder
        self._uids = uids

    def prepare(self, workspace_id: str) -> Place:
        """Make the folders that are not there yet."""
        root = self._root(workspace_id)
        place = Place(root, self._uids.of(root) if self._uids else None)
        root.mkdir(mode=0o700, exist_ok=True)
        for folder in (place.workspace, place.home, place.tmp):
            folder.mkdir(mode=0o700, exist_ok=True)
            if place.uid is not None and folder.lstat().st_uid != place.uid:
                os.chown(folder, place.uid, place.uid, follow_symlinks=False)
        return place

    def get(self, workspace_id: str) -> Place:
        """Raises `NotFound` when it was never prepared."""
        root = self._root(workspace_id)
        if not root.is_dir():
            raise errors.NotFound("workspace", workspace_id)
        return Place(root, self._uids.of(root) if self._uids else None)

    def remove(self, workspace_id: str) -> None:
        """Delete the place, whatever the modes of what is in it; never through a link. Nothing if there is none."""
        root = self._root(workspace_id)
        if root.is_dir():
            remove_tree(root)
        if self._uids is not None:
            self._uids.release(root)

    def write_home(self, workspace_id: str, path: str, content: bytes) -> None:
        """Write a new file below the home, as its owner's. An existing one stays. Follows no link on the way."""
        place = self.get(workspace_id)
        parts = path.split("/")
        if not all(part not in {"", ".", ".."} and "\0" not in part for part in parts):
            raise errors.ValidationFailed("path", f"{path!r} is no path below the home")
        folder = os.open(place.home, _DIRECTORY)
        try:
            for part in parts[:-1]:
                inner = _open_folder(folder, part, place.uid)
                os.close(folder)
                folder = inner
            _write_new(folder, parts[-1], content, place.uid)
        except (NotADirectoryError, OSError) as error:
            raise errors.ValidationFailed("path", f"{path!r} cannot be written: {error.strerror}") from error
        finally:
            os.close(folder)

    def _root(self, workspace_id: str) -> Path:
        if not _ID.fullmatch(workspace_id):
            raise errors.ValidationFailed("workspace_id", f"{workspace_id!r} is no workspace id")
        return self.folder / workspace_id


def _open_folder(parent: int, name: str, uid: int | None) -> int:
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        return os.open(name, _DIRECTORY, dir_fd=parent)
    made = os.open(name, _DIRECTORY, dir_fd=parent)
    if uid is not None:
        os.fchown(made, uid, uid)
    return made


def _write_new(folder: int, name: str, content: bytes, uid: int | None) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, 0o600, dir_fd=folder)
    except FileExistsError:
        return
    with os.fdopen(descriptor, "wb") as file:
        if uid is not None:
            os.fchown(descriptor, uid, uid)
        file.write(content)
