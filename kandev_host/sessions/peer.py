"""The host's side of a JSON-RPC connection over a process: ordered, bounded, and never harmed by what it reads.

Notifications are handed on inline, in order, one batch per chunk; while the handler works nothing is read, so a slow
store slows the agent's pipe. Requests of the agent run in child tasks, so that updates flow while a person decides.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
from anyio.abc import TaskGroup
from msgspec import UNSET, DecodeError, Raw, json

from kandev_host.errors import AgentError, KandevError, TimedOut
from kandev_host.interfaces import Process
from kandev_host.models import Failure
from kandev_host.protocol import acp, jsonrpc
from kandev_host.protocol.jsonrpc import METHOD_NOT_FOUND, Message, RpcError
from kandev_host.sessions.handling import Handler
from kandev_host.sessions.lazy_event import LazyEvent

logger = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 17
CONCURRENT_REQUESTS = 64
REQUESTS_BYTES = 32 << 20  # of those that are served at once, unless one alone has more
EOF_GRACE_S = 1.0
DRAIN_S = 2.0
DRAIN_BYTES = 1 << 20
WITHDRAW_S = 1.0

Answer = Raw | Exception


class Call(msgspec.Struct):
    """A request of ours that waits. `settle` is called inline, in order with the updates around the answer."""

    method: str
    done: anyio.Event
    settle: Callable[[Answer], None] | None
    answer: Answer | None = None

    async def outcome(self) -> Raw:
        """The result. Raises the answer if it is an error, and `AgentError` when the agent goes away."""
        await self.done.wait()
        if isinstance(self.answer, Raw):
            return self.answer
        raise self.answer or AgentError("There is no answer")

    def resolve(self, answer: Answer) -> None:
        self.answer = answer
        if self.settle is not None:
            self.settle(answer)
        self.done.set()


class Peer:
    """One connection. `run` reads until the agent is gone; `call` and `notify` may be used while it does.

    `assumed` holds the results of methods that an agent need not know.
    """

    def __init__(self, process: Process, handler: Handler, *, line_limit_bytes: int, fault_limit: int) -> None:
        self._process = process
        self._handler = handler
        self._lines = jsonrpc.Lines(line_limit_bytes)
        self._fault_limit = fault_limit
        self._calls: dict[int, Call] = {}
        self._served: dict[jsonrpc.Id, anyio.CancelScope] = {}
        self._slots = anyio.Semaphore(CONCURRENT_REQUESTS)
        self._serving_bytes = 0
        self._made_room = LazyEvent()
        self._sending = anyio.Lock()
        self._next_id = 0
        self._unanswered: deque[int] = deque(maxlen=CONCURRENT_REQUESTS)
        self.assumed: Mapping[str, Raw] = {}
        self._broken = False
        self._eof = LazyEvent()
        self._received = 0
        self._strayed = False
        self.faults = 0
        self.strikes = 0
        self.exit_code: int | None = None
        self._ear: anyio.Event | None = None
        self.last_heard = time.monotonic()
        self.end_reason: str | None = None
        self.end_failure: Failure = "crash"
        self.ended = LazyEvent()

    # --- life -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Read until the end of the stream or of the process; afterwards `ended` is set and every call has failed."""
        try:
            async with anyio.create_task_group() as tasks:
                reading = anyio.CancelScope()
                tasks.start_soon(self._watch_exit, reading)
                with reading:
                    await self._read(tasks)
                self._eof.set()
                if self.end_reason is None:
                    with anyio.move_on_after(EOF_GRACE_S):
                        await self._exited()
                tasks.cancel_scope.cancel()
        except* KandevError as group:
            # What it said can no longer be recorded: then it must not go on.
            self.end_reason = f"was stopped: {_first(group)}"
            self.end_failure = "unavailable"
        finally:
            self._end()

    def listen(self) -> anyio.Event:
        """Set as soon as the agent says anything; whoever asks last is told."""
        self._ear = anyio.Event()
        return self._ear

    async def _exited(self) -> None:
        self.exit_code = await self._process.wait()

    async def _watch_exit(self, reading: anyio.CancelScope) -> None:
        """An exited agent is gone, also while a child that it left behind holds its stdout open.

        What it had said before is read to its end, however slow the store is; no more than pipes and buffers hold.
        """
        await self._exited()
        for scope in tuple(self._served.values()):
            scope.cancel()
        at_exit, before = self._received, -1
        while before < self._received <= at_exit + DRAIN_BYTES and not self._eof.is_set():
            before = self._received
            with anyio.move_on_after(DRAIN_S):
                await self._eof.wait()
        reading.cancel()

    def _end(self) -> None:
        if self.end_reason is None:
            code, limit = self.exit_code, self._process.ending
            met = "" if limit is None else f" ({limit})"
            self.end_reason = "closed its output" if code is None else f"exited with code {code}{met}"
        self.ended.set()
        for call in tuple(self._calls.values()):
            call.resolve(self.gone_before(call.method))
        self._calls = {}

    def gone_before(self, method: str) -> AgentError:
        """The error for whoever waits for an agent that has gone."""
        return AgentError(f"The agent {self.end_reason} before it answered {method}")

    # --- reading ----------------------------------------------------------------------------------------------------

    async def _read(self, tasks: TaskGroup) -> None:
        while self.end_reason is None:
            chunk = await self._process.receive(CHUNK_BYTES)
            self.last_heard = time.monotonic()
            self._received += len(chunk)
            if self._ear is not None:
                self._ear.set()
                self._ear = None
            lines = self._lines.feed(chunk) if chunk else self._lines.finish()
            await self._take(lines, tasks)
            if not chunk:
                return
            await anyio.lowlevel.checkpoint()  # a flood comes without a single wait: let others run

    async def _take(self, lines: list[bytes], tasks: TaskGroup) -> None:
        batch: list[Message] = []
        decode = jsonrpc.decode
        for line in lines:
            try:
                message = decode(line)
            except jsonrpc.BadLine as error:
                if batch:
                    await self._flush(batch)
                    batch = []
                await self._take_stray(str(error), line)
                continue
            if message.method is not UNSET and message.id is UNSET and message.method[:2] != "$/":
                batch.append(message)
                continue
            if batch:
                await self._flush(batch)
                batch = []
            await self._take_one(message, line, tasks)
        if batch:
            await self._flush(batch)
        await self._rest()
        for head in self._lines.take_dropped():
            await self._take_dropped(head)

    async def _rest(self) -> None:
        if self._strayed:
            self._strayed = False
            await self._handler.on_rest()

    async def _flush(self, batch: list[Message]) -> None:
        await self._rest()
        unusable = await self._handler.on_notifications(batch)
        self.faults += unusable
        self.strikes = self.strikes + unusable if unusable == len(batch) else 0
        self._strike_out()

    async def _take_one(self, message: Message, line: bytes, tasks: TaskGroup) -> None:
        await self._rest()
        if message.method is UNSET:
            await self._take_answer(message, line)
            return
        self.strikes = 0
        if message.id is UNSET:
            self._cancel_served(message.params)
            return
        await self._slots.acquire()
        while self._serving_bytes and self._serving_bytes + len(line) > REQUESTS_BYTES:
            self._made_room = LazyEvent()
            await self._made_room.wait()
        self._serving_bytes += len(line)
        scope = self._served[message.id] = anyio.CancelScope()
        tasks.start_soon(self._serve, message.id, message.method, message.params, scope, len(line))

    async def _take_answer(self, message: Message, line: bytes) -> None:
        call = self._calls.pop(message.id, None) if isinstance(message.id, int) else None
        if call is None and message.id in self._unanswered:
            return  # late: nobody waits for it any more
        if call is None:
            await self._fault("answers no request", line)
            return
        self.strikes = 0
        if message.error is not UNSET and bytes(message.error) != b"null":
            call.resolve(jsonrpc.decode_error(message.error))
        else:
            call.resolve(Raw(b"null") if message.result is UNSET else message.result)

    async def _take_stray(self, reason: str, line: bytes) -> None:
        if await self._handler.on_stray(line):
            self.strikes = 0
            self._strayed = True
        else:
            await self._fault(reason, line)

    async def _take_dropped(self, head: bytes) -> None:
        """A line over the limit: whoever waits for it learns so."""
        await self._fault("longer than a line may be", head)
        found = jsonrpc.head_id(head)
        if found is None:
            return
        identifier, is_answer = found
        too_long = RpcError(jsonrpc.INVALID_REQUEST, "The message is longer than a line may be")
        if not is_answer:
            await self._send(jsonrpc.error_answer(identifier, too_long))
        elif isinstance(identifier, int) and identifier in self._calls:
            self._calls.pop(identifier).resolve(too_long)

    async def _fault(self, reason: str, line: bytes) -> None:
        self.faults += 1
        self.strikes += 1
        await self._handler.on_fault(reason, line)
        self._strike_out()

    def _strike_out(self) -> None:
        if self.strikes >= self._fault_limit:
            self.end_reason = f"was stopped after {self.strikes} lines in a row that are not ACP"

    # --- serving the agent ------------------------------------------------------------------------------------------

    async def _serve(self, id: jsonrpc.Id, method: str, params: Raw, scope: anyio.CancelScope, size: int) -> None:
        line = jsonrpc.error_answer(id, RpcError(jsonrpc.CANCELLED, "Cancelled"))
        try:
            with scope:
                try:
                    line = jsonrpc.answer(id, await self._result(id, method, params))
                except RpcError as error:
                    line = jsonrpc.error_answer(id, error)
            await self._send(line)
        except AgentError:
            logger.debug("an answer found no reader")
        finally:
            self._slots.release()
            self._serving_bytes -= size
            self._made_room.set()
            if self._served.get(id) is scope:
                del self._served[id]

    async def _result(self, _id: jsonrpc.Id, method: str, params: Raw) -> Any:
        """Raises `RpcError`."""
        return await self._handler.on_request(method, params)

    def _cancel_served(self, params: Raw) -> None:
        try:
            wanted = json.decode(params, type=acp.CancelRequest).request_id
        except (DecodeError, RecursionError):
            return
        scope = self._served.get(wanted)
        if scope is not None:
            scope.cancel()

    # --- asking the agent -------------------------------------------------------------------------------------------

    def reserve(self) -> int:
        """An id for a request that is still to be made."""
        self._next_id += 1
        return self._next_id - 1

    async def _sent(self, identifier: int) -> None:
        """It is on its way."""

    async def call(
        self,
        method: str,
        params: Any,
        timeout_s: float | None,
        settle: Callable[[Answer], None] | None = None,
        *,
        waits: Callable[[], bool] = lambda: False,
        identifier: int | None = None,
    ) -> Raw:
        """The result of a request. Raises `RpcError`, `TimedOut`, or `AgentError` when the agent goes away.

        An agent that `waits` for a person when its time is over is given as much again. `identifier` was reserved.
        """
        identifier = self.reserve() if identifier is None else identifier
        call = self._calls[identifier] = Call(method, anyio.Event(), settle)
        try:
            with anyio.move_on_after(timeout_s):
                await self._send(jsonrpc.request(identifier, method, params))
                await self._sent(identifier)
                await call.done.wait()
            while call.answer is None and waits():
                with anyio.move_on_after(timeout_s):
                    await call.done.wait()
        except AgentError:
            if self.end_reason is None:
                raise
            raise self.gone_before(method) from None
        finally:
            if self._calls.pop(identifier, None) is not None:
                self._unanswered.append(identifier)
        if call.answer is None:
            await self._withdraw(identifier, method)
            raise TimedOut(f"The agent did not answer {method} within {timeout_s:g} s")
        if method in self.assumed and isinstance(call.answer, RpcError) and call.answer.code == METHOD_NOT_FOUND:
            return self.assumed[method]
        return await call.outcome()

    async def _withdraw(self, identifier: int, method: str) -> None:
        """Nobody waits for this answer any more. ACP: `$/cancel_request`; not before both sides have said hello."""
        if method == "initialize":
            return
        with anyio.move_on_after(WITHDRAW_S):
            try:
                await self.notify("$/cancel_request", {"requestId": identifier})
            except AgentError:
                return  # it is gone

    async def notify(self, method: str, params: Any) -> None:
        """Raises `AgentError` when the agent no longer reads."""
        await self._send(jsonrpc.notification(method, params))

    async def terminate(self) -> None:
        """Tell the agent to end, where its dialect has no word for that."""
        await self._process.terminate()

    async def hand_over(self, data: bytes) -> None:
        """Write what is no message, and close the agent's input; no error if it is not read."""
        try:
            async with self._sending:
                await self._process.send(data)
                await self._process.close_stdin()
        except (BrokenPipeError, ConnectionError, anyio.ClosedResourceError, anyio.BrokenResourceError):
            logger.debug("the agent did not read all of its input")

    async def _send(self, line: bytes) -> None:
        async with self._sending:
            if self._broken or self.ended.is_set():
                raise AgentError(f"The agent {self.end_reason or 'no longer reads its input'}")
            self._broken = True  # until the whole line is out: half a line would spoil the next one
            try:
                await self._process.send(line)
            except (BrokenPipeError, ConnectionError, anyio.ClosedResourceError, anyio.BrokenResourceError):
                await self._raise_gone()
            self._broken = False

    async def _raise_gone(self) -> None:
        """The pipe is closed; the exit code that follows says more than that."""
        with anyio.move_on_after(EOF_GRACE_S):
            await self.ended.wait()
        raise AgentError(f"The agent {self.end_reason or 'closed its input'}")


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
