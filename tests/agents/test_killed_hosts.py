"""A host that is killed while a released agent works: the queue goes on by itself, a person by `agent.resume`."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from released import FILE, Released, each_agent
from runs import Run, running

pytestmark = [pytest.mark.anyio, pytest.mark.agents]


@pytest.fixture(scope="module")
def host(new_host: Callable[[], Any]) -> Iterator[Any]:
    """One that may be killed, and is started again by who kills it."""
    host = new_host()
    host.start()
    yield host
    host.end(signal.SIGTERM)


async def asked_again(run: Run) -> dict[str, Any]:
    """The permission that another run asks for than the one that was killed."""
    while True:
        asked: dict[str, Any] = (await run.until("permission.requested"))["permission"]
        if asked["agent_id"] != run.agent_id:
            return asked


@each_agent
async def test_the_queue_goes_on_after_its_host_was_killed(
    host: Any, fake_models: Any, repository: Callable[..., Path], agent: Released
) -> None:
    async with running(host) as run:
        await run.start(agent, repository(), fake_models.script(*agent.steps()))
        await run.until("permission.requested")
        host.end(signal.SIGKILL)
    host.start()
    async with running(host) as again:
        await again.follow(run)
        await again.answer(await asked_again(again), "allow_once")
        await again.until("acp.result")
        diff = await again.diff()
    assert [file["path"] for file in diff["files"]] == [FILE]
    before, after = again.rows("sessions")
    assert after["opened"] in agent.opens_after_a_kill | {"new"}
    assert (before["acp_session_id"] == after["acp_session_id"]) == (after["opened"] in {"resume", "load"})
    assert [row["failure"] for row in again.rows("agent_instances")] == ["host_died", None]


@each_agent
async def test_a_person_goes_on_with_a_session_of_a_killed_host(
    host: Any, fake_models: Any, models: Any, repository: Callable[..., Path], agent: Released
) -> None:
    first, second = (fake_models.script({"text": f"DONE-{turn}"}) for turn in (1, 2))
    async with running(host) as run:
        await run.launch(agent, repository(), first)
        await run.until("acp.result")
        host.end(signal.SIGKILL)
    host.start()
    async with running(host) as again:
        await again.follow(run)
        await again.resume(second)
        while "DONE-2" not in (await again.until("acp.result"))["summary"]:
            pass
        await again.stop()
    assert again.rows("sessions")[-1]["opened"] in agent.opens_after_a_kill
    # Its answer may have been lost with the process: Claude Code writes it down a little later.
    assert models.tally(second).who_said(first) == {"user"}
