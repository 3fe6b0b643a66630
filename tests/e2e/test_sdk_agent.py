"""An agent built on the official SDK completes every feature, in its jail, with everything asked through the socket.

What the host sent it meanwhile is valid by the SDK's schema.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from kandev_host.client import Client

from .sdk_schema import judged

pytestmark = pytest.mark.anyio

DEADLINE_S = 60
WAYS = ("resume", "load")
BLOCKS = [
    {"type": "text", "text": "work"},
    {"type": "image", "data": "AA==", "mimeType": "image/png"},
    {"type": "audio", "data": "AA==", "mimeType": "audio/wav"},
    {"type": "resource_link", "uri": "file:///workspace/README.md", "name": "README.md"},
    {"type": "resource", "resource": {"uri": "file:///workspace/b.md", "mimeType": "text/markdown", "text": "# B"}},
]


@pytest.fixture(scope="module")
def host(make_host: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("sdk")
    program, books = folder / "sdk-agent", folder / "books"
    program.write_text(f"#!{sys.executable}\n" + Path(__file__).with_name("sdk_agent.py").read_text())
    program.chmod(0o755)
    books.mkdir()
    os.chmod(folder, 0o755)
    types = "\n".join(
        f"[agents.sdk-{way}]\ncommand = {json.dumps([str(program), way])}\noffers = ['files', 'terminal']\n"
        "asking_modes = ['ask']\nmode = 'ask'\nmcp_servers = ['notes']\n"
        for way in WAYS
    )
    servers = "[mcp.notes]\ncommand = ['cat']\n[mcp.wiki]\nurl = 'http://127.0.0.1:9/mcp'\n"
    return make_host(f"{types}{servers}[directories.books]\npath = {json.dumps(str(books))}\n")


class Bench:
    """A task with an agent of it, and what is told of them."""

    def __init__(self, client: Client, task_id: str, agent_id: str) -> None:
        self.client, self.task_id, self.agent_id = client, task_id, agent_id

    async def call(self, action: str, **payload: Any) -> Any:
        return await self.client.call(action, {"agent_id": self.agent_id, **payload}, timeout_s=DEADLINE_S)

    async def until(self, action: str, **having: Any) -> dict[str, Any]:
        with anyio.fail_after(DEADLINE_S):
            async for message in self.client.notifications():
                if message.action == action and having.items() <= message.payload.items():
                    return dict(message.payload)
                assert message.action != "acp.result", message.payload  # nothing comes any more
        raise AssertionError(f"{action} never came")

    async def logged_in(self) -> None:
        """The log-in that it asks for before it opens a session."""
        await self.until("acp.error", code="NEEDS_LOGIN")
        session = await self.call("agent.session")
        assert [(method["id"], method["kind"]) for method in session["auth_methods"]] == [
            ("key", "agent"),
            ("cli", "terminal"),
        ]
        await self.call("agent.authenticate", method_id="key")
        await self.until("acp.status", activity="idle")

    async def told(self) -> str:
        """What the agent says that it was given, and what was called."""
        await self.call("agent.prompt", prompt="tell")
        return str((await self.until("acp.result"))["summary"])

    async def sent(self) -> set[str]:
        """What the host has asked and answered so far, by method; all of it is valid."""
        capture = await self.call("agent.capture")
        assert capture["dropped_bytes"] == 0
        return judged(json.loads(line) for line in capture["lines"])

    async def summed(self) -> None:
        """Usage of two turns in two processes of one session, each counted once, by each that asks for it."""
        total = (await self.client.call("usage.summary", {"task_id": self.task_id, "group_by": "day"}))["total"]
        assert (total["turns"], total["total_tokens"], total["unpriced_turns"], total["cost"]) == (2, 18, 2, {})
        used = (await self.call("agent.status"))["usage"]
        assert (used["turns"], used["total_tokens"], used["unpriced_turns"]) == (1, 9, 1)


@asynccontextmanager
async def at_work(host: Any, way: str) -> AsyncIterator[Bench]:
    async with Client.connect(host.url, host.token) as client:
        board = (await client.call("board.create", {"name": "Work"}))["board"]["id"]
        fields = {"board_id": board, "title": "Notes", "description": "", "agent_type": f"sdk-{way}"}
        more = {"mcp_servers": ["wiki"], "directories": ["books"]}
        task_id = (await client.call("task.create", fields | more))["task"]["id"]
        await client.call("task.subscribe", {"task_id": task_id})
        agent = (await client.call("agent.launch", {"task_id": task_id}))["agent"]
        bench = Bench(client, task_id, agent["id"])
        await bench.logged_in()
        try:
            yield bench
        finally:
            row = (await bench.call("agent.status"))["agent"]
            if row["status"] == "RUNNING":
                await bench.call("agent.stop", force=True)


async def test_an_agent_built_on_the_sdk_completes_a_turn_with_all_there_is(host: Any) -> None:
    async with at_work(host, "resume") as bench:
        await bench.call("agent.prompt", prompt=BLOCKS)
        permission = (await bench.until("permission.requested"))["permission"]
        assert permission["tool_call"]["content"][0]["path"] == "/workspace/notes/sdk.txt"
        answer = {"permission_id": permission["id"], "option_id": "y", "digest": permission["digest"]}
        await bench.client.call("permission.respond", answer)
        for mode, content in (("form", {"name": "Ada"}), ("url", None)):
            asked = (await bench.until("elicitation.requested"))["elicitation"]
            assert asked["mode"] == mode
            answer = {"elicitation_id": asked["id"], "outcome": "accept"} | ({"content": content} if content else {})
            await bench.client.call("elicitation.respond", answer)
        result = await bench.until("acp.result")
        kinds = "TextContentBlock, ImageContentBlock, AudioContentBlock, ResourceContentBlock"
        assert result["summary"] == f"{kinds}, EmbeddedResourceContentBlock; Ada accept"
        assert (result["status"], result["usage"]["total_tokens"], result["usage"]["cost"]) == ("completed", 9, "0.25")
        session = await bench.call("agent.session")
        assert (session["session"]["title"], [each["name"] for each in session["commands"]]) == ("Notes", ["fix"])
        diff = await bench.client.call("workspace.diff", {"task_id": bench.task_id})
        assert "+three" in diff["diff"]
        (command,) = [
            row
            for row in (await bench.client.call("shell.commands", {"task_id": bench.task_id}))["commands"]
            if row["state"] is not None  # what the host ran for it, not what it said
        ]
        assert (command["command"].split()[:2], command["state"], command["exit_code"]) == (["wc", "-l"], "finished", 0)
        assert (command["agent_id"], command["changed_files"]) == (bench.agent_id, [])
        served = {f"terminal/{name}" for name in ("create", "output", "wait_for_exit", "release")}
        served |= {"fs/read_text_file", "fs/write_text_file", "elicitation/create", "session/request_permission"}
        assert await bench.sent() >= served | {"initialize", "authenticate", "session/new", "session/prompt"}


async def test_its_options_are_set_by_id_and_by_category(host: Any) -> None:
    async with at_work(host, "resume") as bench:
        await bench.call("agent.set_option", option_id="model", value="big")
        options = (await bench.call("agent.set_option", option_id="fast", value="true"))["options"]
        assert {option["id"]: option["current_value"] for option in options} == {
            "mode": "ask",
            "llm": "big",
            "fast": True,
        }
        assert "{'mode': 'ask', 'llm': 'big', 'fast': True}" in await bench.told()
        assert await bench.sent() >= {"session/set_config_option", "session/set_config_option boolean"}


async def test_a_turn_of_it_is_cancelled_while_it_asks(host: Any) -> None:
    async with at_work(host, "resume") as bench:
        await bench.call("agent.prompt", prompt="work")
        permission = (await bench.until("permission.requested"))["permission"]
        await bench.call("agent.cancel")
        assert (await bench.until("acp.result"))["status"] == "cancelled"
        rows = (await bench.client.call("permission.list", {"task_id": bench.task_id}))["permissions"]
        assert [(row["id"], row["state"]) for row in rows] == [(permission["id"], "cancelled")]
        assert await bench.sent() >= {"session/cancel", "session/request_permission"}


@pytest.mark.parametrize("way", WAYS)
async def test_its_session_is_listed_closed_taken_up_again_and_another_deleted(host: Any, way: str) -> None:
    async with at_work(host, way) as bench:
        given = "McpServerStdio notes; HttpMcpServer wiki; /directories/books"
        assert f"new; {given}" in await bench.told()
        sessions = (await bench.call("agent.sessions"))["sessions"]
        assert [(each["acp_session_id"], each["live"]) for each in sessions] == [("sdk-1", True), ("sdk-0", False)]
        assert (await bench.call("agent.session_delete", session_id="sdk-0"))["deleted_by_agent"]
        await bench.call("agent.stop")
        assert await bench.sent() >= {"session/list", "session/delete", "session/close"}
        again = (await bench.call("agent.resume", prompt="tell"))["agent"]
        summary = (await bench.until("acp.result", agent_id=again["id"]))["summary"]
        assert f"{way} sdk-1; {given}; {{'mode': 'ask'" in summary
        assert summary.endswith("['authenticate', 'key', 'delete', 'sdk-0', 'close', 'sdk-1']")
        bench.agent_id = again["id"]
        assert (await bench.call("agent.session"))["session"]["opened"] == way
        assert f"session/{way}" in await bench.sent()
        await bench.summed()


async def test_it_is_logged_out_and_in_again(host: Any) -> None:
    async with at_work(host, "resume") as bench:
        await bench.call("agent.logout")
        assert (await bench.call("agent.authenticate", method_id="key"))["agent"]["id"] == bench.agent_id
        assert "['authenticate', 'key', 'logout', 'authenticate', 'key']" in await bench.told()
        assert "logout" in await bench.sent()
