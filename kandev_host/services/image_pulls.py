"""What runtimes tell of the images that they pull, to whoever follows what waits for them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType

import anyio
import anyio.abc

from kandev_host.events import event
from kandev_host.interfaces import Pull, Runtime
from kandev_host.journal import Journal
from kandev_host.protocol.notifications import ImageNotice


class ImagePulls:
    """Use as an async context manager, before anything is started. Nothing of it is kept."""

    def __init__(self, journal: Journal, runtimes: Mapping[str, Runtime]) -> None:
        self._journal = journal
        self._runtimes = runtimes
        self._group: anyio.abc.TaskGroup

    async def __aenter__(self) -> ImagePulls:
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        for name, runtime in self._runtimes.items():
            # A runtime that makes its places from images: `Pulling`.
            pulls: Callable[[], AsyncIterator[Pull]] | None = getattr(runtime, "pulls", None)
            if pulls is not None:
                self._group.start_soon(self._read, pulls, name=f"image pulls of {name}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._group.cancel_scope.cancel()
        await self._group.__aexit__(None, None, None)

    async def _read(self, pulls: Callable[[], AsyncIterator[Pull]]) -> None:
        async for pull in pulls():
            ids = {name: pull.labels.get(name) for name in ("task_id", "agent_id", "shell_id")}
            notice = ImageNotice(
                image=pull.image,
                state=pull.state,
                layers_done=pull.layers_done,
                layers_total=pull.layers_total,
                bytes_done=pull.bytes_done,
                bytes_total=pull.bytes_total,
                message=pull.message,
                **ids,
            )
            self._journal.publish_transient(event("image.pulling", notice, **ids))
