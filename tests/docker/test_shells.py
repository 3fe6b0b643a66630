"""Shells in containers: hostile commands, and what only a container can do to its shell."""

from __future__ import annotations

import os
from typing import Any

import anyio
import pytest

from kandev_docker.containers import Opening
from kandev_docker.process import ContainerProcess
from kandev_docker.shells import open_shell
from kandev_host import ProcessSpec, errors
from tests.sandbox.hostile_commands import CASES, Case, judged

from .conftest import IMAGE

pytestmark = pytest.mark.anyio
DEADLINE_S = 60
# One or two of each kind; all of them are tried in jails (tests/sandbox/test_hostile_commands.py).
CHOSEN = {
    "exit", "exec redirects for good", "kill everything", "stop its parent", "hang up its parent",
    "unterminated heredoc", "redefined builtins", "PATH gone", "readonly", "an EXIT trap that exits",
    "stderr first, then both", "what looks like an answer", "a daemon", "a hundred orphans", "a stopped background job",
    "one that ignores every signal", "a daemon and a wait", "its own state forged", "the way of the answers flooded",
    "the control folder",
}  # fmt: skip


def shell_of(**fields: Any) -> ProcessSpec:
    return ProcessSpec(workspace_id="w1", command=("/bin/sh",), **fields)


def folders() -> set[str]:
    return {name for name in os.listdir("/dev/shm") if name.startswith(f"kandev-shell-{os.getpid()}-")}


@pytest.mark.parametrize("case", [case for case in CASES if case.name in CHOSEN], ids=lambda case: case.name)
async def test_the_session_is_right_after(runtime: Any, case: Case) -> None:
    with anyio.fail_after(DEADLINE_S):
        async with runtime.open_shell(shell_of()) as session:
            await judged(session, case)


async def test_an_orphan_that_dies_while_the_answer_waits_does_not_cost_it(runtime: Any) -> None:
    """The shell of this image is busybox, whose printf gives up when a signal comes: one answer in fifteen was lost."""
    flood = "yes 'deadbeef 0' >/proc/1/fd/1 & sleep 0.1; kill $!; echo a"
    with anyio.fail_after(DEADLINE_S):
        async with runtime.open_shell(shell_of()) as session:
            for _ in range(60):
                assert (await session.run(flood)).stdout == b"a\n"


async def test_the_first_process_of_its_container_is_the_shells_own(runtime: Any) -> None:
    async with runtime.open_shell(shell_of()) as session:
        done = await session.run("tr '\\0' ' ' < /proc/1/cmdline; ls -d /kandev")
        assert done.stdout == b"/bin/sh /kandev/supervisor /bin/sh /kandev\n"


async def test_a_shells_path_is_that_of_the_image(runtime: Any, sdk: Any) -> None:
    (path,) = [pair for pair in sdk.inspect_image(IMAGE)["Config"]["Env"] if pair.startswith("PATH=")]
    async with runtime.open_shell(shell_of()) as session:
        assert (await session.run("echo PATH=$PATH")).stdout.decode() == f"{path}\n"


async def test_a_shell_whose_container_is_removed_is_unavailable(runtime: Any, sdk: Any) -> None:
    with anyio.fail_after(DEADLINE_S):
        async with runtime.open_shell(shell_of()) as session:
            await session.run("true")
            await anyio.to_thread.run_sync(lambda: sdk.remove_container(session.ref, force=True))
            with pytest.raises(errors.Unavailable, match="gone"):
                await session.run("true")


async def test_a_shell_leaves_neither_container_nor_folder(runtime: Any, sdk: Any) -> None:
    before = folders()
    async with runtime.open_shell(shell_of()) as session:
        await session.run("(setsid sleep 600 &)")
    assert sdk.containers(all=True) == []
    assert folders() <= before


async def test_where_containers_run_elsewhere_there_is_no_shell(runtime: Any) -> None:
    """Their processes are not seen, so that nothing could end a command and go on."""

    class Elsewhere:
        def __init__(self, opened: Any) -> None:
            self._opened = opened

        async def __aenter__(self) -> ContainerProcess:
            process: ContainerProcess = await self._opened.__aenter__()
            process.init = None
            return process

        async def __aexit__(self, *error: Any) -> None:
            await self._opened.__aexit__(*error)

    spec = shell_of()
    with pytest.raises(errors.Unavailable, match="not seen from here"):
        async with open_shell(lambda change: Elsewhere(runtime._spawn(spec, Opening(shell=change))), spec):
            pass
