"""Engines of an ordinary user, and that user's host. They bound nothing on cgroups of version 1."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import anyio
import docker
import pytest

from kandev_docker import DockerSettings, open_runtime
from kandev_host import Environment

from .conftest import serving
from .rootless import UID, Rootless, RootlessDocker, RootlessPodman
from .test_ordinary_user import run


@pytest.fixture(params=[RootlessDocker, RootlessPodman])
def rootless(request: pytest.FixtureRequest) -> Iterator[Rootless]:
    if request.param is RootlessPodman and Path("/sys/fs/cgroup/cgroup.controllers").exists():
        pytest.skip("on cgroups of version 2 a rootless podman needs a session of systemd")
    yield from serving(request.param())


@pytest.mark.anyio
async def test_a_rootless_engine_serves_the_host_of_its_user(
    rootless: Rootless, tmp_path: Path, becoming: Callable[..., list[str]]
) -> None:
    home = rootless.folder / "user"  # its parents let the engine through
    home.mkdir(mode=0o700)
    with docker.APIClient(f"unix://{rootless.socket}", timeout=60) as client:
        told = await anyio.to_thread.run_sync(partial(run, becoming, home, UID, socket=rootless.socket))
        assert "cannot bound memory and processes of a container: it is rootless" in told["unusable"]
        more = {"socket": rootless.socket, "require_limits": False}
        told = await anyio.to_thread.run_sync(partial(run, becoming, home, UID, **more))
        assert client.containers(all=True) == []
    # The root of its containers is that user.
    assert (told["uids"], told["owner"]) == ([UID, 0], UID)
    # Nobody counts what is in a container, so that no two commands share one.
    text, shared = told["beside"]
    assert (text.partition("\n")[0], shared) == ("text", 0)
    assert (told["mount"], told["killed"], told["shell"]) == ("mine", -9, "42\n")
    assert (told["said"], told["adoptable"]) == ("said", isinstance(rootless, RootlessDocker))
    for refused in ("allowlist", "service"):
        assert "This host does not run as root" in told[refused]
    assert "protected by root beside the engine only" in told["protected"]
    # Root is not its user.
    settings = DockerSettings(require_limits=False, socket=rootless.socket)
    async with open_runtime(settings, Environment(str(tmp_path / "data"), "0")) as runtime:
        assert "another user's" in str((await runtime.probe()).reason)
