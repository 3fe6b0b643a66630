"""Dialect `seed-rpc`: ACP as the Kandev architecture draws it, beside the official one.

session/prompt has `content` in place of `prompt`; a session/update may hold `content` and `stopReason` in place of an
`update`. A turn ends at the first of: an answer with a stop reason, an update with one, an error, the agent's end. An
answer without one only acknowledges.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
import msgspec
from msgspec import Raw

from kandev_host.errors import KandevError
from kandev_host.models import Session, Turn
from kandev_host.protocol import acp
from kandev_host.protocol.jsonrpc import Message, RpcError
from kandev_host.sessions.answers import read
from kandev_host.sessions.lines import chunk_message
from kandev_host.sessions.peer import Answer, Peer
from kandev_host.sessions.session import LiveSession
from kandev_host.sessions.stage import Stage
from kandev_host.sessions.turns import TurnOutcome, Watch

# An agent of this shape may never have heard of initialize.
ASSUMED = {"initialize": Raw(msgspec.json.encode({"protocolVersion": acp.VERSION}))}


class _Inner(acp.Camel):
    session_update: str = ""
    stop_reason: str | None = None


class _Params(acp.Camel):
    """Params of session/update in either shape. `state_update` with a stop reason is the draft of version 2."""

    session_id: str
    update: _Inner | None = None
    content: list[acp.Json] | None = None
    stop_reason: str | None = None

    @property
    def end(self) -> str | None:
        """The stop reason of the turn that this ends."""
        if self.update is not None and self.update.session_update == "state_update":
            return self.update.stop_reason or self.stop_reason
        return self.stop_reason


class SeedSession(LiveSession):
    """`_owed`: the last turn ended with its answer, so that an update that ends it may still come."""

    adoptable = False

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._over = anyio.Event()
        self._stop_reason: str | None = None
        self._failure: Exception | None = None
        self._seen = False
        self._owed = False

    async def open(self, peer: Peer, cwd: str) -> Session:
        peer.assumed = ASSUMED
        return await super().open(peer, cwd)

    async def _converse(self, peer: Peer, row: Session, turn: Turn, watch: Watch) -> TurnOutcome:
        self._over, self._stop_reason, self._failure, self._seen = anyio.Event(), None, None, False
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._ask, peer, {"sessionId": row.acp_session_id, "content": self._blocks(turn)})
            tasks.start_soon(self._watch_for_end, peer)
            await self._over.wait()
            tasks.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure
        return watch.ended(self._stop_reason)

    async def _ask(self, peer: Peer, params: acp.Json) -> None:
        over = self._over
        try:
            await peer.call("session/prompt", params, None, lambda answer: self._on_answer(answer, over))
        except (RpcError, KandevError) as error:
            self._end(over, None, error)

    async def _watch_for_end(self, peer: Peer) -> None:
        over = self._over
        await peer.ended.wait()
        self._end(over, None, peer.gone_before("the end of the turn"))

    def _on_answer(self, answer: Answer, over: anyio.Event) -> None:
        """Inline: what comes behind an answer that ends the turn is not the turn's."""
        if over.is_set() or isinstance(answer, Exception):
            self._end(over, None, answer if isinstance(answer, Exception) else None)
            return
        self._seen = True
        try:
            result = read(answer, acp.PromptResult | None, "session/prompt")  # type: ignore[arg-type]
        except KandevError as error:
            self._end(over, None, error)
            return
        self._result = result
        if result is not None and result.stop_reason is not None:
            self._owed = True
            self._end(over, result.stop_reason)

    def _end(self, over: anyio.Event, stop_reason: str | None, failure: Exception | None = None) -> None:
        """The first end counts, and only for the turn that it is of."""
        if over.is_set():
            return
        self._state.watch = None
        self._stop_reason, self._failure = stop_reason, failure
        over.set()

    # --- what it says -----------------------------------------------------------------------------------------------

    async def on_notifications(self, batch: Sequence[Message]) -> int:
        """Updates of the older shape become official ones, one for each block, in order."""
        official: list[Message] = []
        unusable = 0
        for message in batch:
            params = _read(message)
            if params is None:
                official.append(message)
                continue
            if params.update is not None:
                official.append(message)
            else:
                official += [chunk_message(params.session_id, block) for block in params.content or []]
            mine = params.session_id == self._state.acp_session_id
            if mine and params.end is not None:
                unusable += await self._intake.on_notifications(official)
                official = []
                self._take_end(params.end, told=bool(params.content))
            elif mine:
                self._seen = True
        return unusable + (await self._intake.on_notifications(official) if official else 0)

    def _take_end(self, stop_reason: str, *, told: bool) -> None:
        if self._state.watch is None:
            self._owed = False  # late, and the turn it is of has ended
        elif self._owed and not (self._seen or told):
            self._owed = False  # of the turn before, which ended with its answer; this one has not shown anything yet
        else:
            self._owed = False
            self._end(self._over, stop_reason)


def _read(message: Message) -> Any:
    """The params of an update of either shape; None for anything else, which is left as it is."""
    if message.method != "session/update":
        return None
    try:
        return msgspec.json.decode(message.params, type=_Params)
    except (msgspec.DecodeError, RecursionError):
        return None
