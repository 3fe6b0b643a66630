"""What agents send that is absurd, or is meant to be mistaken; test_hostile_agents has a mode for each observation."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

import kandev_host.testing
from kandev_host.client import Client

pytestmark = pytest.mark.anyio

DEADLINE_S = 60
HINDERED_S = 10
HANG = {"hang": True}
FLOOD = 20_000
SCRIPTS: dict[str, dict[str, Any]] = {
    "exits": {"start": [{"stderr": "no API key"}, {"exit": 3}]},
    "stubborn": {"ignore_cancel": True, "ignore_term": True, "ignore_eof": True, "prompt": [{"text": "no"}, HANG]},
    "floods": {"prompt": [{"flood": FLOOD, "size": 200}]},
    "plain": {},
}


@pytest.fixture(scope="module")
def bad_host(make_host: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A host whose settings hold a table for each script."""
    agent = tmp_path_factory.mktemp("agents") / "bad-agent"
    source = Path(kandev_host.testing.__file__).with_name("scripted_agent.py").read_text()
    agent.write_text(f"#!{sys.executable}\n{source}")
    agent.chmod(0o755)
    tables = (
        f"[agents.{name}]\ncommand = {json.dumps([str(agent), json.dumps(script)])}\n"
        for name, script in SCRIPTS.items()
    )
    # A stop that waits for an agent in vain takes longer than any test waits.
    timing = "[session]\ncancel_grace_s = 600.0\nkill_grace_s = 600.0\nline_limit_bytes = 8388608\n"
    return make_host(timing + "\n".join(tables))


@pytest.fixture
async def client(bad_host: Any) -> AsyncIterator[Client]:
    """And afterwards the host is well, and has had no surprise."""
    said = len(bad_host.log())
    async with Client.connect(bad_host.url, bad_host.token) as client:
        yield client
        with anyio.fail_after(DEADLINE_S):
            assert (await client.call("health.check"))["status"] == "ok"
    assert "Traceback" not in bad_host.log()[said:]


async def launch(client: Client, agent_type: str, prompt: object = None) -> dict[str, Any]:
    board = (await client.call("board.create", {"name": "Work"}))["board"]
    task = {"board_id": board["id"], "title": "Work", "description": "", "agent_type": agent_type}
    task_id = (await client.call("task.create", task))["task"]["id"]
    text = json.dumps(prompt) if isinstance(prompt, list) else prompt
    payload = {"task_id": task_id, **({} if text is None else {"prompt": text})}
    return dict((await client.call("agent.launch", payload))["agent"])


async def ended(client: Client, agent: dict[str, Any]) -> dict[str, Any]:
    """The agent's status once it has ended, with nothing of it left."""
    with anyio.fail_after(DEADLINE_S):
        async for message in client.notifications():
            row = message.payload.get("agent") if message.action == "agent.updated" else None
            if row and row["id"] == agent["id"] and row["status"] in {"FAILED", "STOPPED", "COMPLETED"}:
                break
    assert processes(agent["id"]) == []
    return dict((await client.call("agent.status", {"agent_id": agent["id"]}))["agent"])


async def until(client: Client, action: str, **fields: Any) -> dict[str, Any]:
    with anyio.fail_after(DEADLINE_S):
        async for message in client.notifications():
            if message.action == action and fields.items() <= message.payload.items():
                return dict(message.payload)
    raise AssertionError(f"the socket closed before {action}")


def processes(mark: str) -> list[str]:
    """Command lines of what runs with this in its environment or arguments, the jail's own monitor apart."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                line = Path(f"/proc/{entry}/cmdline").read_bytes()
                if mark.encode() in line or mark.encode() in Path(f"/proc/{entry}/environ").read_bytes():
                    found.append(line.decode(errors="replace"))
            except OSError:
                continue
    return found


async def test_a_task_of_a_broken_agent_is_failed(client: Client) -> None:
    agent = await launch(client, "exits", "go")
    await ended(client, agent)
    task = (await client.call("task.get", {"task_id": agent["task_id"]}))["task"]
    assert task["state"] == "FAILED"
    assert "code 3" in task["state_reason"]


async def test_a_forced_stop_does_not_wait_for_a_stubborn_agent(client: Client) -> None:
    agent = await launch(client, "stubborn", "go")
    await until(client, "acp.log")
    with anyio.fail_after(DEADLINE_S):
        await client.call("agent.stop", {"agent_id": agent["id"], "force": True})
    assert processes(agent["id"]) == []


async def test_a_flood_is_stored_whole_and_disturbs_nobody(bad_host: Any, client: Client) -> None:
    async with Client.connect(bad_host.url, bad_host.token) as starter:
        agent = await launch(starter, "floods", "go")
        await until(starter, "acp.log")  # it idles before its turn as well
    slowest, activity = 0.0, "prompting"
    while activity != "idle":
        started = anyio.current_time()
        activity = (await client.call("agent.status", {"agent_id": agent["id"]}))["activity"]
        slowest = max(slowest, anyio.current_time() - started)
        await anyio.sleep(0.02)
    assert slowest < HINDERED_S
    chunks = 0
    page: dict[str, Any] = {"next_after_seq": 0}
    while page["next_after_seq"] is not None:
        payload = {"agent_id": agent["id"], "after_seq": page["next_after_seq"], "limit": 500}
        page = await client.call("agent.transcript", payload)
        kinds = [item["payload"].get("update", {}).get("sessionUpdate") for item in page["updates"]]
        chunks += kinds.count("agent_message_chunk")
    assert chunks == FLOOD
    await client.call("agent.stop", {"agent_id": agent["id"], "force": True})


def ask(call: dict[str, Any], *options: tuple[str, str, str]) -> dict[str, Any]:
    offered = [{"optionId": id, "name": name, "kind": kind} for id, name, kind in options]
    return {"permission": {"toolCall": {"toolCallId": "1", "title": "Edit", **call}, "options": offered}}


@pytest.mark.parametrize(
    "options",
    [
        [("a", "Always", "allow_always"), ("r", "No", "reject_once")],
        [("r", "Allow once", "reject_once"), ("a", "Reject", "allow_always")],
        [("a", "Allow", "allow_once_and_for_all"), ("b", "Allow", "allow_always")],
        [("a", "Yes", "allow_once"), ("b", "Yes, all", "allow_once")],
    ],
)
async def test_even_unattended_nothing_is_allowed_but_the_one_allow_once(client: Client, options: list[Any]) -> None:
    board = (await client.call("board.create", {"name": "Work"}))["board"]
    task = {"board_id": board["id"], "title": "Work", "description": ""}
    task_id = (await client.call("task.create", task))["task"]["id"]
    prompt = json.dumps([ask({}, *options)])
    payload = {"task_id": task_id, "agent_type": "plain", "preset": "unattended", "prompt": prompt}
    agent = (await client.call("agent.launch", payload))["agent"]
    asked = await until(client, "permission.requested")
    waiting = (await client.call("permission.list", {"agent_id": agent["id"]}))["permissions"]
    assert [row["state"] for row in waiting] == ["pending"]
    await client.call("permission.respond", {"permission_id": asked["permission"]["id"], "outcome": "cancelled"})
    await client.call("agent.stop", {"agent_id": agent["id"], "force": True})


async def test_the_first_option_is_taken_for_what_its_kind_says(client: Client) -> None:
    agent = await launch(client, "plain", [ask({}, ("go", "Allow once", "reject_always"), ("no", "No", "allow_once"))])
    asked = await until(client, "permission.requested")
    answer = {"permission_id": asked["permission"]["id"], "option_id": "go"}
    resolved = (await client.call("permission.respond", answer))["permission"]
    assert resolved["state"] == "rejected"
    await client.call("agent.stop", {"agent_id": agent["id"], "force": True})


async def test_input_that_changes_while_it_is_shown_voids_the_request(client: Client) -> None:
    harmless, harmful = {"command": "ls"}, {"command": "rm -rf /"}
    options = [{"optionId": "once", "name": "Allow", "kind": "allow_once"}]
    asking = {"sessionId": "scripted-session", "options": options}
    call = {"toolCallId": "1", "title": "Run", "rawInput": harmless}
    request = {"id": 77, "method": "session/request_permission", "params": {**asking, "toolCall": call}}
    steps = [{"notify": request}, {"tool_update": {"toolCallId": "1", "rawInput": harmful}}, {"sleep_s": 60}]
    agent = await launch(client, "plain", steps)
    asked = await until(client, "permission.requested")
    resolved = (await until(client, "permission.resolved"))["permission"]
    assert (resolved["id"], resolved["state"]) == (asked["permission"]["id"], "cancelled")
    assert "changed" in resolved["reason"]
    await client.call("agent.stop", {"agent_id": agent["id"], "force": True})


@pytest.mark.parametrize(
    "steps",
    [
        [{"usage": {"totalTokens": 10**30, "inputTokens": 2**63, "outputTokens": -1}}],
        [{"update": {"sessionUpdate": "usage_update", "used": 2**63, "size": 10**40}}],
        [{"update": {"sessionUpdate": "usage_update", "used": 1, "size": 2,
                     "cost": {"amount": 10**400, "currency": "x" * 10000}}}],
        [{"update": {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": "\0\x1b[2J\ud800"}}}],
        [{"raw": '{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":"scripted-session","update":'
                 '{"sessionUpdate":"tool_call","toolCallId":"1","rawInput":' + "[" * 900 + "]" * 900 + "}}}\n"}],
        [{"raw": '{"jsonrpc":"2.0","id":' + "9" * 5000 + ',"method":"fs/read_text_file","params":{}}\n'}],
        [{"raw": '{"jsonrpc":"2.0","id":"x","method":"terminal/create","params":{"command":"id"}}\n'}],
        [ask({"toolCallId": "x" * 100_000, "title": 7, "kind": [], "locations": {}, "rawInput": 2**70})],
    ],
    ids=range(8),
)  # fmt: skip
async def test_absurd_values_harm_nobody(client: Client, steps: list[Any]) -> None:
    agent = await launch(client, "plain", [*steps, {"text": "done"}])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cancel_questions, client, agent)
        await until(client, "acp.result", agent_id=agent["id"])
        tasks.cancel_scope.cancel()
    status = await client.call("agent.status", {"agent_id": agent["id"]})
    assert (status["status"], status["error_message"]) == ("RUNNING", None)
    await client.call("agent.transcript", {"agent_id": agent["id"]})
    await client.call("agent.stop", {"agent_id": agent["id"], "force": True})


async def cancel_questions(client: Client, agent: dict[str, Any]) -> None:
    while True:
        payload = {"agent_id": agent["id"], "state": "pending"}
        for row in (await client.call("permission.list", payload))["permissions"]:
            await client.call("permission.respond", {"permission_id": row["id"], "outcome": "cancelled"})
        await anyio.sleep(0.05)
