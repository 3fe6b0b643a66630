"""Asking for what waits for the pull of an image, if need be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import anyio

from kandev_host.client import ClientError
from kandev_host.interfaces import Pull

if TYPE_CHECKING:
    from kandev_host.cli.pulls import Bar
    from kandev_host.client import Client

# For the answer, or for the next word of the pull: the host repeats it before.
QUIET_S = 60.0


async def call_through(client: Client, action: str, payload: Mapping[str, Any], bar: Bar) -> Any:
    """The response to what waits for the pull of an image, if need be: for as long as the host tells of that.

    For a client that follows nothing yet. Raises `ClientError`.
    """
    with anyio.CancelScope(deadline=anyio.current_time() + QUIET_S) as waiting:
        try:
            return await _shown_meanwhile(client, action, payload, bar, waiting)
        finally:
            bar.end()
    raise ClientError("TIMEOUT", f"No answer to {action} within {QUIET_S:g} s")


async def _shown_meanwhile(
    client: Client, action: str, payload: Mapping[str, Any], bar: Bar, waiting: anyio.CancelScope
) -> Any:
    reply: Any = None
    refused: ClientError | None = None

    async def ask() -> None:
        nonlocal reply, refused
        try:
            reply = await client.call(action, payload, float("inf"))
        except ClientError as error:
            refused = error
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        try:
            async for notification in client.leading("image.pulling"):
                waiting.deadline = anyio.current_time() + QUIET_S
                bar.tell(_pull(notification.payload))
        except ClientError:
            pass  # the call says it too
    if refused is not None:
        raise refused
    return reply


def _pull(payload: Mapping[str, Any]) -> Pull:
    return Pull(**{name: payload[name] for name in Pull.__struct_fields__ if name in payload})
