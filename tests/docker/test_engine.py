"""What is made of an engine that does not answer, or cannot keep what a container is promised."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import anyio
import pytest

from kandev_docker import DockerSettings, open_runtime
from kandev_host import Environment, ProcessSpec, Runtime, errors
from kandev_host.models import Limits

from .stand_in import StandIn, standing_in

pytestmark = pytest.mark.anyio
DEADLINE_S = 60
HANG_S = 3
ROOTLESS = ["name=seccomp,profile=default", "name=rootless"]
PODMAN = {"Version": "4", "ApiVersion": "1.41", "Components": [{"Name": "Podman Engine"}]}
NO_MEMORY, NO_PROCESSES = {"MemoryLimit": False}, {"PidsLimit": False}
SCRIPT = ProcessSpec(workspace_id="w1", command=("./script",))


@pytest.fixture
async def engine(anyio_backend: str) -> AsyncIterator[StandIn]:
    async with standing_in() as made:
        yield made


def opened(engine: StandIn, folder: Path, **fields: Any) -> AbstractAsyncContextManager[Runtime]:
    settings = DockerSettings(socket=engine.path, pull="never", **fields)
    return open_runtime(settings, Environment(str(folder / "data"), "0"))


@pytest.mark.parametrize(
    ("silent", "did_not"),
    [("/start", "start the container"), ("/create", "make the container")],
)
async def test_an_engine_that_hangs_is_named_in_time(
    engine: StandIn, tmp_path: Path, silent: str, did_not: str
) -> None:
    async with opened(engine, tmp_path, engine_timeout_s=HANG_S) as runtime:
        await runtime.prepare("w1")
        engine.silent = {silent}
        with anyio.fail_after(DEADLINE_S), pytest.raises(errors.Unavailable) as caught:
            async with runtime.spawn(SCRIPT):
                pytest.fail("nothing runs")
    assert f"did not {did_not} within {HANG_S} s" in caught.value.message
    assert "journalctl" in caught.value.details["fix"]
    assert engine.containers == {}


async def test_what_a_hanging_engine_made_is_removed_when_it_answers_again(engine: StandIn, tmp_path: Path) -> None:
    async with opened(engine, tmp_path, engine_timeout_s=HANG_S) as runtime:
        await runtime.prepare("w1")
        engine.silent = {"/start", "DELETE"}
        with anyio.fail_after(DEADLINE_S), pytest.raises(errors.Unavailable, match="did not start the container"):
            async with runtime.spawn(SCRIPT):
                pytest.fail("nothing runs")
        assert len(engine.containers) == engine.made == 1
        engine.silent = set()
        with anyio.fail_after(DEADLINE_S):
            while engine.containers:
                await anyio.sleep(0.05)


@pytest.mark.parametrize(
    ("version", "info", "problem", "fix"),
    [
        ({}, NO_MEMORY, "cannot bound memory of a container.", "cgroup controllers (memory)"),
        ({}, NO_MEMORY | NO_PROCESSES, "cannot bound memory and processes of a container.", "(memory, pids)"),
        ({}, {"SecurityOptions": ROOTLESS, "CgroupVersion": "1"}, "on cgroups of version 1", "of version 2"),
        (
            {},
            {"SecurityOptions": ROOTLESS} | NO_PROCESSES,
            "cannot bound processes of a container: it is rootless, and",
            "Delegate=",
        ),
        # It says what the kernel has, and that of a security option it does not.
        (PODMAN, {"Rootless": True, "CgroupVersion": "1"}, "cannot bound memory and processes", "of version 2"),
    ],
)
async def test_an_engine_without_limits_is_refused_unless_the_settings_do_without(
    engine: StandIn, tmp_path: Path, version: dict[str, Any], info: dict[str, Any], problem: str, fix: str
) -> None:
    engine.version |= version
    engine.info |= info
    async with opened(engine, tmp_path) as runtime:
        await runtime.prepare("w1")
        found = await runtime.probe()
        with pytest.raises(errors.Unavailable) as caught:
            async with runtime.spawn(SCRIPT):
                pytest.fail("nothing runs")
    assert not found.ok
    assert (caught.value.message, caught.value.details["fix"]) == (found.reason, found.fix)
    assert problem in str(found.reason)
    assert fix in str(found.fix)
    assert "require_limits = false" in str(found.fix)
    assert engine.made == 0
    async with opened(engine, tmp_path, require_limits=False) as runtime:
        found = await runtime.probe()
    assert (found.ok, found.details["limits"]) == (True, "partial")
    assert fix in found.details["limits_fix"]


async def test_a_run_with_a_limit_of_cpus_needs_an_engine_that_has_it(engine: StandIn, tmp_path: Path) -> None:
    engine.info |= {"SecurityOptions": ROOTLESS, "CpuCfsQuota": False}  # what systemd hands on if nobody says more
    bounded = ProcessSpec(workspace_id="w1", command=("./script",), limits=Limits(cpu_limit="1"))
    async with opened(engine, tmp_path) as runtime:
        await runtime.prepare("w1")
        found = await runtime.probe()
        assert (found.ok, found.details["limits"]) == (True, "partial")
        with pytest.raises(errors.Unavailable, match="cannot bound CPUs of a container"):
            async with runtime.spawn(bounded):
                pytest.fail("nothing runs")
    async with opened(engine, tmp_path, cpu_limit=1) as runtime:
        assert not (await runtime.probe()).ok


@pytest.mark.parametrize("require_limits", [True, False])
async def test_a_rootless_engine_of_another_user_is_refused(
    engine: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, require_limits: bool
) -> None:
    engine.info["SecurityOptions"] = ROOTLESS
    async with opened(engine, tmp_path, require_limits=require_limits) as runtime:
        assert (await runtime.probe()).ok
        own = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: own + 1)
        found = await runtime.probe()
    assert "another user's" in str(found.reason)
    assert "run the host as the engine's user" in str(found.fix)


async def test_the_socket_of_a_rootless_engine_is_named_where_there_is_no_other(
    engine: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "podman/podman.sock"
    own.parent.mkdir()
    own.symlink_to(engine.path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    settings = DockerSettings(socket=str(tmp_path / "none"))
    async with open_runtime(settings, Environment(str(tmp_path / "data"), "0")) as runtime:
        found = await runtime.probe()
    assert f'socket = "{own}"' in str(found.fix)
