"""The main job, from the socket: a demo agent in a jail works on a real repository."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import anyio
import pytest

from kandev_host.client import Client, Notification

pytestmark = pytest.mark.anyio
DEADLINE_S = 60


async def new_task(client: Client, repository: Path | None, title: str, **fields: Any) -> dict[str, Any]:
    board = (await client.call("board.create", {"name": "Work"}))["board"]
    payload = {"board_id": board["id"], "title": title, "description": "", "agent_type": "demo", **fields}
    if repository is not None:
        payload["repository_url"] = str(repository)
    return (await client.call("task.create", payload))["task"]


async def until(client: Client, action: str) -> tuple[Notification, list[Notification]]:
    """The next notification of this name, and all that came before it."""
    seen = []
    with anyio.fail_after(DEADLINE_S):
        async for message in client.notifications():
            if message.action == action:
                return message, seen
            seen.append(message)
    raise AssertionError(f"the socket closed before {action}")


async def run_to_permission(client: Client, task: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    agent = (await client.call("orchestrator.start", {"task_id": task["id"]}))["agent"]
    asked, _ = await until(client, "permission.requested")
    return agent["id"], asked.payload["permission"]


def option(permission: dict[str, Any], kind: str) -> str:
    return next(item["optionId"] for item in permission["options"] if item["kind"] == kind)


async def test_an_allowed_edit_ends_in_a_completed_task_with_a_diff(host: Any, repository: Path) -> None:
    async with Client.connect(host.url, host.token) as client:
        task = await new_task(client, repository, "write HELLO.md: hello from the jail")
        agent_id, permission = await run_to_permission(client, task)
        await client.call(
            "permission.respond", {"permission_id": permission["id"], "option_id": option(permission, "allow_once")}
        )
        result, before = await until(client, "acp.result")
        done, _ = await until(client, "task.state_changed")
        diff = await client.call("workspace.diff", {"task_id": task["id"]})
        status = await client.call("agent.status", {"agent_id": agent_id})
    assert result.payload["stop_reason"] == "end_turn"
    assert result.payload["usage"]["total_tokens"] > 0
    assert {"acp.log", "acp.progress", "permission.resolved"} <= {message.action for message in before}
    assert done.payload["task"]["state"] == "COMPLETED"
    assert "+hello from the jail" in diff["diff"]
    assert [file["path"] for file in diff["files"]] == ["HELLO.md"]
    assert status["agent"]["agent_type"] == "demo"


async def test_the_users_own_checkout_stays_as_it_was(host: Any, repository: Path) -> None:
    before = snapshot(repository)
    async with Client.connect(host.url, host.token) as client:
        task = await new_task(client, repository, "write HELLO.md: hello")
        _, permission = await run_to_permission(client, task)
        await client.call(
            "permission.respond", {"permission_id": permission["id"], "option_id": option(permission, "allow_once")}
        )
        await until(client, "acp.result")
    assert snapshot(repository) == before


def snapshot(folder: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Owner, mode, link count and content of every file."""
    return {
        str(path): (path.stat().st_uid, path.stat().st_mode, path.stat().st_nlink, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


async def test_a_rejected_edit_changes_nothing(host: Any, repository: Path) -> None:
    async with Client.connect(host.url, host.token) as client:
        task = await new_task(client, repository, "write HELLO.md: hello")
        _, permission = await run_to_permission(client, task)
        await client.call(
            "permission.respond", {"permission_id": permission["id"], "option_id": option(permission, "reject_once")}
        )
        await until(client, "acp.result")
        diff = await client.call("workspace.diff", {"task_id": task["id"]})
    assert diff["files"] == []


async def test_everything_is_in_the_database_after_a_restart(host: Any, repository: Path) -> None:
    async with Client.connect(host.url, host.token) as client:
        task = await new_task(client, repository, "write HELLO.md: hello")
        agent_id, permission = await run_to_permission(client, task)
        await client.call(
            "permission.respond", {"permission_id": permission["id"], "option_id": option(permission, "allow_once")}
        )
        await until(client, "acp.result")
        await until(client, "task.state_changed")
    assert host.stop() == 0
    host.start()
    async with Client.connect(host.url, host.token) as client:
        transcript = await client.call("agent.transcript", {"agent_id": agent_id})
        permissions = await client.call("permission.list", {"task_id": task["id"]})
        again = await client.call("task.get", {"task_id": task["id"]})
        diff = await client.call("workspace.diff", {"task_id": task["id"]})
    kinds = {update["payload"].get("update", {}).get("sessionUpdate") for update in transcript["updates"]}
    assert {"agent_message_chunk", "tool_call", "plan"} <= kinds
    assert [item["state"] for item in permissions["permissions"]] == ["allowed"]
    assert again["task"]["state"] == "COMPLETED"
    assert diff["files"] != []


async def test_nothing_of_an_agent_outlives_a_killed_host(host: Any, repository: Path) -> None:
    async with Client.connect(host.url, host.token) as client:
        task = await new_task(client, repository, "sleep 600")
        agent = (await client.call("orchestrator.start", {"task_id": task["id"]}))["agent"]
        await until(client, "acp.progress")
        assert jailed_processes(agent["id"])
        host.kill()
    with anyio.fail_after(DEADLINE_S):
        while jailed_processes(agent["id"]):
            await anyio.sleep(0.05)
    host.start()
    assert jailed_processes(agent["id"]) == []
    assert host.recovered["tasks_requeued"] == [task["id"]]
    async with Client.connect(host.url, host.token) as client:
        status = (await client.call("agent.status", {"agent_id": agent["id"]}))["agent"]
    assert (status["status"], status["failure"]) == ("FAILED", "host_died")


async def test_a_run_that_a_killed_host_cut_short_goes_on_in_the_same_session(host: Any, repository: Path) -> None:
    async with Client.connect(host.url, host.token) as client:
        task = await new_task(client, repository, "sleep 600")
        first = (await client.call("orchestrator.start", {"task_id": task["id"]}))["agent"]
        await until(client, "acp.progress")
        host.kill()
    host.start()
    async with Client.connect(host.url, host.token) as client:
        await client.subscribe(f"task:{task['id']}", after_seq=0)
        with anyio.fail_after(DEADLINE_S):
            async for message in client.notifications():
                again = message.payload.get("agent", {})
                if again.get("id") != first["id"] and again.get("activity") == "prompting":
                    break
        runs = (await client.call("agent.list", {"task_id": task["id"]}))["agents"]
        sessions = [(await client.call("agent.status", {"agent_id": row["id"]}))["session"] for row in runs]
    assert [(row["status"], row["attempt"]) for row in runs] == [("RUNNING", 1), ("FAILED", 1)]
    assert [row["resumed_from"] for row in runs] == [first["id"], None]
    assert [session["opened"] for session in sessions] == ["resume", "new"]
    assert len({session["acp_session_id"] for session in sessions}) == 1


def jailed_processes(agent_id: str) -> list[int]:
    """Processes of this agent: its id is in the environment of all that the host starts for it."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                environ = Path(f"/proc/{entry}/environ").read_bytes()
            except OSError:
                continue
            if agent_id.encode() in environ:
                found.append(int(entry))
    return found


async def test_cancel_ends_the_turn_and_keeps_the_agent(host: Any, repository: Path) -> None:
    async with Client.connect(host.url, host.token) as client:
        task = await new_task(client, repository, "anything")
        launched = await client.call("agent.launch", {"task_id": task["id"], "prompt": "sleep 600"})
        agent_id = launched["agent"]["id"]
        await until(client, "acp.progress")
        await client.call("agent.cancel", {"agent_id": agent_id})
        result, _ = await until(client, "acp.result")
        status = (await client.call("agent.status", {"agent_id": agent_id}))["agent"]
        task = (await client.call("task.get", {"task_id": task["id"]}))["task"]
    assert result.payload["stop_reason"] == "cancelled"
    assert status["status"] == "RUNNING"
    assert task["state"] == "IN_PROGRESS"


async def test_stopping_a_run_cancels_the_task(host: Any, repository: Path) -> None:
    async with Client.connect(host.url, host.token) as client:
        task = await new_task(client, repository, "sleep 600")
        agent = (await client.call("orchestrator.start", {"task_id": task["id"]}))["agent"]
        await until(client, "acp.progress")
        stopped = await client.call("orchestrator.stop", {"task_id": task["id"]})
        status = (await client.call("agent.status", {"agent_id": agent["id"]}))["agent"]
    assert stopped["task"]["state"] == "CANCELLED"
    assert status["status"] == "STOPPED"
    assert jailed_processes(agent["id"]) == []


async def test_sigterm_leaves_nothing_and_exits_cleanly(host: Any, repository: Path) -> None:
    async with Client.connect(host.url, host.token) as client:
        task = await new_task(client, repository, "sleep 600")
        agent = (await client.call("orchestrator.start", {"task_id": task["id"]}))["agent"]
        await until(client, "acp.progress")
    assert host.stop() == 0
    assert jailed_processes(agent["id"]) == []
    assert (
        subprocess.run(["git", "-C", str(repository), "status", "--porcelain"], check=True, capture_output=True).stdout
        == b""
    )
