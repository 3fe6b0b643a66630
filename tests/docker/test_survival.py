"""A host that dies, and an engine that goes away: nothing runs twice, nothing is left, and every end has a name."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import docker
import pytest

from kandev_host import ProcessSpec, errors

from .dockerd import Dockerd

pytestmark = pytest.mark.anyio
DEADLINE_S = 90
RESTARTS = int(os.environ.get("KANDEV_TEST_RESTARTS", "2"))
HOST = """
import sys, anyio
from kandev_docker import DockerSettings, open_runtime
from kandev_host import Environment, ProcessSpec

async def main():
    data, socket, after, script = sys.argv[1:]
    settings = DockerSettings(socket=socket, pull="never", after_host_death=after)
    async with open_runtime(settings, Environment(data, "0")) as runtime:
        await runtime.prepare("w1")
        spec = ProcessSpec(workspace_id="w1", command=("sh", "-c", script), adoptable=True, labels={"session": "s1"})
        async with runtime.spawn(spec) as process:
            said = await process.receive()
            print(process.ref, said.decode().strip(), flush=True)
            await anyio.sleep_forever()

anyio.run(main)
"""


def sh(script: str, **fields: Any) -> ProcessSpec:
    return ProcessSpec(workspace_id="w1", command=("sh", "-c", script), **fields)


@pytest.fixture
def killed_host(dockerd: Dockerd, tmp_path: Path) -> Iterator[Callable[[str, str], str]]:
    """The ref of a container whose host was killed after it had read "up"."""
    hosts: list[subprocess.Popen[str]] = []

    def made(after: str, script: str) -> str:
        command = [sys.executable, "-c", HOST, str(tmp_path / "data"), dockerd.socket, after, script]
        host = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        hosts.append(host)
        assert host.stdout is not None
        ref, said = host.stdout.readline().split()
        assert said == "up"
        host.kill()
        host.wait()
        return ref

    yield made
    for host in hosts:
        host.kill()
        host.wait()
        assert host.stdout is not None
        host.stdout.close()


async def gone(sdk: docker.APIClient) -> None:
    with anyio.fail_after(DEADLINE_S):
        while await anyio.to_thread.run_sync(lambda: sdk.containers(all=True)):
            await anyio.sleep(0.1)


async def test_p4_a_container_of_a_killed_host_is_removed_at_the_next_start(
    killed_host: Any, opener: Any, sdk: docker.APIClient
) -> None:
    await anyio.to_thread.run_sync(killed_host, "stop", "trap '' HUP TERM; echo up; while :; do sleep 0.1; done")
    async with opener() as runtime:
        assert sdk.containers(all=True) == []
        assert await runtime.list_owned() == []


async def test_a_container_that_may_be_adopted_is_found_and_reaped(
    killed_host: Any, opener: Any, sdk: docker.APIClient
) -> None:
    ref = await anyio.to_thread.run_sync(killed_host, "adopt", "echo up; read line")
    async with opener(after_host_death="adopt") as runtime:
        [found] = await runtime.list_owned()
        assert (found.ref, found.labels, found.running) == (ref, {"session": "s1"}, True)
        assert await runtime.reap(ref)
        assert await runtime.list_owned() == []
        assert sdk.containers(all=True) == []


async def test_p9_an_adopted_container_goes_on_where_its_host_died(
    killed_host: Any, opener: Any, sdk: docker.APIClient
) -> None:
    script = "echo up; echo meanwhile; while read line; do echo got $line; done"
    ref = await anyio.to_thread.run_sync(killed_host, "adopt", script)
    async with opener(after_host_death="adopt") as runtime:
        process = await runtime.adopt(ref, len(b"up\n"))
        with anyio.fail_after(DEADLINE_S):
            assert await process.receive() == b"meanwhile\n"
            await process.send(b"more\n")
            assert await process.receive() == b"got more\n"
            assert await runtime.adopt(ref, 0) is None
            assert await runtime.reap(ref) is False
            await process.kill()
            assert await process.wait() == -9
        await gone(sdk)


async def test_what_is_adopted_ends_with_the_host(killed_host: Any, opener: Any, sdk: docker.APIClient) -> None:
    ref = await anyio.to_thread.run_sync(killed_host, "adopt", "echo up; read line")
    async with opener(after_host_death="adopt") as runtime:
        assert await runtime.adopt(ref, 0) is not None
    assert sdk.containers(all=True) == []


async def test_output_that_is_no_longer_whole_is_not_adopted(killed_host: Any, opener: Any, dockerd: Dockerd) -> None:
    script = "echo up; python3 -c \"for n in range(90000): print('x' * 1000)\"; echo done > file; read line"
    ref = await anyio.to_thread.run_sync(killed_host, "adopt", script)
    async with opener(after_host_death="adopt") as runtime:
        with anyio.fail_after(DEADLINE_S):
            while not await runtime.list_files("w1", "", 1, 10):
                await anyio.sleep(0.1)
        assert await runtime.adopt(ref, 3) is None
        assert await runtime.reap(ref)


async def test_a_container_of_a_living_host_is_left_alone(
    opener: Any, tmp_path: Path, dockerd: Dockerd, sdk: docker.APIClient
) -> None:
    command = [sys.executable, "-c", HOST, str(tmp_path / "data"), dockerd.socket, "stop", "echo up; read line"]
    process = await anyio.open_process(command, stderr=None)
    assert process.stdout is not None
    ref = (await process.stdout.receive()).split()[0].decode()
    try:
        async with opener() as runtime:
            assert [owned.ref for owned in await runtime.list_owned()] == [ref]
            assert await runtime.reap(ref) is False
            assert await runtime.adopt(ref, 0) is None
        assert len(sdk.containers()) == 1
    finally:
        process.kill()
        await process.wait()
        sdk.remove_container(ref, force=True)


async def test_other_peoples_containers_are_not_touched(opener: Any, sdk: docker.APIClient) -> None:
    labels = {"kandev.owner": "0123456789abcdef", "kandev.ref": "x"}
    made = sdk.create_container("kandev-base", ["sh"], labels=labels)["Id"]
    async with opener() as runtime:
        assert await runtime.list_owned() == []
        assert await runtime.reap("x") is False
    assert [found["Id"] for found in sdk.containers(all=True)] == [made]
    sdk.remove_container(made)


@pytest.mark.parametrize("point", range(8))
async def test_a_start_that_is_cancelled_anywhere_leaves_nothing(
    runtime: Any, sdk: docker.APIClient, monkeypatch: pytest.MonkeyPatch, point: int
) -> None:
    """Cancelled while the n-th question to the engine is on its way."""
    from kandev_docker.engine import Engine

    call, asked = Engine.call, 0

    async def counted(self: Engine, *arguments: Any, **fields: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked == point + 1:
            scope.cancel()
        return await call(self, *arguments, **fields)

    monkeypatch.setattr(Engine, "call", counted)
    with anyio.CancelScope() as scope, suppress(errors.TimedOut):
        await runtime.run(sh("sleep 600"), timeout_s=0.1)
    assert sdk.containers(all=True) == []
    monkeypatch.undo()
    assert (await runtime.run(sh("echo works"))).stdout == b"works\n"


# --- the engine ------------------------------------------------------------------------------------------------------


@pytest.fixture
def own_engine(dockerd: Dockerd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dockerd]:
    """The same engine, running again afterwards whatever was done to it."""
    yield dockerd
    dockerd.stop()
    dockerd.start()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_p13_a_process_whose_engine_ends_has_a_named_end_and_the_runtime_comes_back(
    runtime: Any, own_engine: Dockerd, number: signal.Signals
) -> None:
    async with runtime.spawn(sh("trap '' TERM; echo up; while :; do sleep 0.1; done")) as process:
        await process.receive()
        init = process.init
        await anyio.to_thread.run_sync(own_engine.stop, number)
        with anyio.fail_after(DEADLINE_S):
            assert await process.receive() == b""
            assert await process.wait() in {-9, 137, 143}
        assert process.ending is None or "engine" in process.ending
        assert not init.alive()
        found = await runtime.probe()
        assert (found.ok, "start it" in found.fix or "install" in found.fix) == (False, True)
        with pytest.raises(errors.Unavailable):
            await runtime.run(sh("true"))
    await anyio.to_thread.run_sync(own_engine.start)
    assert (await runtime.probe()).ok
    assert (await runtime.run(sh("echo back"))).stdout == b"back\n"
    with docker.APIClient(f"unix://{own_engine.socket}", timeout=60) as client:
        await gone(client)


async def test_p13_a_process_whose_engine_is_restarted_at_once_has_a_named_end(
    runtime: Any, own_engine: Dockerd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kandev_docker.process.LOST_S", DEADLINE_S)  # before it is given up, however slow the restart
    async with runtime.spawn(sh("echo up; while :; do sleep 0.1; done")) as process:
        await process.receive()

        def restart() -> None:
            own_engine.stop(signal.SIGKILL)
            own_engine.start()

        await anyio.to_thread.run_sync(restart)
        with anyio.fail_after(DEADLINE_S):
            assert await process.wait() == -9
        assert process.ending == "the Docker engine was restarted"
    with docker.APIClient(f"unix://{own_engine.socket}", timeout=60) as client:
        await gone(client)


@pytest.mark.timeout(110 + 30 * RESTARTS)
async def test_p13_an_engine_that_comes_and_goes_leaves_nothing(runtime: Any, own_engine: Dockerd) -> None:
    """Each time under a running process, in peace and by force; its end is named, and the next one starts."""
    for count in range(RESTARTS):
        with anyio.fail_after(DEADLINE_S):
            async with runtime.spawn(sh("trap '' TERM; echo up; while :; do sleep 0.1; done")) as process:
                assert await process.receive() == b"up\n"
                number = signal.SIGTERM if count % 2 else signal.SIGKILL
                await anyio.to_thread.run_sync(own_engine.stop, number)
                assert await process.wait() in {-9, 137}
                assert process.ending is None or "engine" in process.ending
                assert not process.init.alive()
                await anyio.to_thread.run_sync(own_engine.start)
    with docker.APIClient(f"unix://{own_engine.socket}", timeout=60) as client:
        await gone(client)
    assert await runtime.list_owned() == []
