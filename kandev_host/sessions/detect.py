"""Dialect `auto`: ACP is tried; an agent that writes lines of the older shape instead of an answer speaks `lines`.

Its process starts at once. A prompt that waits for it by then is in its environment, and what it says before that turn
begins is kept for it.
"""

from __future__ import annotations

from collections import deque
from contextlib import AbstractAsyncContextManager
from typing import Literal

import anyio

from kandev_host.errors import AgentError, KandevError
from kandev_host.interfaces import Process, ProcessSpec, Runtime
from kandev_host.models import Session, Turn
from kandev_host.protocol.jsonrpc import RpcError
from kandev_host.sessions import legacy
from kandev_host.sessions.intake import EARLY_BYTES
from kandev_host.sessions.lines import LineSession, prompt_text, with_prompt
from kandev_host.sessions.peer import Peer
from kandev_host.sessions.session import LiveSession
from kandev_host.sessions.stage import Stage
from kandev_host.sessions.turns import TurnOutcome, Watch

CHANGED = "The agent was started with another prompt, which was changed or taken back meanwhile"


class AutoSession(LineSession):
    """Either kind of session, as soon as it is known which."""

    one_turn = False

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._speaks: Literal["acp", "lines"] | None = None
        self._first: Turn | None = None
        self._older = anyio.Event()
        self._holding = True
        self._kept: deque[bytes] = deque()
        self._kept_bytes = 0

    def process(self, runtime: Runtime, spec: ProcessSpec, first: Turn | None) -> AbstractAsyncContextManager[Process]:
        self._first = first
        if first is not None:
            spec = with_prompt(spec, prompt_text(first.prompt), first)
        return LiveSession.process(self, runtime, spec, first)

    async def open(self, peer: Peer, cwd: str) -> Session:
        row: Session | None = None
        failure: KandevError | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch_for_lines, peer, tasks.cancel_scope)
            try:
                row = await LiveSession.open(self, peer, cwd)
            except KandevError as error:
                failure = error
            tasks.cancel_scope.cancel()
        if row is not None:
            self._speaks = "acp"
            await self._play()
            return row
        if self._speaks is None and failure is not None and not self._spoke_lines(peer, failure):
            raise failure
        self._speaks, self.one_turn = "lines", True
        row = await LineSession.open(self, peer, cwd)
        self.unplayed = self._first is not None
        if self._first is None:
            await self._play()
        return row

    async def _watch_for_lines(self, peer: Peer, opening: anyio.CancelScope) -> None:
        """Ends the wait for an answer some time after the first line of the older shape."""
        await self._older.wait()
        with anyio.move_on_after(self._stage.settings.dialect_timeout_s):
            await peer.ended.wait()
            return  # then the opening has failed by itself
        if self._state.initialized is None:
            self._speaks = "lines"
            opening.cancel()

    def _spoke_lines(self, peer: Peer, failure: KandevError) -> bool:
        """Has it written such lines, and gone without any answer?"""
        unanswered = self._state.initialized is None and not isinstance(failure.__cause__, RpcError)
        return unanswered and self._older.is_set() and peer.ended.is_set()

    async def _converse(self, peer: Peer, row: Session, turn: Turn, watch: Watch) -> TurnOutcome:
        spoken = LiveSession if self._speaks == "acp" else LineSession
        return await spoken._converse(self, peer, row, turn, watch)

    async def _begin(self, turn: Turn, text: str) -> None:
        self.unplayed = False
        if self._first is not None and (self._first.id, self._first.prompt) != (turn.id, turn.prompt):
            raise AgentError(CHANGED)
        await self._play()

    async def _ask_to_cancel(self, peer: Peer, row: Session) -> None:
        spoken = LiveSession if self._speaks == "acp" else LineSession
        await spoken._ask_to_cancel(self, peer, row)

    # --- what it says -----------------------------------------------------------------------------------------------

    async def on_stray(self, line: bytes) -> bool:
        if not self._holding:
            return await self._take(line)
        if not self._older.is_set():
            if legacy.read(line) is None:
                return False  # a banner, say: many agents of ACP begin with one
            self._older.set()
        self._kept_bytes += len(line)
        if self._kept_bytes > EARLY_BYTES:
            self._stage.logs.note("warning", "a line from before the turn began was dropped: too many")
        else:
            self._kept.append(line)
        return True

    async def _take(self, line: bytes) -> bool:
        spoken = LiveSession if self._speaks == "acp" else LineSession
        return await spoken.on_stray(self, line)

    async def _play(self) -> None:
        """What was kept, in order, before anything that comes meanwhile."""
        while self._kept:
            line = self._kept.popleft()
            if not await self._take(line):
                await self.on_fault("not a JSON-RPC message", line)
        self._holding = False
        await self.on_rest()
