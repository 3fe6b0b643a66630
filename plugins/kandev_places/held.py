"""The places of a runtime, for its event loop: held while something runs in them, and looked at aside."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio

from kandev_host import FileContent, FileEntry, PlaceUse, errors
from kandev_places.files import list_files, read_file
from kandev_places.places import Place, Places
from kandev_places.watch import DiskWatch, Quota, Watched
from kandev_sandbox import SandboxError

# Threads that look at hostile folders take as long as those are large: all else goes on in the threads that are left.
LOOKING_THREADS = 4


class HeldPlaces:
    """What `Runtime` says of folders and files, of `Places`. A place in which something runs or starts is not removed.

    Every method raises as that of `Runtime`.
    """

    def __init__(self, places: Places, watch_interval_s: float = 5.0) -> None:
        self._places = places
        self._in_use: Counter[str] = Counter()
        self._removing: Counter[str] = Counter()
        self._reading = anyio.CapacityLimiter(LOOKING_THREADS)
        self._measuring = anyio.CapacityLimiter(LOOKING_THREADS)
        self._disk = DiskWatch(places.measure, watch_interval_s, self._measuring)

    async def prepare(self, workspace_id: str) -> None:
        try:
            await anyio.to_thread.run_sync(self._places.prepare, workspace_id)
        except SandboxError as error:
            raise errors.Unavailable(error.reason, fix=error.fix) from error

    async def remove(self, workspace_id: str) -> None:
        """Raises `Conflict` while a process runs there (its uid must not be given to another place), `Unavailable`."""
        if self._in_use[workspace_id]:
            raise errors.Conflict("Processes still run in this workspace", workspace_id=workspace_id)
        self._removing[workspace_id] += 1
        try:
            await anyio.to_thread.run_sync(self._places.remove, workspace_id)
        except (OSError, SandboxError) as error:
            raise errors.Unavailable(
                f"The workspace cannot be deleted: {error}", fix=f"remove {self._places.folder / workspace_id} by hand"
            ) from error
        finally:
            self._removing -= Counter((workspace_id,))

    @asynccontextmanager
    async def held(self, workspace_id: str) -> AsyncIterator[Place]:
        """The place, which stays until the context is left. Raises `NotFound`, `SandboxError`."""
        # Before the place is looked at: what is removed meanwhile must not give its uid to another one.
        self._in_use[workspace_id] += 1
        try:
            if workspace_id in self._removing:
                raise errors.NotFound("workspace", workspace_id)
            yield await anyio.to_thread.run_sync(self._places.get, workspace_id)
        finally:
            self._in_use -= Counter((workspace_id,))

    @asynccontextmanager
    async def entered(self, place: Place) -> AsyncIterator[int | None]:
        """As `Places.entered`: mounting, and unmounting those that are idle, blocks for some 100 ms."""
        context = self._places.entered(place)
        namespace = await anyio.to_thread.run_sync(context.__enter__)
        try:
            yield namespace
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(context.__exit__, None, None, None)

    def watching(self, workspace_id: str, process: Watched, quota: Quota) -> AbstractAsyncContextManager[None]:
        """As `DiskWatch.watching`."""
        return self._disk.watching(workspace_id, process, quota)

    async def write_home(self, workspace_id: str, path: str, content: bytes) -> None:
        await anyio.to_thread.run_sync(self._places.write_home, workspace_id, path, content)

    async def list_files(
        self, workspace_id: str, path: str, depth: int, limit: int, after: str = ""
    ) -> list[FileEntry]:
        ask = (self._places, workspace_id, path, depth, limit, after)
        return await anyio.to_thread.run_sync(list_files, *ask, limiter=self._reading)

    async def read_file(self, workspace_id: str, path: str, offset: int, limit_bytes: int) -> FileContent:
        ask = (self._places, workspace_id, path, offset, limit_bytes)
        return await anyio.to_thread.run_sync(read_file, *ask, limiter=self._reading)

    async def use(self, workspace_id: str) -> PlaceUse:
        try:
            return await anyio.to_thread.run_sync(self._places.use, workspace_id, limiter=self._measuring)
        except SandboxError as error:
            raise errors.Unavailable(error.reason, fix=error.fix) from error

    def close(self) -> None:
        """Unmount what is idle; nothing runs in the places any more. Blocks."""
        self._places.close()
