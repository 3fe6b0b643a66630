"""One task with a real agent, seen by a client of the socket, and what of it is in the database."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import anyio
from released import Released

from kandev_host.client import Client

DEADLINE_S = 120
GOES_ON = {"RESUMED_WITHOUT_MEMORY", "HOST_DIED"}  # errors that are no end


class Run:
    """`agent_id` is of the newest run of its task."""

    def __init__(self, client: Client, data: Path) -> None:
        self.client = client
        self.data = data
        self.task_id = ""
        self.agent_id = ""
        self.seen: list[tuple[str, dict[str, Any]]] = []

    async def create(self, repository: Path, prompt: str) -> None:
        board = (await self.client.call("board.create", {"name": "Work"}))["board"]
        task = {"board_id": board["id"], "title": "Greet", "description": prompt}
        created = await self.client.call("task.create", {**task, "repository_url": str(repository)})
        self.task_id = created["task"]["id"]

    async def start(self, agent: Released, repository: Path, prompt: str, **more: Any) -> None:
        """As the queue does it: the run ends with its turn."""
        await self.create(repository, prompt)
        started = await self.client.call(
            "orchestrator.start", {"task_id": self.task_id, "agent_type": agent.name, **more}
        )
        self.agent_id = started["agent"]["id"]

    async def launch(self, agent: Released, repository: Path, prompt: str) -> None:
        """As a person does it: the run waits for the next prompt."""
        await self.create(repository, "")
        launched = await self.client.call(
            "agent.launch", {"task_id": self.task_id, "agent_type": agent.name, "prompt": prompt}
        )
        self.agent_id = launched["agent"]["id"]

    async def follow(self, run: Run) -> None:
        """What another client began, from its beginning."""
        self.task_id, self.agent_id = run.task_id, run.agent_id
        await self.client.subscribe(f"task:{self.task_id}", after_seq=0)

    async def stop(self) -> None:
        await self.client.call("agent.stop", {"agent_id": self.agent_id})
        while (await self.until("agent.updated"))["agent"]["status"] != "STOPPED":
            pass

    async def resume(self, prompt: str) -> None:
        resumed = await self.client.call("agent.resume", {"agent_id": self.agent_id, "prompt": prompt})
        self.agent_id = resumed["agent"]["id"]

    async def until(self, action: str, update: str | None = None) -> dict[str, Any]:
        """The payload of the next notification of this name (and update). A dead agent says why it died."""
        with anyio.fail_after(DEADLINE_S):
            async for message in self.client.notifications():
                self.seen.append((message.action, message.payload))
                kind = message.payload.get("update", {}).get("sessionUpdate")
                if message.action == action and update in (None, kind):
                    return dict(message.payload)
                assert message.action != "acp.error" or message.payload["code"] in GOES_ON, message.payload
        raise AssertionError(f"the socket closed before {action}")

    async def answer(self, permission: dict[str, Any], kind: str) -> None:
        option = next(one["optionId"] for one in permission["options"] if one["kind"] == kind)
        await self.client.call("permission.respond", {"permission_id": permission["id"], "option_id": option})

    async def allow(self) -> dict[str, Any]:
        """The end of a turn that asks once, and is allowed to."""
        asked = await self.until("permission.requested")
        await self.answer(asked["permission"], "allow_once")
        return await self.until("acp.result")

    async def diff(self) -> dict[str, Any]:
        return dict(await self.client.call("workspace.diff", {"task_id": self.task_id}))

    def updates(self) -> list[dict[str, Any]]:
        return [payload["update"] for _, payload in self.seen if payload.get("update")]

    def rows(self, table: str) -> list[dict[str, Any]]:
        """The oldest first."""
        with closing(sqlite3.connect(f"file:{self.data}/kandev.db?mode=ro", uri=True)) as database:
            database.row_factory = sqlite3.Row
            found = database.execute(
                f"SELECT * FROM {table} WHERE task_id = ? ORDER BY created_at, id", (self.task_id,)
            )
            return [dict(row) for row in found]


@asynccontextmanager
async def running(host: Any) -> AsyncIterator[Run]:
    async with Client.connect(host.url, host.token) as client:
        yield Run(client, host.data)
