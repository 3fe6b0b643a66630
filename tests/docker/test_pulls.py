"""Images come from a real registry: what is told on the way, who shares a pull, and how one ends that does not end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import docker
import pytest

from kandev_docker.pulls import Layers
from kandev_host import Pull, errors
from kandev_host.cli.app import run
from kandev_host.client import Client

from ..e2e.conftest import HostProcess
from .conftest import IMAGE
from .dockerd import Dockerd
from .registry import Registry, layer, serving
from .test_turn import host_of

pytestmark = pytest.mark.anyio
DEADLINE_S = 60


@pytest.fixture
def registry(sdk: docker.APIClient) -> Iterator[Registry]:
    """What was pulled from it is gone afterwards."""
    with serving() as made:
        yield made
        for image in sdk.images():
            for name in image["RepoTags"] or ():
                if name.startswith(f"127.0.0.1:{made.port}/"):
                    sdk.remove_image(name, force=True)


@pytest.fixture
def image(registry: Registry) -> str:
    return registry.add("team/agent", [layer("one", 3 << 20), layer("two", 1 << 20)])


@pytest.fixture
def given_up(dockerd: Dockerd) -> Callable[[], bool]:
    """Has the engine given up a pull since the test began? By its own word, for it keeps connections to a registry."""
    path = dockerd.folder / "log"
    before = path.stat().st_size
    return lambda: b"Not continuing with pull" in path.read_bytes()[before:]


@asynccontextmanager
async def listening(runtime: Any) -> AsyncIterator[list[Pull]]:
    """All that the runtime tells of pulls."""
    told: list[Pull] = []

    async def listen() -> None:
        async for pull in runtime.pulls():
            told.append(pull)  # noqa: PERF401 - while it goes on

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        await anyio.lowlevel.checkpoint()
        yield told
        tasks.cancel_scope.cancel()


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(DEADLINE_S):
        while not condition():
            await anyio.sleep(0.02)


async def test_a_pull_is_told_to_everybody_who_waits_for_it_and_is_one(
    opener: Any, registry: Registry, image: str
) -> None:
    registry.hold = True
    labels = [{"agent_id": "a1"}, {"agent_id": "a2"}]
    async with opener(pull="missing") as runtime, listening(runtime) as told:
        with anyio.fail_after(DEADLINE_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(runtime.fetch, image, labels[0])
                await until(lambda: any(0 < pull.bytes_done < pull.bytes_total for pull in told))
                tasks.start_soon(runtime.fetch, image, labels[1])
                await anyio.lowlevel.checkpoint()
                registry.go.set()
        await until(lambda: len([pull for pull in told if pull.state == "pulled"]) == 2)
        await runtime.fetch(image, labels[0])  # it is there: nothing more is told
    assert told[0] == Pull(image=image, state="pulling", labels=labels[0])
    ends = [pull for pull in told if pull.state != "pulling"]
    assert [(end.state, end.layers_done, end.layers_total) for end in ends] == [("pulled", 2, 2)] * 2
    assert [dict(end.labels) for end in ends] == labels
    assert all(end.bytes_done == end.bytes_total > 4 << 20 for end in ends)
    assert len([path for path in registry.sent if "/manifests/" in path]) <= 2  # of one pull: by tag, and by digest


async def test_a_pull_of_which_nothing_comes_is_told_again(
    opener: Any, registry: Registry, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kandev_docker.pulls.TELL_AGAIN_S", 0.1)
    registry.hold = True
    async with opener(pull="missing") as runtime, listening(runtime) as told, anyio.create_task_group() as tasks:
        tasks.start_soon(runtime.fetch, image, {"shell_id": "s1"})
        await until(lambda: len(told) > 2 and told[-1] == told[-2] == told[-3])
        tasks.cancel_scope.cancel()


async def test_a_pull_goes_on_while_somebody_waits_and_ends_with_the_last(
    opener: Any, registry: Registry, image: str, given_up: Callable[[], bool]
) -> None:
    registry.hold = True
    async with opener(pull="missing") as runtime, listening(runtime) as told, anyio.create_task_group() as tasks:
        first, second = anyio.CancelScope(), anyio.CancelScope()

        async def wait(scope: anyio.CancelScope) -> None:
            with scope:
                await runtime.fetch(image, {"agent_id": "a1"})

        tasks.start_soon(wait, first)
        tasks.start_soon(wait, second)
        await until(lambda: any(pull.bytes_done for pull in told))
        first.cancel()
        await runtime.probe()
        assert not given_up()
        second.cancel()
        await until(given_up)


async def test_a_pull_that_was_given_up_can_be_asked_for_again(opener: Any, registry: Registry, image: str) -> None:
    registry.hold = True
    async with opener(pull="missing") as runtime, listening(runtime) as told:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(runtime.fetch, image, {})
                await until(lambda: any(pull.bytes_done for pull in told))
                scope.cancel()
        registry.go.set()
        with anyio.fail_after(DEADLINE_S):
            await runtime.fetch(image, {})
        assert told[-1].state == "pulled"


async def test_a_registry_that_falls_silent_is_given_up_with_the_reason(
    opener: Any, registry: Registry, image: str, given_up: Callable[[], bool]
) -> None:
    registry.hold = True
    async with opener(pull="missing", pull_stall_s=1.0) as runtime, listening(runtime) as told:
        with anyio.fail_after(DEADLINE_S), pytest.raises(errors.Unavailable, match=r"nothing came for 1 s") as caught:
            await runtime.fetch(image, {"agent_id": "a1"})
        await until(lambda: told[-1].state == "failed")
    assert image in caught.value.message
    assert "nothing came for 1 s" in told[-1].message
    await until(given_up)


@pytest.mark.parametrize("fault", ["hold", "cut"])  # of one that breaks off, the engine tries again for long
async def test_a_pull_that_takes_too_long_is_given_up_with_the_reason(
    opener: Any, registry: Registry, image: str, fault: str
) -> None:
    setattr(registry, fault, True)
    async with opener(pull="missing", pull_timeout_s=1.0) as runtime:
        with anyio.fail_after(DEADLINE_S), pytest.raises(errors.Unavailable, match="it took longer than 1 s"):
            await runtime.fetch(image, {})


@pytest.mark.parametrize("fault", ["wrong", "missing"])
async def test_what_a_registry_does_wrong_is_told_in_its_words(
    opener: Any, registry: Registry, image: str, fault: str
) -> None:
    registry.wrong = fault == "wrong"
    wanted = image.replace("team/agent", "team/none") if fault == "missing" else image
    async with opener(pull="missing") as runtime, listening(runtime) as told:
        with anyio.fail_after(DEADLINE_S), pytest.raises(errors.Unavailable, match="cannot be pulled") as caught:
            await runtime.fetch(wanted, {})
        await until(lambda: told[-1].state == "failed")
    assert told[-1].message in caught.value.message


def test_image_pull_tells_lines_and_json(
    registry: Registry, image: str, dockerd: Dockerd, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("DOCKER_HOST", f"unix://{dockerd.socket}")
    monkeypatch.setenv("KANDEV_HOME", str(tmp_path / "home"))
    assert run(["image", "pull", image]) == 0
    told = capsys.readouterr()
    assert told.out.startswith(f"Pulled {image} (")
    assert f"{image}: 2 of 2 layers, 4 of 4 MB" in told.err
    other = registry.add("team/other", [layer("three", 100_000)])
    assert run(["image", "pull", other, "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["name"] == other
    steps = [json.loads(line) for line in told.err.splitlines() if line.startswith("{")]  # among lines of the log
    assert (steps[0]["state"], steps[-1]["state"], steps[-1]["layers_done"]) == ("pulling", "pulled", 1)


async def test_who_follows_a_task_hears_of_the_pull_and_a_stopped_agent_ends_it(
    registry: Registry, image: str, dockerd: Dockerd, given_up: Callable[[], bool], tmp_path: Path
) -> None:
    registry.hold = True
    host: HostProcess = host_of(dockerd.socket, tmp_path, image=image, pull="missing")
    await anyio.to_thread.run_sync(host.start)
    try:
        async with Client.connect(host.url, host.token) as client:
            board = (await client.call("board.create", {"name": "Work"}))["board"]["id"]
            task = {"board_id": board, "title": "t", "description": ""}
            task_id = (await client.call("task.create", task))["task"]["id"]
            launch = {"task_id": task_id, "agent_type": "scripted"}
            agent_id = (await client.call("agent.launch", launch))["agent"]["id"]
            with anyio.fail_after(DEADLINE_S):
                async for message in client.notifications():
                    if message.action == "image.pulling" and message.payload["bytes_done"]:
                        break
            assert message.seq is None
            assert (message.payload["image"], message.payload["state"]) == (image, "pulling")
            assert (message.payload["task_id"], message.payload["agent_id"]) == (task_id, agent_id)
            stopped = (await client.call("agent.stop", {"agent_id": agent_id}, DEADLINE_S))["agent"]
            assert stopped["status"] == "STOPPED"
            await until(given_up)
    finally:
        await anyio.to_thread.run_sync(host.stop)


def test_a_command_waits_for_its_image_shows_the_pull_and_runs(
    registry: Registry, dockerd: Dockerd, sdk: docker.APIClient, tmp_path: Path
) -> None:
    registry.hold = True
    made = sdk.create_container(IMAGE, ["true"])["Id"]
    image = registry.add("team/base", [b"".join(sdk.export(made))])
    sdk.remove_container(made)
    host: HostProcess = host_of(dockerd.socket, tmp_path, f'image = "{image}"', pull="missing")
    host.start()
    try:
        command = [sys.executable, "-m", "kandev_host", "exec", "echo here"]
        env = {**os.environ, **host.env, "KANDEV_HOME": str(host.home)}
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
            try:
                assert running.stdout is not None
                assert running.stderr is not None
                told = [running.stderr.readline(), running.stderr.readline()]
                registry.go.set()
                out, rest = running.communicate(timeout=DEADLINE_S)
            finally:
                running.kill()
    finally:
        host.stop()
    assert (running.returncode, out) == (0, "here\n"), rest
    assert told[0] == f"{image}: asking its registry\n"
    assert told[1].startswith(f"{image}: 0 of 1 layers")
    assert rest.splitlines()[-1].startswith(f"{image}: 1 of 1 layers")


def test_what_an_engine_says_of_sizes_is_not_trusted() -> None:
    layers = Layers("x")
    for size in (-1, 1 << 60, "7", None, True, 3.5):
        layers.add({"id": "a", "status": "Downloading", "progressDetail": {"current": size, "total": size}})
    layers.add({"id": "b", "status": "Already exists"})
    layers.add({"status": "Digest: sha256:1"})
    for number in range(5000):
        layers.add({"id": f"layer{number}", "status": "Pulling fs layer"})
    told = layers.told()
    assert (told.layers_done, told.layers_total, told.bytes_done, told.bytes_total) == (1, 1024, 0, 0)
