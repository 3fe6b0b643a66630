"""The volumes that are mounted now: one mount for all that runs in a place, and the last idle ones kept."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from kandev_sandbox import volumes
from kandev_sandbox.errors import VolumeFailed

# Mounting and unmounting take some 100 ms, and a turn has many short jails; each idle one keeps a loop device.
IDLE = 8
_BUSY_S = 5.0


class Volume(msgspec.Struct, frozen=True):
    """An image, where it is mounted, and what of it is shown where, to whom."""

    image: Path
    point: Path
    shown: dict[str, Path]
    owner: int


class _Mount(msgspec.Struct):
    lock: threading.Lock = msgspec.field(default_factory=threading.Lock)
    namespace: int = -1
    users: int = 0

    def close(self) -> None:
        if self.namespace >= 0:
            os.close(self.namespace)
            self.namespace = -1


class Mounted:
    """Usable from any thread; every method blocks."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._mounts: dict[Path, _Mount] = {}

    @contextmanager
    def entered(self, volume: Volume) -> Iterator[int]:
        """The descriptor of a mount namespace in which it is mounted. Raises `VolumeFailed`."""
        with self._guard:
            # To the end of the order: the first idle ones are unmounted first.
            mount = self._mounts.pop(volume.image, _Mount())
            self._mounts[volume.image] = mount
            mount.users += 1
        try:
            with mount.lock:
                if mount.namespace < 0:
                    mount.namespace = volumes.mount(volume.image, volume.point, volume.shown, volume.owner)
            yield mount.namespace
        finally:
            for old in self._left(mount):
                old.close()

    def _left(self, mount: _Mount) -> list[_Mount]:
        """The idle ones that are too many now."""
        with self._guard:
            mount.users -= 1
            idle = [image for image, other in self._mounts.items() if other.users == 0]
            return [self._mounts.pop(image) for image in idle[: max(0, len(idle) - IDLE)]]

    def forget(self, image: Path) -> None:
        """Unmount it and wait until nothing holds it. Raises `VolumeFailed` when it stays in use."""
        deadline = time.monotonic() + _BUSY_S
        while not self._forgotten(image):
            if time.monotonic() > deadline:
                raise VolumeFailed(f"The volume {image} is in use.")
            time.sleep(0.01)
        os.close(volumes.locked(image))

    def _forgotten(self, image: Path) -> bool:
        with self._guard:
            mount = self._mounts.get(image)
            if mount is None:
                return True
            if mount.users:
                return False
            del self._mounts[image]
        mount.close()
        return True

    def close(self) -> None:
        """Unmount all that is idle; call it when nothing runs any more."""
        with self._guard:
            mounts, self._mounts = list(self._mounts.values()), {}
        for mount in mounts:
            mount.close()
