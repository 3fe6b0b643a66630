"""What every runtime must know of its own processes, also after its host was killed: none is lost, none is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from kandev_host import Owned, Runtime
from kandev_host.testing.runtime.base import (
    DEADLINE_S,
    HOLD,
    LOCK,
    STAY,
    RuntimeSuite,
    ended,
    everything,
    is_held,
    line,
    sh,
    until,
    until_free,
)

LABELS = {"task_id": "t1", "agent_id": "a-1", "snow": "\N{SNOWMAN}", "odd": "a=b, c\n\"d'"}


@pytest.mark.anyio
class OwningContract(RuntimeSuite):
    """The tests. They use only what `Runtime` promises of what it owns."""

    async def test_a_running_process_is_listed_with_its_labels(self, runtime: Runtime) -> None:
        async with runtime.spawn(sh(HOLD, "lock", labels=LABELS)) as process:
            await line(process)
            (owned,) = await runtime.list_owned()
            assert (owned.ref, dict(owned.labels), owned.running) == (process.ref, LABELS, True)
        assert await runtime.list_owned() == []

    async def test_each_process_has_a_ref_of_its_own(self, runtime: Runtime) -> None:
        async with runtime.spawn(sh(HOLD, "1")) as one, runtime.spawn(sh(HOLD, "2", workspace="w2")) as other:
            await line(one)
            await line(other)
            assert one.ref != other.ref
            assert {owned.ref for owned in await runtime.list_owned()} == {one.ref, other.ref}

    async def test_an_ended_process_is_not_said_to_run(self, runtime: Runtime) -> None:
        async with runtime.spawn(sh("exit 0")) as process:
            await ended(process)
            assert not [owned for owned in await runtime.list_owned() if owned.running]
        assert await runtime.list_owned() == []

    async def test_a_process_of_this_host_is_not_reaped(self, runtime: Runtime) -> None:
        async with runtime.spawn(sh(HOLD, "lock")) as process:
            await line(process)
            assert await runtime.reap(process.ref) is False
            assert await runtime.reap("nobody") is False
            await process.send(b"more\n")
            assert await line(process) == b"got more\n"

    async def test_what_a_living_host_runs_is_let_alone_by_another(
        self, anyio_backend: str, settings: Mapping[str, Any], data_dir: Path
    ) -> None:
        async with self._host(settings, data_dir) as ref, self.opened(settings, data_dir) as runtime:
            assert [owned.ref for owned in await runtime.list_owned()] == [ref]
            assert await runtime.reap(ref) is False
            assert await is_held(runtime)
        async with self.opened(settings, data_dir) as runtime:
            await self._let_go(runtime, ref)

    async def test_what_belongs_to_another_data_folder_is_not_listed(
        self, runtime: Runtime, settings: Mapping[str, Any], tmp_path: Path
    ) -> None:
        (tmp_path / "other").mkdir(mode=0o700)
        async with runtime.spawn(sh(HOLD, "lock")) as process:
            await line(process)
            async with self.opened(settings, tmp_path / "other") as other:
                assert await other.list_owned() == []
                assert await other.reap(process.ref) is False
            await process.send(b"more\n")
            assert await line(process) == b"got more\n"

    # --- leftovers ----------------------------------------------------------------------------------------------------

    async def test_a_daemon_is_gone_with_the_context(self, runtime: Runtime) -> None:
        async with runtime.spawn(sh(STAY, "lock")) as process:
            await line(process)
            assert await is_held(runtime)
        await until_free(runtime)
        assert await runtime.list_owned() == []

    @pytest.mark.parametrize("after_s", [0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1])
    async def test_cancelling_at_any_point_leaves_nothing(self, runtime: Runtime, after_s: float) -> None:
        with anyio.move_on_after(after_s):
            async with runtime.spawn(sh(HOLD, "lock")) as process:
                await everything(process.receive)
        assert await runtime.list_owned() == []
        assert not await is_held(runtime)
        await runtime.remove("w1")

    async def test_cancelling_a_short_command_leaves_nothing(self, runtime: Runtime) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runtime.run, sh(f"exec 9>lock; {LOCK}; exec sleep 600"))
            await until(lambda: is_held(runtime))
            tasks.cancel_scope.cancel()
        assert await runtime.list_owned() == []
        assert not await is_held(runtime)

    # --- the death of the host ----------------------------------------------------------------------------------------

    async def test_of_a_killed_host_nothing_is_left(
        self, anyio_backend: str, settings: Mapping[str, Any], data_dir: Path
    ) -> None:
        """Whether its processes die with it, are ended as the next one starts, or are reaped by that."""
        ref = await self._killed_host(settings, data_dir)
        async with self.opened(settings, data_dir) as runtime:
            await self._let_go(runtime, ref)
            await runtime.remove("w1")

    async def test_what_outlives_its_host_is_adopted(
        self, anyio_backend: str, settings: Mapping[str, Any], data_dir: Path
    ) -> None:
        """With both ends of its pipes, from the byte that was asked for; a runtime that lacks it answers None."""
        ref = await self._killed_host(settings, data_dir)
        async with self.opened(settings, data_dir) as runtime:
            process = await runtime.adopt(ref, len(b"up\n"))
            if "adoption" in self.lacks:
                assert process is None
                return
            assert process is not None
            assert [owned.ref for owned in await runtime.list_owned()] == [ref]
            await process.send(b"more\n")
            assert await line(process) == b"got more\n"
            await process.kill()
            await until_free(runtime)

    async def _let_go(self, runtime: Runtime, ref: str) -> None:
        """What is left of a dead host's process, if anything, is reaped."""
        for owned in await runtime.list_owned():
            assert _is(owned, ref)
            await runtime.reap(owned.ref)

        async def nothing() -> bool:
            return await runtime.list_owned() == []

        await until_free(runtime)
        await until(nothing)  # whoever dies with its host does so in its own time

    async def _killed_host(self, settings: Mapping[str, Any], data_dir: Path) -> str:
        """Of one whose process had started: how it is found again."""
        async with self._host(settings, data_dir) as ref:
            return ref

    @asynccontextmanager
    async def _host(self, settings: Mapping[str, Any], data_dir: Path) -> AsyncIterator[str]:
        """Another host, with a process in the runtime: the ref of that. It is killed at the end."""
        asked = {
            "plugin": self.plugin,
            "provider": self.provider,
            "settings": dict(settings),
            "data_dir": str(data_dir),
            "script": HOLD,
            "labels": LABELS,
        }
        command = [sys.executable, "-m", "kandev_host.testing.runtime.dying_host", json.dumps(asked)]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=env) as host:  # noqa: ASYNC220 - takes a millisecond
            try:
                assert host.stdout is not None
                with anyio.fail_after(DEADLINE_S):
                    await anyio.wait_readable(host.stdout)
                told = host.stdout.readline().decode().strip()
                assert told, "the host ended before its process had started"
                yield told
            finally:
                host.kill()


def _is(owned: Owned, ref: str) -> bool:
    """Labels are lost only all together."""
    return owned.ref == ref and dict(owned.labels) in ({}, LABELS)
