"""The peer of a process that outlives its host: what it reads is recorded with how far that goes.

After its host died the next one reads on from there. What was recorded by then is read once more from the beginning of
the turn, without any effect but to know what the dead host knew.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup
from msgspec import UNSET, Raw

from kandev_host.errors import KandevError
from kandev_host.interfaces import Process
from kandev_host.journal import Journal
from kandev_host.protocol import jsonrpc
from kandev_host.protocol.jsonrpc import Id, Message
from kandev_host.sessions.handling import SurvivingHandler
from kandev_host.sessions.peer import Answer, Call, Peer
from kandev_host.sessions.stage import Left
from kandev_host.sessions.wire import Wire

logger = logging.getLogger(__name__)

# Ids that a dead host may have used without recording it.
UNRECORDED_IDS = 1000
NOTHING = Raw(b"null")


class SurvivingPeer(Peer):
    """`recalled` is set once all that a dead host had recorded is known again; at once without one."""

    _handler: SurvivingHandler

    def __init__(
        self,
        process: Process,
        handler: SurvivingHandler,
        *,
        line_limit_bytes: int,
        fault_limit: int,
        journal: Journal,
        wire: Wire,
        left: Left | None = None,
    ) -> None:
        """`left` is what a host has left that died."""
        super().__init__(process, handler, line_limit_bytes=line_limit_bytes, fault_limit=fault_limit)
        self._journal = journal
        self._wire = wire
        state = None if left is None else left.wire
        self._past = 0 if state is None else state.position
        self._left = {} if state is None else {each.id: each for each in state.requests}
        self._again: dict[Id, Message] = {}
        self._withdrawn: list[Raw] = []
        self._counted = jsonrpc.CountedLines(line_limit_bytes, 0 if state is None else state.replay)
        self._lines = self._counted
        if state is not None:
            state.next_id += UNRECORDED_IDS
            self._next_id = state.next_id
        self._late_below = self._next_id
        self.recalled = anyio.Event()

    def expect(self, identifier: int, method: str, settle: Callable[[Answer], None]) -> Call:
        """The answer to a request that the host that died had made."""
        call = self._calls[identifier] = Call(method, anyio.Event(), settle)
        return call

    async def _sent(self, identifier: int) -> None:
        if identifier == self._wire.unsent:
            await self._journal.post(*self._wire.sent())

    def _end(self) -> None:
        super()._end()
        self.recalled.set()

    # --- reading ----------------------------------------------------------------------------------------------------

    async def _read(self, tasks: TaskGroup) -> None:
        if self._counted.offset >= self._past:
            await self._go_on(tasks)
        await super()._read(tasks)

    async def _take(self, lines: list[bytes], tasks: TaskGroup) -> None:
        batch: list[Message] = []
        places: list[tuple[int, int]] = []
        for line, place in zip(lines, self._counted.places, strict=True):
            if place[1] > self._past and not self.recalled.is_set():
                self._recall(batch)
                batch, places = [], []
                await self._go_on(tasks)
            try:
                message = jsonrpc.decode(line)
            except jsonrpc.BadLine as error:
                await self._hand_on(batch, places)
                batch, places = [], []
                await self._take_bad(str(error), line, place[1])
                continue
            if message.method is not UNSET and message.id is UNSET and message.method[:2] != "$/":
                batch.append(message)
                places.append(place)
                continue
            await self._hand_on(batch, places)
            batch, places = [], []
            await self._take_other(message, line, place[1], tasks)
        await self._hand_on(batch, places)
        await self._end_chunk(tasks)

    async def _hand_on(self, batch: list[Message], places: list[tuple[int, int]]) -> None:
        if not self.recalled.is_set():
            self._recall(batch)
        elif batch:
            await self._rest()
            self._wire.batch = [start for start, _ in places], places[-1][1]
            await self._flush(batch)

    async def _take_bad(self, why: str, line: bytes, end: int) -> None:
        if self.recalled.is_set():
            await self._handler.tell_now()
            self._wire.taken = end
            await self._take_stray(why, line)

    async def _end_chunk(self, tasks: TaskGroup) -> None:
        dropped = self._lines.take_dropped()
        if self.recalled.is_set():
            await self._rest()
            for head in dropped:
                await self._handler.tell_now()
                await self._take_dropped(head)
        elif self._counted.offset >= self._past:
            await self._go_on(tasks)

    def _recall(self, batch: list[Message]) -> None:
        if batch:
            self._handler.recall(batch)

    async def _take_other(self, message: Message, line: bytes, end: int, tasks: TaskGroup) -> None:
        if not self.recalled.is_set():
            await self._take_past(message, line)
            return
        await self._rest()
        await self._handler.tell_now()
        self._wire.taken = end
        if message.method is not UNSET and message.id is not UNSET:
            await self._journal.post(*self._wire.asked(message.id))
        await self._take_one(message, line, tasks)

    async def _take_answer(self, message: Message, line: bytes) -> None:
        late = isinstance(message.id, int) and message.id < self._late_below and message.id not in self._calls
        if not late:  # else the host that died had asked, and nobody waits for it any more
            await super()._take_answer(message, line)

    # --- what the host that died had begun --------------------------------------------------------------------------

    async def _take_past(self, message: Message, line: bytes) -> None:
        if message.method is UNSET:
            await self._take_answer(message, line)
        elif message.id is UNSET:
            self._withdrawn.append(message.params)
        elif message.id in self._left:
            self._again[message.id] = message

    async def _go_on(self, tasks: TaskGroup) -> None:
        """Everything recorded is known: from here on it is new, and what was open is open again."""
        await self._handler.recalled()
        for id in tuple(self._left):
            again = self._again.pop(id, None)
            method = None if again is None or again.method is UNSET else again.method
            await self._slots.acquire()
            scope = self._served[id] = anyio.CancelScope()
            params = NOTHING if again is None else again.params
            tasks.start_soon(self._serve, id, method or "", params, scope, 0)
        self.recalled.set()
        await anyio.lowlevel.checkpoint()  # what the agent takes back is to be asked first, or nobody cancels its row
        for params in self._withdrawn:
            self._cancel_served(params)

    # --- serving the agent ------------------------------------------------------------------------------------------

    async def _serve(self, id: Id, method: str, params: Raw, scope: anyio.CancelScope, size: int) -> None:
        await super()._serve(id, method, params, scope, size)
        try:
            await self._journal.post(*self._wire.answered(id))
        except KandevError as error:
            logger.warning("that a request was answered is not recorded: %s", error.message)

    async def _result(self, id: Id, method: str, params: Raw) -> object:
        left = self._left.pop(id, None)
        if left is not None:
            return await self._handler.on_left_request(left, method or None, params)
        return await self._handler.on_noted_request(id, method, params)
