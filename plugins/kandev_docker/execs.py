"""A command that the engine starts in a container which is there already (Docker Engine API: exec)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import anyio

from kandev_docker import inside, wire
from kandev_docker.attach import ATTACH_TIMEOUT_S, Attached
from kandev_docker.engine import Engine, Missing
from kandev_docker.process import KILLED, LOST_S, ContainerProcess
from kandev_host import ProcessSpec, errors
from kandev_sandbox import Ending
from kandev_sandbox.processes import Identity

LOOK_S, LOOK_LIMIT_S = 0.01, 0.25
_FLUSH_S = 5.0


class Exec:
    """Its end is that of its first process, or of its container. `kill` ends the container: that is all of it."""

    def __init__(self, container: ContainerProcess, engine: Engine, id: str, attached: Attached) -> None:
        self.init: Identity | None = None
        self._container = container
        self._engine = engine
        self._id = id
        self._attached = attached
        self._over = anyio.Event()
        self._code = KILLED

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._code if self._over.is_set() else None

    @property
    def ending(self) -> str | None:
        return self._container.ending

    async def receive(self, max_bytes: int = 65536) -> bytes:
        return await self._attached.stdout.get(max_bytes)

    async def receive_stderr(self, max_bytes: int = 65536) -> bytes:
        return await self._attached.stderr.get(max_bytes)

    async def send(self, data: bytes) -> None:
        if self._over.is_set():
            raise BrokenPipeError("it has ended")
        await self._attached.send(data)

    async def close_stdin(self) -> None:
        self._attached.end_stdin()

    async def wait(self) -> int:
        await self._over.wait()
        return self._code

    async def kill(self, because: Ending | None = None) -> None:
        await self._container.kill(because)
        await self._over.wait()

    def close(self) -> None:
        """Drop the connection."""
        self._attached.close()

    async def begun(self) -> bool:
        """Wait for its first line. False where something else came in its place, or the end."""
        with anyio.move_on_after(ATTACH_TIMEOUT_S):
            await self._attached.started.wait()
        if not (self._attached.started.is_set() and self._attached.whole):
            return False
        told = await self._look()
        pid = int(told.get("Pid") or 0)
        self.init = await anyio.to_thread.run_sync(inside.init_of, pid, str(told["ContainerID"]))
        return True

    async def watch(self) -> None:
        """Pump its output and wait for its end; then `wait` answers, and readers see the end: what it left behind may
        hold its outputs open.
        """
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._attached.pump)
                await self._first_end()
                with suppress(errors.Unavailable):
                    await self._container.look(self._code)
                self._attached.break_stdin()
                with anyio.move_on_after(_FLUSH_S):  # a reader that is slow is not waited for
                    await self._attached.ended.wait()
                tasks.cancel_scope.cancel()
        finally:
            self._over.set()
            self._attached.end_output()

    async def _first_end(self) -> None:
        async with anyio.create_task_group() as tasks:

            async def container() -> None:
                await self._container.wait()
                tasks.cancel_scope.cancel()

            tasks.start_soon(container)
            self._code = await self._exit_code()
            tasks.cancel_scope.cancel()

    async def _exit_code(self) -> int:
        """As soon as the engine says it: asked when its outputs end, and now and then."""
        delay_s = LOOK_S
        while True:
            try:
                told = await self._look()
            except Missing:
                with anyio.move_on_after(LOST_S):  # with its container, which knows why
                    await self._container.wait()
                return KILLED
            except errors.Unavailable:
                pass  # its container's end is told in time, also that of an engine that went away
            else:
                if not told.get("Running") and told.get("ExitCode") is not None:
                    return int(told["ExitCode"])
            if self._attached.ended.is_set():
                await anyio.sleep(delay_s)
            else:
                with anyio.move_on_after(delay_s):
                    await self._attached.ended.wait()
            delay_s = min(1.5 * delay_s, LOOK_LIMIT_S)

    async def _look(self) -> dict[str, Any]:
        told: dict[str, Any] = await self._engine.call(lambda client: client.exec_inspect(self._id))
        return told


async def start(
    engine: Engine, container: ContainerProcess, command: Sequence[str], spec: ProcessSpec, user: str, marker: str
) -> Exec:
    """In the environment and the folder of `spec`; nothing yet if it cannot be started. Raises as `Engine.call`.

    `marker` is the first line of what it writes, which nobody is shown.
    """
    made = await engine.call(
        lambda client: client.exec_create(
            container.ref, list(command), stdin=True, user=user, environment=dict(spec.env), workdir=spec.cwd
        ),
        what="start the command",
    )
    body = json.dumps({"Detach": False, "Tty": False}).encode()
    target = f"/exec/{made['Id']}/start"
    answer = await wire.ask(engine.path, "POST", target, {}, upgrade=True, body=body, timeout_s=ATTACH_TIMEOUT_S)
    return Exec(container, engine, str(made["Id"]), Attached(answer.stream, marker=f"{marker}\n".encode()))
