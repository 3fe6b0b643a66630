from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from kandev_docker import DockerSettings, open_runtime
from kandev_host import Environment
from kandev_host.testing import scripted_agent

from .dockerd import Dockerd

IMAGE = "kandev-base"
LEAN = Path(__file__).resolve().parents[2] / "config/images/lean"
LEAN_S = 300
# Beside those there may be one beside a workspace, as long as its host lives.
OF_AGENTS = {"label": "kandev.label.agent_id"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A real engine needs root, and Debian's docker.io; CI has both."""
    here = Path(__file__).parent
    missing = "root" if os.geteuid() != 0 else "docker.io" if shutil.which("dockerd") is None else None
    for item in items:
        if not item.path.is_relative_to(here) or "dockerd" not in getattr(item, "fixturenames", ()):
            continue
        if missing:
            item.add_marker(pytest.mark.skip(reason=f"a Docker Engine needs {missing}"))
        elif item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(LEAN_S + 60))  # the first of them makes the image


@pytest.fixture(scope="session")
def dockerd() -> Iterator[Dockerd]:
    """One engine for all tests; its image `kandev-base` is the lean one, with the scripted agent in it."""
    engine = Dockerd()
    try:
        engine.start()
        cache = Path(os.environ.get("KANDEV_TEST_AGENTS") or Path.home() / ".cache/kandev-host-tests") / "lean"
        command = [sys.executable, LEAN, "--cache", cache, "--engine", f"unix://{engine.socket}", "--tag", IMAGE]
        command += ["--add", f"{scripted_agent.__file__}:/opt/scripted_agent.py"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=LEAN_S)
        yield engine
    finally:
        engine.close()


@pytest.fixture
def sdk(dockerd: Dockerd) -> Iterator[docker.APIClient]:
    """The engine, asked beside the runtime. Afterwards no container is left."""
    with docker.APIClient(f"unix://{dockerd.socket}", timeout=60) as client:
        yield client
        left = client.containers(all=True)
        for container in left:
            client.remove_container(container["Id"], force=True, v=True)
        assert left == []


Opener = Callable[..., Any]


@pytest.fixture
def opener(dockerd: Dockerd, sdk: docker.APIClient, tmp_path: Path) -> Opener:
    """Opens a runtime on the data folder of this test."""

    def opened(**fields: Any) -> Any:
        settings = DockerSettings(**{"socket": dockerd.socket, "image": IMAGE, "pull": "never", **fields})
        return open_runtime(settings, Environment(str(tmp_path / "data"), "0"))

    return opened


@pytest.fixture
async def runtime(opener: Opener, anyio_backend: str) -> AsyncIterator[Any]:
    async with opener() as made:
        await made.prepare("w1")
        yield made
