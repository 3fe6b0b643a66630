"""The main job on real input: released agents, in the jail, over the socket, down to the database.

No internet and no model: the only thing that the jail can reach is the fake model server.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from released import FILE, TEXT, Released, each_agent, released
from runs import running

pytestmark = [pytest.mark.anyio, pytest.mark.agents]


@each_agent
async def test_an_allowed_write_is_in_the_diff_and_everything_in_the_database(
    host: Any, fake_models: Any, repository: Callable[..., Path], agent: Released
) -> None:
    project = repository()
    async with running(host) as run:
        await run.start(agent, project, fake_models.script(*agent.steps()))
        result = await run.allow()
        diff = await run.diff()

    assert (result["stop_reason"], "MODEL-DONE" in result["summary"]) == ("end_turn", True)
    assert f"+{TEXT}" in diff["diff"]
    assert FILE in [file["path"] for file in diff["files"]]
    assert not (project / FILE).exists()
    updates = {update["sessionUpdate"] for update in run.updates()}
    assert {agent.shows_a_call_by, "tool_call_update", "agent_message_chunk"} <= updates

    (turn,) = run.rows("turns")
    assert (turn["state"], turn["stop_reason"]) == ("ended", "end_turn")
    (session,) = run.rows("sessions")
    assert (session["protocol_version"], session["cwd"]) == (1, "/workspace")
    (permission,) = run.rows("permission_requests")
    assert permission["state"] == "allowed"
    (usage,) = run.rows("usage")
    assert (usage["turn_id"], usage["source"]) == (turn["id"], "agent")


@each_agent
async def test_a_rejected_write_leaves_nothing(
    host: Any, fake_models: Any, repository: Callable[..., Path], agent: Released
) -> None:
    async with running(host) as run:
        await run.start(agent, repository(), fake_models.script(*agent.steps()))
        asked = await run.until("permission.requested")
        await run.answer(asked["permission"], "reject_once")
        result = await run.until("acp.result")
        diff = await run.diff()
    assert result["stop_reason"] == agent.rejected_ends
    assert [file["path"] for file in diff["files"]] == []
    assert [row["state"] for row in run.rows("permission_requests")] == ["rejected"]


@each_agent
async def test_a_repository_cannot_allow_what_the_preset_asks_for(
    host: Any, fake_models: Any, repository: Callable[..., Path], agent: Released
) -> None:
    async with running(host) as run:
        await run.start(agent, repository(**agent.allowing), fake_models.script(*agent.steps()))
        asked = await run.until("permission.requested")
        await run.answer(asked["permission"], "reject_once")
        await run.until("acp.result")
        diff = await run.diff()
    assert FILE not in [file["path"] for file in diff["files"]]


@each_agent
async def test_a_cancel_while_the_agent_waits_for_the_user_ends_the_turn(
    host: Any, fake_models: Any, repository: Callable[..., Path], agent: Released
) -> None:
    async with running(host) as run:
        await run.start(agent, repository(), fake_models.script(*agent.steps()))
        await run.until("permission.requested")
        await run.client.call("agent.cancel", {"agent_id": run.agent_id})
        result = await run.until("acp.result")
    assert result["stop_reason"] == "cancelled"
    assert [row["state"] for row in run.rows("permission_requests")] == ["cancelled"]


@each_agent
async def test_a_cancel_while_the_model_speaks_ends_the_turn(
    host: Any, fake_models: Any, repository: Callable[..., Path], agent: Released
) -> None:
    async with running(host) as run:
        speech = {"text": "word {n} ", "repeat": 2400, "delay": 0.05}
        await run.start(agent, repository(), fake_models.script(speech))
        await run.until("acp.log", "agent_message_chunk")
        await run.client.call("agent.cancel", {"agent_id": run.agent_id})
        result = await run.until("acp.result")
    assert (result["stop_reason"], result["status"]) == ("cancelled", "cancelled")


@each_agent
async def test_a_failure_of_the_model_fails_the_turn_and_says_why(
    host: Any, fake_models: Any, repository: Callable[..., Path], agent: Released
) -> None:
    async with running(host) as run:
        await run.start(agent, repository(), fake_models.script({"error": 400, "message": "The model is out of order"}))
        error = await run.until("acp.error")
    assert (error["code"], "The model is out of order" in error["message"]) == ("TURN_FAILED", True)
    (turn,) = run.rows("turns")
    assert (turn["state"], turn["stop_reason"]) == ("failed", "end_turn" if agent.error_is_text else None)


async def test_codex_keeps_its_own_sandbox_within_the_jail(
    host: Any, fake_models: Any, models: Any, repository: Callable[..., Path]
) -> None:
    codex = released("codex")
    unasked = {"call": "exec_command", "args": {"cmd": f"cat README.md; touch {FILE}"}}
    script = fake_models.script(unasked, {"text": "MODEL-DONE"})
    async with running(host) as run:
        await run.start(codex, repository(), script)
        await run.until("acp.result")
        diff = await run.diff()
    (told,) = models.tally(script).results
    assert ("# A project" in told, "Read-only file system" in told) == (True, True)
    assert (diff["files"], run.rows("permission_requests")) == ([], [])
