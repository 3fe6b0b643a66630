"""The folders of the workspaces: who owns them, how they are made, filled and removed."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import msgspec

from kandev_host import PlaceUse, errors
from kandev_places.mounted import Mounted, Volume
from kandev_places.removal import remove_tree
from kandev_places.watch import Quota
from kandev_sandbox import SandboxError, Uids, volumes
from kandev_sandbox.disk import Space, deleted, measure
from kandev_sandbox.errors import VolumeFailed
from kandev_sandbox.namespaces import within
from kandev_sandbox.processes import tree

logger = logging.getLogger(__name__)
Disk = Literal["auto", "volume", "watch", "none"]
IMAGE, POINT = "volume.img", "volume"
# Above its limit a place is counted so much further, so that it shows whether it becomes less.
MORE_INODES = 1 << 20
NO_QUOTA = Quota(1 << 62, 1 << 62)
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Place(msgspec.Struct, frozen=True):
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

    @property
    def snapshots(self) -> Path:
        """No part of the place: only jails made for snapshots see it, never those of agents and shells."""
        return self.root / "snapshots"

    @property
    def volume(self) -> Volume | None:
        """The file system that holds those three, if the place was made with one."""
        image = self.root / IMAGE
        if self.uid is None or not image.exists():
            return None
        shown = {folder.name: folder for folder in (self.workspace, self.home, self.tmp)}
        return Volume(image, self.root / POINT, shown, self.uid)


class Places:
    """All places below one folder that only the host may enter. Every method blocks."""

    def __init__(self, folder: Path, uids: Uids | None, quota: Quota = NO_QUOTA, disk: Disk = "watch") -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder
        self._uids = uids
        self._quota = quota
        self._disk = disk
        self._mounted = Mounted()

    def prepare(self, workspace_id: str) -> Place:
        """Make the folders that are not there yet; those of a new place in a volume where that is to be.

        Raises `SandboxError` when a volume is asked for and cannot be had.
        """
        root = self._root(workspace_id)
        place = Place(root, self._uids.of(root) if self._uids else None)
        root.mkdir(mode=0o700, exist_ok=True)
        # One that was cut off while it was made has neither.
        if not place.workspace.exists() and place.volume is None:
            self._make_volume(place)
        for folder in (place.workspace, place.home, place.tmp, place.snapshots):
            folder.mkdir(mode=0o700, exist_ok=True)
            if place.uid is not None and folder.lstat().st_uid != place.uid:
                os.chown(folder, place.uid, place.uid, follow_symlinks=False)
        return place

    def _make_volume(self, place: Place) -> None:
        """Where there are to be volumes. With "auto" the first one shows whether there can be."""
        if self._disk not in ("auto", "volume") or (self._uids is None and self._disk == "auto"):
            return
        if self._uids is None:
            raise VolumeFailed("Only root can mount volumes.", 'set disk = "auto" for this runtime')
        (place.root / POINT).mkdir(mode=0o700, exist_ok=True)
        try:
            volumes.create(place.root / IMAGE, self._quota.bytes, self._quota.inodes)
            if self._disk == "auto":
                volumes.check(place.root / IMAGE, place.root / POINT)
        except SandboxError as error:
            (place.root / IMAGE).unlink(missing_ok=True)
            (place.root / POINT).rmdir()
            if self._disk == "volume":
                raise
            logger.info("workspaces have no volumes: %s", error.reason)
            self._disk = "watch"
        else:
            self._disk = "volume"

    @contextmanager
    def entered(self, place: Place) -> Iterator[int | None]:
        """The mount namespace in which its folders are to be used; None for the host's own. Raises `SandboxError`."""
        if (volume := place.volume) is None:
            yield None
            return
        with self._mounted.entered(volume) as namespace:
            yield namespace

    def close(self) -> None:
        """Unmount what is idle."""
        self._mounted.close()

    def get(self, workspace_id: str) -> Place:
        """Raises `NotFound` when it was never prepared."""
        root = self._root(workspace_id)
        if not root.is_dir():
            raise errors.NotFound("workspace", workspace_id)
        return Place(root, self._uids.of(root) if self._uids else None)

    def open_workspace(self, workspace_id: str) -> int:
        """A descriptor of its workspace folder, for reading below it; the caller closes it. Raises `NotFound`."""
        place = self.get(workspace_id)
        return self.open_folder(place, place.workspace)

    def open_folder(self, place: Place, folder: Path) -> int:
        """One of a place's folders: its name is the host's own, what is in it is not. Raises `OSError`."""
        with self.entered(place) as namespace:
            return within(namespace, os.open, folder, _DIRECTORY)

    def measure(self, workspace_id: str, pids: Sequence[int] = ()) -> Space:
        """What its folders take, with deleted files that the trees of these processes hold. Raises as `get`."""
        place = self.get(workspace_id)
        if place.volume is not None:
            found, _ = self._counted(place)
            return found
        with ExitStack() as stack:
            # O_PATH: what runs there may have closed them.
            roots = [os.open(folder, _DIRECTORY | os.O_PATH) for folder in (place.workspace, place.home, place.tmp)]
            for root in roots:
                stack.callback(os.close, root)
            # Whoever makes folders faster than they are counted must not be counted for ever.
            most = None if self._disk == "none" else self._quota.inodes + max(self._quota.inodes, MORE_INODES)
            counted = measure(roots, most)
            held = deleted((member for pid in pids for member in tree(pid)), os.fstat(roots[0]).st_dev)
        return replace(counted, bytes=counted.bytes + held.bytes, inodes=counted.inodes + held.inodes)

    def use(self, workspace_id: str) -> PlaceUse:
        """As `measure`, with the limits."""
        place = self.get(workspace_id)
        if place.volume is not None:
            found, bound = self._counted(place)
        else:
            found, bound = self.measure(workspace_id), self._quota
        return PlaceUse(
            bytes=found.bytes,
            inodes=found.inodes,
            bytes_limit=bound.bytes if self._disk != "none" else None,
            inodes_limit=bound.inodes if self._disk != "none" else None,
            enforced=place.volume is not None,
        )

    def _counted(self, place: Place) -> tuple[Space, Quota]:
        """What the volume's own file system says: taken, and all."""
        with self.entered(place) as namespace:
            told = within(namespace, os.statvfs, place.workspace)
        taken = Space((told.f_blocks - told.f_bfree) * told.f_frsize, told.f_files - told.f_ffree)
        return taken, Quota(told.f_blocks * told.f_frsize, told.f_files)

    def remove(self, workspace_id: str) -> None:
        """Delete the place, whatever the modes of what is in it; never through a link. Nothing if there is none."""
        root = self._root(workspace_id)
        if (image := root / IMAGE).exists():
            self._mounted.forget(image)
            image.unlink()
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
        folder = self.open_folder(place, place.home)
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
