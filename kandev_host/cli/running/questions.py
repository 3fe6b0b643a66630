"""What an agent asks the person at this terminal: one question at a time, until it is answered here or elsewhere."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio

from kandev_host.cli.running.ask import Asker
from kandev_host.cli.running.view import View
from kandev_host.client import Client, ClientError, ReconnectingClient

Answer = Callable[[], Awaitable[dict[str, Any]]]


class Questions:
    """While a question stands at the terminal, what else is told waits for its answer.

    `terminal` is held by whoever reads from it.
    """

    def __init__(self, client: Client | ReconnectingClient, view: View, asker: Asker) -> None:
        self._client = client
        self._view = view
        self._asker = asker
        self._held: list[Mapping[str, Any]] | None = None
        self._asking: dict[str, anyio.CancelScope] = {}
        self.terminal = anyio.Lock()

    def show(self, message: Mapping[str, Any]) -> None:
        """Tell it now, or after the answer to what is being asked."""
        if self._held is None:
            self._view.notification(message)
        else:
            self._held.append(message)

    def asks(self, identity: str) -> bool:
        return identity in self._asking

    def settled(self, request: Mapping[str, Any]) -> None:
        """It is answered, or nobody waits for the answer any more."""
        scope = self._asking.get(str(request.get("id")))
        if scope is not None:
            scope.cancel()

    def drop_all(self) -> None:
        for scope in tuple(self._asking.values()):
            scope.cancel()

    async def respond(self, kind: str, identity: str, answer: Answer) -> None:
        """Send the answer to a `permission` or an `elicitation`; ask a person again when theirs cannot be had."""
        with anyio.CancelScope() as scope:
            self._asking[identity] = scope
            try:
                while True:
                    try:
                        chosen = await answer()
                        await self._client.call(f"{kind}.respond", {f"{kind}_id": identity, **chosen})
                        return
                    except ClientError as error:
                        self._view.note(f"The answer was not taken: {error.message}")
                        if error.code != "VALIDATION_ERROR" or not self._asker.interactive:
                            return
            finally:
                self._asking.pop(identity, None)

    async def at_the_terminal(self, question: Answer) -> dict[str, Any]:
        """Ask it once the terminal is free."""
        async with self.terminal:
            self._held = []
            try:
                return await question()
            finally:
                held, self._held = self._held, None
                for message in held:
                    self._view.notification(message)
