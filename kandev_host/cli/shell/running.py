"""A command in a shell of the host's, its output at the user's terminal as it comes, and Ctrl-C."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import anyio
import click

from kandev_host.cli.shell.output import Followed, Out

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from kandev_host.cli.asking import Remote

STDOUT, STDERR = 1, 2
TIMED_OUT = 124  # as timeout(1)
# Beyond its own time: for the commands before it, and the way back.
GRACE_S = 600.0
CATCH_UP_S = 30.0


class Running:
    """One command, from its start to its exit status. The shell's output is shown from `at` on."""

    def __init__(self, remote: Remote, shell_id: str, at: int = 0) -> None:
        self._remote = remote
        self._shell_id = shell_id
        self._followed = Followed(remote.client, shell_id, at)
        self._outs = {"stdout": Out(STDOUT, plain=True), "stderr": Out(STDERR, plain=True)}
        self._moved = anyio.Event()
        self._shown = at
        self._reply: dict[str, Any] = {}
        self._status: int | None = None

    async def run(self, command: str, timeout_s: float, max_output_bytes: int | None) -> int:
        """Raises `ClientError`. Ctrl-C goes to the command; a second one, or SIGTERM, gives it up."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._listen, tasks)
            if not self._remote.as_json:
                tasks.start_soon(self._show)
            wanted = {"shell_id": self._shell_id, "command": command, "timeout_s": timeout_s}
            if max_output_bytes is not None:
                wanted["max_output_bytes"] = max_output_bytes
            self._reply = reply = await self._remote.client.call("shell.run", wanted, timeout_s + GRACE_S)
            await self._catch_up(reply["output_offset"])
            tasks.cancel_scope.cancel()
        if self._status is not None:
            return self._status
        return await self._end(timeout_s)

    async def _end(self, timeout_s: float) -> int:
        reply = self._reply
        for out in self._outs.values():
            await out.end()
        self._remote.show(reply, lambda: None)
        if reply["timed_out"]:
            click.echo(f"kandev-host: it was killed after {timeout_s:g} s: --timeout gives it more", err=True)
            return TIMED_OUT
        return int(reply["exit_code"])

    async def _show(self) -> None:
        async for stream, data in self._followed.parts():
            await self._outs[stream].write(data)
            self._shown = self._followed.at
            self._moved.set()
            self._moved = anyio.Event()

    async def _catch_up(self, offset: int) -> None:
        """Until all that it wrote is shown; whoever reads our output sets the pace, as long as it reads at all."""
        while not self._remote.as_json and self._shown < offset:
            shown = self._shown
            with anyio.move_on_after(CATCH_UP_S):
                await self._moved.wait()
            if self._shown == shown:
                return

    async def _listen(self, tasks: TaskGroup) -> None:
        interrupted = False
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for number in signals:
                if number == signal.SIGINT and not interrupted:
                    interrupted = await self._interrupt()
                    if interrupted:
                        continue
                self._status = 128 + number
                tasks.cancel_scope.cancel()
                return

    async def _interrupt(self) -> bool:
        reply = await self._remote.call("shell.signal", shell_id=self._shell_id, signal="INT")
        return bool(reply["signalled"])
