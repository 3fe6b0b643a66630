"""What the host answers in place of a person, with agents that really ask and a model that really goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from released import FILE, TEXT, released
from runs import running

pytestmark = [pytest.mark.anyio, pytest.mark.agents]


@pytest.mark.parametrize("name", ["claude", "codex"])
async def test_read_only_refuses_a_write_without_asking_anybody(
    host: Any, fake_models: Any, repository: Callable[..., Path], name: str
) -> None:
    agent = released(name)
    async with running(host) as run:
        await run.start(agent, repository(), fake_models.script(*agent.steps()), preset="read-only")
        result = await run.until("acp.result")
        diff = await run.diff()
    (permission,) = run.rows("permission_requests")
    assert (permission["state"], permission["decided_by"]) == ("rejected", "policy")
    assert (result["stop_reason"], diff["files"]) == (agent.rejected_ends, [])


@pytest.mark.parametrize("name", ["opencode", "gemini", "codex"])
async def test_contained_allows_a_write_in_the_jail_without_asking_anybody(
    host: Any, fake_models: Any, repository: Callable[..., Path], name: str
) -> None:
    agent = released(name)
    async with running(host) as run:
        await run.start(agent, repository(), fake_models.script(*agent.steps()), preset="contained")
        await run.until("acp.result")
        diff = await run.diff()
    (permission,) = run.rows("permission_requests")
    assert (permission["state"], permission["decided_by"]) == ("allowed", "policy")
    assert (diff["files"][0]["path"], f"+{TEXT}" in diff["diff"]) == (FILE, True)


async def test_contained_asks_for_an_edit_of_what_configures_agents(
    host: Any, fake_models: Any, repository: Callable[..., Path]
) -> None:
    claude = released("claude")
    async with running(host) as run:
        await run.start(claude, repository(), fake_models.script(*claude.steps("AGENTS.md")), preset="contained")
        asked = await run.until("permission.requested")
        await run.answer(asked["permission"], "reject_once")
        await run.until("acp.result")
        diff = await run.diff()
    assert diff["files"] == []
