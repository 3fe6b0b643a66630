"""What the mounts of a container show, held from the check of its request until it has started.

The engine is told paths and follows them later, as root. So what a path leads to is opened before it is judged; and
before its command may run, the container must see that very file at the mount's target.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from kandev_docker import inside
from kandev_host import Mount, errors
from kandev_sandbox.processes import Identity


class Sources:
    """By path. Every method but `close` blocks."""

    def __init__(self) -> None:
        self._held: dict[str, int] = {}

    def hold(self, mounts: Iterable[Mount]) -> None:
        """What is not there is not held, and nothing may be there later. Raises `OSError`."""
        for mount in mounts:
            if mount.source not in self._held:
                try:
                    self._held[mount.source] = os.open(mount.source, os.O_PATH | os.O_CLOEXEC)
                except FileNotFoundError:
                    continue

    def close(self) -> None:
        while self._held:
            os.close(self._held.popitem()[1])

    def real(self, path: str) -> str:
        """Where it leads: that of what is held."""
        held = self._held.get(path)
        return os.path.realpath(path) if held is None else os.readlink(f"/proc/self/fd/{held}")

    def identity(self, path: str) -> tuple[int, int] | None:
        """The file, whatever it is called; None if there is none."""
        held = self._held.get(path)
        try:
            found = os.stat(path) if held is None else os.fstat(held)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def open_file(self, path: str) -> int | None:
        """A descriptor to read from, if it is a regular file; the caller closes it. Raises `OSError`."""
        held = self._held.get(path)
        if held is None or not stat.S_ISREG(os.fstat(held).st_mode):
            return None
        return os.open(f"/proc/self/fd/{held}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def check(self, init: Identity | None, mounts: Iterable[Mount]) -> None:
        """Raises `Unavailable` unless the container with this first process sees at each target what is held."""
        for mount in mounts:
            try:
                seen = None if init is None else inside.identity(init.pid, mount.target)
            except OSError as error:
                raise _unseen(mount, error.strerror) from error
            if seen is None:
                raise _unseen(mount, "its processes are not seen from here")
            if mount.source not in self._held or seen != self.identity(mount.source):
                raise errors.Unavailable(
                    f"{mount.source} was replaced while the container was started.",
                    fix="find out who changes it; then try again",
                )


def _unseen(mount: Mount, why: str | None) -> errors.Unavailable:
    return errors.Unavailable(
        f"What the container sees at {mount.target} cannot be looked at ({why}), so {mount.source} is not shown to it.",
        fix="use an engine of this machine, whose containers' processes this host may see, or the runtime bwrap",
    )
