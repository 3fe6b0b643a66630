"""What the kernel counted in a container's cgroup, read at the moment when its first process ends."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import anyio

from kandev_sandbox import hierarchies
from kandev_sandbox.processes import Identity


class MemoryKills:
    """How many of its processes the kernel killed for want of memory. Its cgroup is gone soon after its end, and with
    it the count: then nobody knows.
    """

    def __init__(self) -> None:
        self.count: int | None = None
        self.over = anyio.Event()
        self._path: Path | None = None
        self._descriptor: int | None = None

    def arm(self, init: Identity, container_id: str) -> None:
        """Before its command runs. Blocks for microseconds. Where nothing is seen, `count` stays None."""
        self._path = _path_of(init.pid, container_id)
        with suppress(OSError):  # it has ended
            self._descriptor = os.pidfd_open(init.pid)
        if self._descriptor is not None and not init.alive():
            self.close()

    async def watch(self) -> None:
        """Until it has ended."""
        try:
            if self._descriptor is not None:
                await anyio.wait_readable(self._descriptor)
                self.count = _read(self._path)
        finally:
            self.over.set()
            self.close()

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _path_of(pid: int, container_id: str) -> Path | None:
    """Of no cgroup that it shares with others: a rootless engine may give it none."""
    for found in hierarchies.read(Path(f"/proc/{pid}"), hierarchies.PROC):
        if "memory" in found.controllers and container_id in str(found.own):
            return found.own / ("memory.events" if found.version == 2 else "memory.oom_control")
    return None


def _read(path: Path | None) -> int | None:
    if path is None:
        return None
    try:
        pairs = dict(line.split(" ", 1) for line in path.read_text().splitlines())
        return int(pairs["oom_kill"])
    except (OSError, ValueError, KeyError):
        return None
