"""The main job on real input: released agents, in the jail, over the socket, down to the database.

No internet and no model: the only thing that the jail can reach is the fake model server.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from kandev_host.client import Client

pytestmark = [pytest.mark.anyio, pytest.mark.agents]
DEADLINE_S = 90
TEXT = "hello from the model\n"


@dataclass(frozen=True)
class Released:
    """How the model calls this agent's write tool, and what in a repository would allow it to go unasked."""

    name: str
    tool: str
    path: str
    allowing: dict[str, str]

    def steps(self) -> list[dict[str, Any]]:
        arguments = {self.path: "/workspace/made-by-model.txt", "content": TEXT}
        return [{"call": self.tool, "args": arguments}, {"text": "MODEL-DONE"}]


RELEASED = [
    Released(
        "opencode", "write", "filePath",
        {"opencode.json": json.dumps({"permission": {"edit": "allow", "bash": "allow"}})},
    ),
    Released(
        "claude", "Write", "file_path",
        {".claude/settings.json": json.dumps({"permissions": {"allow": ["Write", "Edit", "Bash"]}})},
    ),
]  # fmt: skip
each_agent = pytest.mark.parametrize("agent", RELEASED, ids=lambda agent: agent.name)


class Run:
    """One task with a real agent, seen by a client of the socket."""

    def __init__(self, client: Client, data: Path) -> None:
        self.client = client
        self.data = data
        self.task_id = ""
        self.agent_id = ""
        self.seen: list[tuple[str, dict[str, Any]]] = []

    async def start(self, agent: Released, repository: Path, prompt: str) -> None:
        board = (await self.client.call("board.create", {"name": "Work"}))["board"]
        task = {"board_id": board["id"], "title": "Greet", "description": prompt}
        created = await self.client.call("task.create", {**task, "repository_url": str(repository)})
        self.task_id = created["task"]["id"]
        started = await self.client.call("orchestrator.start", {"task_id": self.task_id, "agent_type": agent.name})
        self.agent_id = started["agent"]["id"]

    async def until(self, action: str) -> dict[str, Any]:
        """The payload of the next notification of this name. A dead agent says why it died."""
        with anyio.fail_after(DEADLINE_S):
            async for message in self.client.notifications():
                self.seen.append((message.action, message.payload))
                if message.action == action:
                    return dict(message.payload)
                assert message.action != "acp.error", message.payload
        raise AssertionError(f"the socket closed before {action}")

    async def answer(self, permission: dict[str, Any], kind: str) -> None:
        option = next(one["optionId"] for one in permission["options"] if one["kind"] == kind)
        await self.client.call("permission.respond", {"permission_id": permission["id"], "option_id": option})

    async def diff(self) -> dict[str, Any]:
        return dict(await self.client.call("workspace.diff", {"task_id": self.task_id}))

    def rows(self, table: str) -> list[dict[str, Any]]:
        with closing(sqlite3.connect(f"file:{self.data}/kandev.db?mode=ro", uri=True)) as database:
            database.row_factory = sqlite3.Row
            found = database.execute(f"SELECT * FROM {table} WHERE task_id = ?", (self.task_id,))
            return [dict(row) for row in found]


@asynccontextmanager
async def running(host: Any) -> AsyncIterator[Run]:
    async with Client.connect(host.url, host.token) as client:
        yield Run(client, host.data)


@each_agent
async def test_an_allowed_write_is_in_the_diff_and_everything_in_the_database(
    host: Any, fake_models: Any, repository: Callable[..., Path], agent: Released
) -> None:
    project = repository()
    async with running(host) as run:
        await run.start(agent, project, fake_models.script(*agent.steps()))
        asked = await run.until("permission.requested")
        await run.answer(asked["permission"], "allow_once")
        result = await run.until("acp.result")
        diff = await run.diff()

    assert (result["stop_reason"], "MODEL-DONE" in result["summary"]) == ("end_turn", True)
    assert f"+{TEXT}" in diff["diff"]
    assert "made-by-model.txt" in [file["path"] for file in diff["files"]]
    assert not (project / "made-by-model.txt").exists()
    updates = [payload.get("update", {}).get("sessionUpdate") for _, payload in run.seen]
    assert {"tool_call", "tool_call_update", "agent_message_chunk"} <= set(updates)

    (turn,) = run.rows("turns")
    assert (turn["state"], turn["stop_reason"]) == ("ended", "end_turn")
    (session,) = run.rows("sessions")
    assert (session["protocol_version"], session["cwd"]) == (1, "/workspace")
    (permission,) = run.rows("permission_requests")
    assert permission["state"] == "allowed"
    (usage,) = run.rows("usage")
    assert usage["output_tokens"] in (fake_models.OUTPUT_TOKENS, 2 * fake_models.OUTPUT_TOKENS)
    assert usage["source"] == "agent"


@each_agent
async def test_a_rejected_write_leaves_nothing(
    host: Any, fake_models: Any, repository: Callable[..., Path], agent: Released
) -> None:
    async with running(host) as run:
        await run.start(agent, repository(), fake_models.script(*agent.steps()))
        asked = await run.until("permission.requested")
        await run.answer(asked["permission"], "reject_once")
        await run.until("acp.result")
        diff = await run.diff()
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
    assert "made-by-model.txt" not in [file["path"] for file in diff["files"]]


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
