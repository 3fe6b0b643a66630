from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import docker
import pytest

from kandev_docker import DockerSettings, open_runtime
from kandev_host import Environment
from kandev_host.testing import scripted_agent

from .dockerd import Dockerd

IMAGE = "kandev-base"
LEAN = Path(__file__).resolve().parents[2] / "config/images/lean"
LEAN_S = 300
AGENT = {Path(scripted_agent.__file__): "/opt/scripted_agent.py"}
# Beside those there may be one beside a workspace, as long as its host lives.
OF_AGENTS = {"label": "kandev.label.agent_id"}


# Of the contract, what podman does in its own way; it takes a second or two for each container.
OF_PODMAN = {
    "test_stdout_and_stderr_are_apart", "test_stdin_can_be_ended_while_the_outputs_go_on",
    "test_every_byte_passes_as_it_is", "test_who_is_not_read_waits", "test_terminate_reaches_the_command",
    "test_kill_ends_what_does_not_want_to", "test_the_environment_is_what_was_given",
    "test_a_running_process_is_listed_with_its_labels", "test_of_a_killed_host_nothing_is_left",
    "test_what_outlives_its_host_is_adopted", "test_memory_is_bounded_and_its_ending_says_so",
    "test_processes_are_bounded_and_leave_the_others_alone", "test_what_is_protected_is_not_changed",
    "test_what_the_allowlist_does_not_name_is_denied_and_told", "test_directory_exports_and_umask_carry_over",
    "test_a_command_that_takes_too_long_is_ended_and_the_shell_goes_on",
    "test_a_terminal_shows_types_and_resizes", "test_a_terminal_is_listed_measured_and_ended",
}  # fmt: skip


# What the engine of a fixture is made of.
NEEDED = {
    "dockerd": ("dockerd",),
    "podman": ("podman",),
    "rootless": ("dockerd", "podman", "rootlesskit", "newuidmap"),
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A real engine needs root, and Debian's packages; CI has all of it."""
    here = Path(__file__).parent
    if os.environ.get("KANDEV_TEST_PODMAN") != "all":
        left = [item for item in items if "TestPodman" in item.nodeid and item.name.split("[")[0] not in OF_PODMAN]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]
    for item in items:
        fixtures = NEEDED.keys() & set(getattr(item, "fixturenames", ()))
        needed = sorted({name for fixture in fixtures for name in NEEDED[fixture]})
        if not item.path.is_relative_to(here) or not needed:
            continue
        missing = "root" if os.geteuid() != 0 else ", ".join(name for name in needed if shutil.which(name) is None)
        if missing:
            item.add_marker(pytest.mark.skip(reason=f"a container engine needs {missing}"))
        elif item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(LEAN_S + 60))  # the first of them makes the image


def give_image(socket: str, tag: str = IMAGE, files: Mapping[Path, str] = AGENT) -> None:
    """The lean image with these files in it, as `tag`."""
    cache = Path(os.environ.get("KANDEV_TEST_AGENTS") or Path.home() / ".cache/kandev-host-tests") / "lean"
    command = [sys.executable, LEAN, "--cache", cache, "--engine", f"unix://{socket}", "--tag", tag]
    command += [word for path, inside in files.items() for word in ("--add", f"{path}:{inside}")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=LEAN_S)


class Engine(Protocol):
    socket: str

    def start(self) -> None: ...

    def close(self) -> None: ...


E = TypeVar("E", bound=Engine)


def serving(engine: E) -> Iterator[E]:
    """Started, and closed at the end; its image is `kandev-base`."""
    try:
        engine.start()
        give_image(engine.socket)
        yield engine
    finally:
        engine.close()


@pytest.fixture(scope="session")
def dockerd() -> Iterator[Dockerd]:
    """One engine for all tests."""
    yield from serving(Dockerd())


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
