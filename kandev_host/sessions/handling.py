"""Who serves a peer: what the agent sends, as it is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from msgspec import Raw

from kandev_host.protocol.jsonrpc import Id, Message
from kandev_host.sessions.wire import OpenRequest


class Handler(Protocol):
    """Who serves a peer. `on_notifications` answers how many of the batch were unusable."""

    async def on_notifications(self, batch: Sequence[Message]) -> int: ...

    async def on_request(self, method: str, params: Raw) -> Any:
        """The result; raises `RpcError`."""

    async def on_stray(self, line: bytes) -> bool:
        """A line that is no message of JSON-RPC; True if it is of use all the same. Else it is a fault."""
        ...

    async def on_rest(self) -> None:
        """After such lines: what was kept of them is to be told now."""

    async def on_fault(self, reason: str, line: bytes) -> None:
        """A line that was no message (its first bytes)."""


class SurvivingHandler(Handler, Protocol):
    """Who serves a peer whose process may outlive its host; `wire` is told where what is being handled stands."""

    async def tell_now(self) -> None:
        """Tell what is held back of what was said: something else follows."""

    def recall(self, batch: Sequence[Message]) -> None:
        """Notifications whose effects the host that died has recorded: know what it knew, and tell nothing."""

    async def recalled(self) -> None:
        """All of them were recalled: what follows is new."""

    async def on_noted_request(self, id: Id, method: str, params: Raw) -> Any:
        """As `on_request`, of one that `wire` has noted."""

    async def on_left_request(self, left: OpenRequest, method: str | None, params: Raw) -> Any:
        """The result of a request that the host that died has not answered; its `method` only if it was read again.

        Raises `RpcError`.
        """
