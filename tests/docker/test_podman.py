"""podman, through its Docker-compatible socket, held to the contract of all runtimes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import docker
import pytest

from kandev_docker import DockerSettings, open_runtime
from kandev_host import Environment, ProcessSpec
from kandev_host.client import Client
from kandev_host.testing import RuntimeContract

from ..e2e.conftest import repository  # noqa: F401
from .conftest import IMAGE, serving
from .podman import Podman
from .test_turn import host_of, start, until


@pytest.fixture(scope="session")
def podman() -> Iterator[Podman]:
    yield from serving(Podman())


@pytest.fixture
def left(podman: Podman) -> Iterator[docker.APIClient]:
    """The engine, asked beside the runtime. Afterwards no container is left."""
    with docker.APIClient(f"unix://{podman.socket}", timeout=60) as client:
        yield client
        found = client.containers(all=True)
        for container in found:
            client.remove_container(container["Id"], force=True, v=True)
        assert found == []


class TestPodman(RuntimeContract):
    """All of it with KANDEV_TEST_PODMAN=all, else OF_PODMAN."""

    plugin = "kandev_docker"
    lacks = frozenset({"adoption"})
    processes_limit = 64

    @pytest.fixture
    def settings(self, podman: Podman, left: docker.APIClient) -> Mapping[str, Any]:
        return {
            "socket": podman.socket,
            "image": IMAGE,
            "pull": "never",
            "max_processes": self.processes_limit,
            "disk_watch_interval_s": 0.1,
        }


@pytest.mark.anyio
async def test_a_container_of_podman_is_confined_as_one_of_docker(
    podman: Podman, left: docker.APIClient, tmp_path: Path
) -> None:
    settings = DockerSettings(socket=podman.socket, image=IMAGE, pull="never")
    script = "id -u; grep -E 'CapEff|CapBnd|NoNewPrivs|Seccomp:' /proc/self/status; touch /x || echo closed"
    async with open_runtime(settings, Environment(str(tmp_path / "data"), "0")) as runtime:
        found = await runtime.probe()
        await runtime.prepare("w1")
        command = ("sh", "-c", script + "; ls /sys/class/net")
        lines = (await runtime.run(ProcessSpec(workspace_id="w1", command=command))).stdout.decode().split()
        async with runtime.spawn(ProcessSpec(workspace_id="w1", command=("cat",), adoptable=True)) as process:
            assert not process.adoptable
    assert found.ok
    assert found.details["engine"] == "podman"
    assert str(found.details["adoption"]).startswith("no: ")
    owner = os.stat(tmp_path / "data/containers/w1/workspace").st_uid
    assert lines[0] == str(owner)
    expected = ["CapEff:", "0" * 16, "CapBnd:", "0" * 16, "NoNewPrivs:", "1", "Seccomp:", "2", "closed", "lo"]
    assert lines[1:] == expected


@pytest.mark.anyio
async def test_a_whole_turn_in_a_container_of_podman(
    podman: Podman,
    left: docker.APIClient,
    repository: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    host = host_of(podman.socket, tmp_path)
    await anyio.to_thread.run_sync(host.start)
    try:
        async with Client.connect(host.url, host.token) as client:
            task_id, agent_id = await start(client, repository_url=str(repository))
            permission = (await until(client, "permission.requested"))["permission"]
            assert [each["Labels"]["kandev.label.agent_id"] for each in left.containers()] == [agent_id]
            option = next(item["optionId"] for item in permission["options"] if item["kind"] == "allow_once")
            await client.call("permission.respond", {"permission_id": permission["id"], "option_id": option})
            assert (await until(client, "acp.result"))["stop_reason"] == "end_turn"
            await until(client, "task.state_changed")
            diff = await client.call("workspace.diff", {"task_id": task_id})
        assert "hello from a container" in diff["diff"]
    finally:
        await anyio.to_thread.run_sync(host.stop)
