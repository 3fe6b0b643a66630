"""The host's side of a shell's supervisor: requests, answers, and the end of a command that does not end by itself."""

from __future__ import annotations

import os
import select
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import anyio
import anyio.to_thread

from kandev_sandbox.errors import ShellEnded, SpawnFailed
from kandev_sandbox.pipes import PipeReader, PipeWriter
from kandev_sandbox.shell import jobs, scripts
from kandev_sandbox.shell.background import background
from kandev_sandbox.shell.enclosure import Enclosure
from kandev_sandbox.shell.exchange import Exchange
from kandev_sandbox.shell.leftovers import Leftovers

NOT_STARTED = 126
_NO_PROCESS = b"kandev: no process could be started for the command (a limit?); see the jobs of this shell\n"
_READY_TIMEOUT_S = 10.0
_KILL_S = 1.0
_ANSWER_S = 2.0
_KILLS = 5
_LINE_BYTES = 4096
_WORDS_BYTES = 4096
_READ_BYTES = 4096


class Supervisor:
    """Made by `supervised`. One exchange at a time."""

    def __init__(self, jail: Enclosure, requests: PipeWriter, answers: PipeReader) -> None:
        self.jail = jail
        self.ended = False
        self.leftovers = Leftovers()
        self._requests = requests
        self._answers = answers.fileno()
        self._text = b""
        self._words = b""
        self._poll = select.epoll()
        self._poll.register(self._answers, select.EPOLLIN)

    async def carry_out(self, exchange: Exchange, timeout_s: float) -> None:
        """From the request to the last byte of output. Whatever ends this, nothing of the command goes on.

        Raises `ShellEnded` when the jail is gone, and what `exchange.on_output` raises.
        """
        for descriptor in exchange.descriptors():
            self._poll.register(descriptor, select.EPOLLIN)
        try:
            await self._until_answered(exchange, timeout_s)
        except BaseException:
            exchange.on_output = None
            if exchange.status is None and not self.ended:
                with anyio.CancelScope(shield=True), suppress(ShellEnded):
                    await self._ended_by_force(exchange)
            raise
        finally:
            for descriptor in exchange.descriptors():
                self._poll.unregister(descriptor)

    async def ready(self) -> None:
        """Wait for the supervisor's first word. Raises `SpawnFailed`."""
        with anyio.move_on_after(_READY_TIMEOUT_S):
            while scripts.READY not in self._text:
                await anyio.wait_readable(self._answers)
                self._read()
            self._text = b""
            return
        raise SpawnFailed(f"The shell did not start within {_READY_TIMEOUT_S:.0f} s. {self._last_words()}".rstrip())

    async def listen(self, stderr: PipeReader) -> None:
        """Keep the last of what the supervisor itself complains of."""
        async for chunk in stderr:
            self._words = (self._words + chunk)[-_WORDS_BYTES:]

    def close(self) -> None:
        self._poll.close()
        self.leftovers.close()

    async def _until_answered(self, exchange: Exchange, timeout_s: float) -> None:
        await self._request(exchange.token)
        if exchange.on_output is not None:
            # A watch beside, and no deadline around: the receiver of the output is not to be cut off in its middle.
            async with background() as group:
                group.start_soon(self._end_after, exchange, timeout_s)
                await self._follow(exchange)
            return
        with anyio.move_on_after(timeout_s) as scope:
            await self._follow(exchange)
        if scope.cancelled_caught:
            exchange.timed_out = True
            await self._ended_by_force(exchange)

    async def _request(self, token: str) -> None:
        try:
            await self._requests.send(f"{token}\n".encode())
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise self._gone() from error

    async def _follow(self, exchange: Exchange) -> None:
        while exchange.status is None:
            await anyio.wait_readable(self._poll.fileno())
            for descriptor, _ in self._poll.poll(0):
                if descriptor == self._answers:
                    self._read()
                    exchange.status = self._answer(exchange)
                else:
                    await exchange.take(descriptor)
        await exchange.take_rest()

    def _read(self) -> None:
        with suppress(BlockingIOError):
            chunk = os.read(self._answers, _READ_BYTES)
            if not chunk:
                raise self._gone()
            self._text += chunk

    def _answer(self, exchange: Exchange) -> int | None:
        """The status told for this command. Other lines are of commands before, or forged."""
        *lines, rest = self._text.split(b"\n")
        self._text = rest[-_LINE_BYTES:]
        for line in lines:
            word, _, status = line.partition(b" ")
            if word == exchange.token.encode() and status.isdigit() and len(status) <= 3:
                return int(status) & 0xFF
            if line == scripts.READY:  # it had to start over: the command was not run
                exchange.note(_NO_PROCESS)
                return NOT_STARTED
        return None

    async def _end_after(self, exchange: Exchange, timeout_s: float) -> None:
        await anyio.sleep(timeout_s)
        exchange.timed_out = True
        await self._put_down(exchange)

    async def _ended_by_force(self, exchange: Exchange) -> None:
        async with background() as group:
            group.start_soon(self._put_down, exchange)
            await self._follow(exchange)

    async def _put_down(self, exchange: Exchange) -> None:
        """SIGKILL to what the command started; if that is outrun, to all; if no answer comes then, to the jail."""
        init = self.jail.init
        with anyio.CancelScope(shield=True):  # the answer comes before the last of them is dead
            if not await anyio.to_thread.run_sync(jobs.end_command, init, exchange.before, _KILL_S):
                await anyio.to_thread.run_sync(jobs.end_all, init)
        for _ in range(_KILLS):  # on a machine that a fork bomb has busy, its supervisor has to get a turn
            await anyio.sleep(_ANSWER_S)
            await anyio.to_thread.run_sync(jobs.end_all, init)
        await anyio.sleep(_ANSWER_S)
        await self.jail.kill()

    def _gone(self) -> ShellEnded:
        self.ended = True
        return ShellEnded(f"The jail of this shell is gone. {self._last_words()}".rstrip())

    def _last_words(self) -> str:
        return self._words.decode(errors="replace").strip()


@asynccontextmanager
async def supervised(opened: Callable[[], AbstractAsyncContextManager[Enclosure]]) -> AsyncIterator[Supervisor]:
    """Open the jail and serve its outputs until the block is left."""
    async with opened() as jail:
        if jail.stdin is None or jail.stdout is None or jail.stderr is None:
            raise SpawnFailed("A shell needs three pipes.")
        supervisor = Supervisor(jail, jail.stdin, jail.stdout)
        try:
            async with background() as group:
                group.start_soon(supervisor.listen, jail.stderr)
                group.start_soon(supervisor.leftovers.drain)
                await supervisor.ready()
                yield supervisor
        finally:
            supervisor.close()
