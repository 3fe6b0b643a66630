"""A peer whose messages are counted; used where somebody measures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from anyio.abc import TaskGroup
from msgspec import UNSET

from kandev_host.interfaces import Process
from kandev_host.protocol import jsonrpc
from kandev_host.protocol.jsonrpc import Message
from kandev_host.sessions.handling import Handler, SurvivingHandler
from kandev_host.sessions.peer import Peer
from kandev_host.sessions.surviving import SurvivingPeer

# direction, kind, and how many by method
Tally = Callable[[str, str, Mapping[str, int]], None]
ANSWER = {"none": 1}
# ACP, and what the host itself says.
METHODS = frozenset(
    {
        "none",
        "$/cancel_request",
        "authenticate",
        "elicitation/complete",
        "elicitation/create",
        "fs/read_text_file",
        "fs/write_text_file",
        "initialize",
        "logout",
        "session/cancel",
        "session/close",
        "session/delete",
        "session/list",
        "session/load",
        "session/new",
        "session/prompt",
        "session/request_permission",
        "session/resume",
        "session/set_config_option",
        "session/set_mode",
        "session/set_model",
        "session/update",
        "terminal/create",
        "terminal/kill",
        "terminal/output",
        "terminal/release",
        "terminal/wait_for_exit",
    }
)


class CountedPeer(Peer):
    """Tells `tally` of each message, as it comes in and before it goes out."""

    def __init__(self, tally: Tally, process: Process, handler: Handler, **limits: Any) -> None:
        super().__init__(process, handler, **limits)
        self._tally = tally

    async def _flush(self, batch: list[Message]) -> None:
        self._tally("in", "notification", Counter([str(message.method) for message in batch]))
        await super()._flush(batch)

    async def _take_one(self, message: Message, line: bytes, tasks: TaskGroup) -> None:
        self._tell("in", message)
        await super()._take_one(message, line, tasks)

    async def _send(self, line: bytes) -> None:
        with suppress(jsonrpc.BadLine):  # what we pass on may be too deep for a look
            self._tell("out", jsonrpc.decode(line))
        await super()._send(line)

    def _tell(self, direction: str, message: Message) -> None:
        if message.method is UNSET:
            self._tally(direction, "answer" if message.error is UNSET else "error", ANSWER)
        else:
            kind = "notification" if message.id is UNSET else "request"
            self._tally(direction, kind, {str(message.method): 1})


class CountedSurvivingPeer(CountedPeer, SurvivingPeer):
    """The same, of one whose process may outlive its host. What is read again was counted by the host that died."""


def new_surviving_peer(tally: Tally | None, process: Process, handler: SurvivingHandler, **rest: Any) -> SurvivingPeer:
    """As `new_peer`, with the rest of what a `SurvivingPeer` takes."""
    if tally is None:
        return SurvivingPeer(process, handler, **rest)
    return CountedSurvivingPeer(tally, process, handler, **rest)


def new_peer(
    tally: Tally | None, process: Process, handler: Handler, *, line_limit_bytes: int, fault_limit: int
) -> Peer:
    """A peer, counted if there is a tally."""
    limits = {"line_limit_bytes": line_limit_bytes, "fault_limit": fault_limit}
    return Peer(process, handler, **limits) if tally is None else CountedPeer(tally, process, handler, **limits)
