"""The image of a shell's place, had before there is anything of the shell: nothing waits behind a long pull."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager

import anyio

from kandev_host.errors import Unavailable
from kandev_host.interfaces import Runtime
from kandev_host.services.shells.audience import PREFIX, Audience, Audiences

# Of a runtime that makes its places from images: `Pulling`.
Fetch = Callable[[str | None, Mapping[str, str]], Awaitable[None]]
# Within it, a socket follows a topic.
Following = Callable[[str], AbstractContextManager[object]]


class ShellImages:
    """`audiences` is told who follows the shells whose images are on their way."""

    def __init__(self, audiences: Audiences) -> None:
        self._audiences = audiences
        self._waiting: set[anyio.CancelScope] = set()
        self._closed = False

    def close(self) -> None:
        """Nobody waits for one any more, from now on."""
        self._closed = True
        for scope in self._waiting:
            scope.cancel()

    async def fetch(
        self, runtime: Runtime, shell_id: str, task_id: str | None, following: Following | None, *, attached: bool
    ) -> None:
        """The runtime's own image is there, where it has one. How long a pull may take, the runtime says.

        Whoever opens the shell follows it meanwhile, and hears of the pull; an `attached` one is not waited for when
        they have gone. Raises `Unavailable`.
        """
        fetch: Fetch | None = getattr(runtime, "fetch", None)
        if fetch is None:
            return
        labels = {"shell_id": shell_id} | ({} if task_id is None else {"task_id": task_id})
        with anyio.CancelScope() as scope:
            self._waiting.add(scope)
            try:
                if self._closed:
                    scope.cancel()
                if following is None:
                    await fetch(None, labels)
                else:
                    await self._followed(fetch, labels, following, scope if attached else None)
            finally:
                self._waiting.discard(scope)
        if scope.cancelled_caught:
            raise Unavailable("The host is shutting down" if self._closed else "Nobody waits for the shell any more")

    async def _followed(
        self, fetch: Fetch, labels: Mapping[str, str], following: Following, scope: anyio.CancelScope | None
    ) -> None:
        def changed() -> None:
            if scope is not None and not audience:
                scope.cancel()

        shell_id = labels["shell_id"]
        audience = Audience(changed)
        self._audiences.add(shell_id, audience)
        with following(PREFIX + shell_id):
            try:
                changed()  # the socket may be gone already
                await fetch(None, labels)
            finally:
                self._audiences.discard(shell_id)
