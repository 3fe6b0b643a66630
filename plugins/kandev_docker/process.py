"""A container, seen as the host's `Process`: watched by one task, from its start to the engine's word of its end."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import anyio

from kandev_docker import wire
from kandev_docker.attach import Attached
from kandev_docker.counted import MemoryKills
from kandev_docker.engine import Engaged, Engine, EngineGone, Missing
from kandev_host import Container, Stats, errors
from kandev_sandbox import Ending, Limits
from kandev_sandbox.endings import amount
from kandev_sandbox.processes import Identity, signal_process

log = logging.getLogger(__name__)
KILL_TIMEOUT_S = 10.0
LOST_S = 10.0  # how long the engine may be gone before what ran is given up
RETRY_S, RETRY_LIMIT_S = 0.1, 2.0
KILLED = -signal.SIGKILL
_FLUSH_S = 5.0
_CLOSED_S = 1.0  # from the end of the outputs to the word of the exit


class ContainerProcess:
    """`ref` is the container's name. `init` is its first process where it is one of this machine's, else None."""

    def __init__(self, name: str, engine: Engine, attached: Attached, limits: Limits, *, adoptable: bool) -> None:
        self.ref = name
        self.container: Container | None = None
        self.init: Identity | None = None
        self._kills = MemoryKills()
        self._engine = engine
        self._attached = attached
        self._limits = limits
        self._adoptable = adoptable
        self._over = anyio.Event()
        self._code = 0
        self._killed = False
        self._lost = False
        self._watched = True
        self._ending: str | None = None

    @property
    def adoptable(self) -> bool:
        return self._adoptable

    @property
    def ending(self) -> str | None:
        return self._ending

    def known_as(self, container_id: str, image: str) -> None:
        """From now on `container` tells it."""
        self.container = Container(container_id, self.ref, image)

    async def receive(self, max_bytes: int = 65536) -> bytes:
        return await self._attached.stdout.get(max_bytes)

    async def receive_stderr(self, max_bytes: int = 65536) -> bytes:
        return await self._attached.stderr.get(max_bytes)

    async def send(self, data: bytes) -> None:
        if self._over.is_set():
            raise BrokenPipeError("it has ended")
        await self._attached.send(data)

    async def close_stdin(self) -> None:
        """Where it may be adopted its stdin outlives every connection, so SIGTERM tells it to end instead."""
        self._attached.end_stdin()
        if self._adoptable:
            await self.terminate()

    async def wait(self) -> int:
        await self._over.wait()
        return self._code

    async def terminate(self) -> None:
        await self.signal("SIGTERM")

    async def signal(self, name: str) -> None:
        """To the command; nothing if it has ended."""
        if not self._over.is_set():
            await self._signal(name)

    async def kill(self, because: Ending | None = None) -> None:
        """`because` is what `ending` will say, if nothing ended it before. Where the engine is gone, without it."""
        if not self._over.is_set() and not self._killed:
            self._killed, self._ending = True, None if because is None else because.text
        with anyio.move_on_after(KILL_TIMEOUT_S, shield=True):
            while not self._over.is_set():
                try:
                    await self._signal("SIGKILL")
                except errors.Unavailable:
                    await self._end_init()
                if not self._watched:
                    return  # whoever had it was cancelled: nobody would hear of its end
                with anyio.move_on_after(1):
                    await self._over.wait()

    async def _end_init(self) -> None:
        """The end of all of it, without the engine; nothing where its first process is not seen."""
        if self.init is None:
            return
        try:
            descriptor = os.pidfd_open(self.init.pid)
        except ProcessLookupError:
            return
        try:
            if signal_process(self.init, signal.SIGKILL):
                with anyio.move_on_after(KILL_TIMEOUT_S, shield=True):
                    await anyio.wait_readable(descriptor)
        except PermissionError:
            pass  # another user's: the engine ends it when it is back
        finally:
            os.close(descriptor)

    async def stats(self) -> Stats:
        if self._over.is_set():
            return Stats()
        try:
            found = await self._engine.call(lambda client: client.stats(self.ref, stream=False, one_shot=True))
        except errors.Unavailable:
            return Stats()
        return _stats(found)

    def counting(self, init: Identity | None, container_id: str) -> Callable[[], Coroutine[Any, Any, None]]:
        """Before the command runs: its first process is this one. What is to run then, until its end."""
        self.init = init
        if init is not None:
            self._kills.arm(init, container_id)
        return self._kills.watch

    async def watch(self) -> None:
        """Pump its output and wait for its end; then `wait` answers."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._pump)
                self._code = await self._exit_code()
                self._attached.break_stdin()
                with anyio.move_on_after(_FLUSH_S):  # a reader that is slow is not waited for
                    await self._attached.ended.wait()
                self._over.set()
        finally:
            self._watched = False

    async def _pump(self) -> None:
        """Whoever reads to the end finds the exit code and the cause known, unless it only closed its outputs."""
        try:
            await self._attached.pump()
            with anyio.move_on_after(_CLOSED_S):
                await self._over.wait()
            if self._lost:
                await self._over.wait()
        finally:
            self._attached.end_output()

    async def _exit_code(self) -> int:
        """What the engine says, once it says so; of an engine that went away, what is found when it is back."""
        deadline_s = float("inf")
        delay_s = RETRY_S
        while anyio.current_time() < deadline_s:
            try:
                code = await self._kill_lost() if self._lost else await self._waited()
            except Missing:
                break  # removed: by the engine's own clean-up, or by somebody else
            except errors.Unavailable as error:
                if not self._lost:
                    log.warning("the engine was lost under container %s: %s", self.ref, error.message)
                    self._lost, deadline_s = True, anyio.current_time() + LOST_S
                await anyio.sleep(delay_s)
                delay_s = min(2 * delay_s, RETRY_LIMIT_S)
            else:
                return KILLED if self._killed else code
        await self._end_init()
        self._name("its container was removed" if not self._lost else "the Docker engine went away")
        return KILLED

    async def _waited(self) -> int:
        query = {"condition": "not-running"}
        answer = await wire.ask(self._engine.path, "POST", f"/containers/{self.ref}/wait", query, timeout_s=None)
        try:
            code = int(json.loads(await answer.body())["StatusCode"])
        except (OSError, EOFError, ValueError, KeyError) as error:
            raise self._engine.gone(error) from error
        finally:
            answer.stream.close()
        await self.look(code)
        return code

    async def _kill_lost(self) -> int:
        """The engine is back: what still runs has lost its streams, and is ended."""
        try:
            await self._signal("SIGKILL")
            await self._engine.call(lambda client: client.inspect_container(self.ref))
        except errors.Unavailable as error:
            if isinstance(error, Missing | EngineGone):
                raise
        self._name("the Docker engine was restarted")
        return KILLED

    async def look(self, code: int) -> None:
        """What a command of it met that ended with this code: `ending` then says it. Raises as `Engine.call`."""
        if code == 0 or self._killed:
            return
        state = (await self._engine.call(lambda client: client.inspect_container(self.ref)))["State"]
        with anyio.move_on_after(_CLOSED_S):
            await self._kills.over.wait()
        kills = self._kills.count
        limit = None if self._limits.memory_bytes is None else amount(self._limits.memory_bytes)
        if (kills or state.get("OOMKilled")) and limit is not None:
            self._name(f"a process of it was killed at its memory limit of {limit}")
        elif code == 128 + signal.SIGKILL and kills == 0:
            self._name("it was killed (SIGKILL), and not at a limit of its own")
        elif code == 128 + signal.SIGKILL and limit is not None:
            # On a busy machine containerd loses what it heard of the limit: it looks when the cgroup is gone already.
            self._name(f"it was killed (SIGKILL), perhaps at its memory limit of {limit}: the engine did not say why")
        elif state.get("Error") and self._ending is None:
            log.warning("container %s ended with %d: %s", self.ref, code, state["Error"])

    def _name(self, text: str) -> None:
        """The first cause stays."""
        self._ending = self._ending or text

    async def _signal(self, name: str) -> None:
        with suppress(Missing, Engaged):  # it has ended
            await self._engine.call(lambda client: client.kill(self.ref, name), sure=True)


def _stats(found: dict[str, Any]) -> Stats:
    """Resident is what cannot be dropped: files that were read do not count (as `docker stats` shows it)."""
    memory, processes = found.get("memory_stats") or {}, found.get("pids_stats") or {}
    used, details = memory.get("usage"), memory.get("stats") or {}
    cached = details.get("total_inactive_file", details.get("inactive_file", 0))
    cpu_ns = ((found.get("cpu_stats") or {}).get("cpu_usage") or {}).get("total_usage")
    return Stats(
        cpu_s=cpu_ns / 1e9 if cpu_ns else None,  # without cgroups the engine says 0
        rss_bytes=None if used is None else max(0, used - cached),
        pids=processes.get("current"),
    )
