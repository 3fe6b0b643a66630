"""What a container is shown is what was looked at, whoever swaps it meanwhile."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import docker
import pytest

from kandev_docker.engine import Engine
from kandev_host import Mount, ProcessSpec, errors

pytestmark = pytest.mark.anyio
RUNS = 8


def shows(source: Path) -> ProcessSpec:
    return ProcessSpec(workspace_id="w1", command=("cat", "/shown/file"), mounts=(Mount(str(source), "/shown"),))


@pytest.fixture
def swap(tmp_path: Path) -> Callable[[str], None]:
    """Has `link` lead to the folder "mine", or to "secret", which lies where no container may look."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("mine")
    secret = tmp_path / "data/secret"
    secret.mkdir(parents=True)
    (secret / "file").write_text("secret")
    folders = {"mine": tmp_path / "mine", "secret": secret}

    def swapped(name: str) -> None:
        new = tmp_path / f"new-{threading.get_ident()}"
        new.symlink_to(folders[name])
        os.replace(new, tmp_path / "link")

    swapped("mine")
    return swapped


@pytest.mark.parametrize("moment", ["make the container", "start the container"])
async def test_a_mount_that_is_swapped_after_it_was_looked_at_ends_the_container(
    runtime: Any, sdk: docker.APIClient, tmp_path: Path, swap: Any, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    call = Engine.call

    async def swapping(self: Engine, *arguments: Any, **fields: Any) -> Any:
        if fields.get("what") == moment:
            swap("secret")
        return await call(self, *arguments, **fields)

    assert (await runtime.run(shows(tmp_path / "link"))).stdout == b"mine"
    monkeypatch.setattr(Engine, "call", swapping)
    with pytest.raises(errors.Unavailable, match="was replaced while the container was started"):
        await runtime.run(shows(tmp_path / "link"))
    assert sdk.containers(all=True) == []
    monkeypatch.undo()
    with pytest.raises(errors.ValidationFailed):
        await runtime.run(shows(tmp_path / "link"))


async def test_a_mount_that_is_swapped_all_the_time_shows_nothing_else(runtime: Any, tmp_path: Path, swap: Any) -> None:
    with suppress(errors.KandevError):
        await runtime.run(shows(tmp_path / "link"))  # what is asked of the image once is known now
    with _swapping(swap):
        for _ in range(RUNS):
            with suppress(errors.Unavailable, errors.ValidationFailed):
                assert (await runtime.run(shows(tmp_path / "link"))).stdout == b"mine"


async def test_a_log_in_that_is_swapped_all_the_time_is_never_another_file(
    runtime: Any, tmp_path: Path, swap: Any
) -> None:
    """Of what only root reads a copy is shown: it is made of what was looked at."""
    for file in (tmp_path / "mine/file", tmp_path / "data/secret/file"):
        file.chmod(0o600)
    login = ProcessSpec(
        workspace_id="w1", command=("cat", "/shown"), mounts=(Mount(str(tmp_path / "link/file"), "/shown"),)
    )
    assert (await runtime.run(login)).stdout == b"mine"
    with _swapping(swap):
        for _ in range(RUNS):
            with suppress(errors.Unavailable, errors.ValidationFailed):
                assert (await runtime.run(login)).stdout == b"mine"


@contextmanager
def _swapping(swap: Callable[[str], None]) -> Iterator[None]:
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            swap("secret")
            over.wait(0.003)
            swap("mine")
            over.wait(0.003)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
