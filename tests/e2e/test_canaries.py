"""Canary secrets are pushed through all that an agent and a shell can say; nothing that the host keeps, tells or logs
has one (docs/security.md, Secrets).
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import sqlite3
import sys
import zipfile
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import anyio
import pytest

from kandev_host.client import Client, ClientError
from kandev_host.protocol.actions import ACTIONS

pytestmark = pytest.mark.anyio

DEADLINE_S = 60
# What an agent itself is given, or writes, is its own; the token's file is where the token is.
NOT_THE_HOSTS = {"token", "workspaces", "homes", "volumes"}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


class Canaries:
    """Each of another kind; `password` is typed into a form, `reversed` is known to nobody but by where it stands."""

    def __init__(self) -> None:
        self.access = f"c4n/{secrets.token_hex(10)}+{secrets.token_hex(6)}"
        self.mcp = f"mcp-{secrets.token_hex(12)}"
        self.option = f"opt-{secrets.token_hex(12)}"
        self.url = f"url-{secrets.token_hex(12)}"
        self.password = f"pin{secrets.token_hex(8)}"
        self.typed = f"typed{secrets.token_hex(8)}"

    def all(self) -> list[str]:
        return [self.access, self.mcp, self.option, self.url[::-1], self.password, self.typed]

    def spellings(self) -> dict[str, bytes]:
        """Of each what must be nowhere, by a name for a person."""
        found: dict[str, bytes] = {}
        for number, canary in enumerate(self.all()):
            raw = canary.encode()
            found[f"{number} as it is"] = raw
            found[f"{number} in a URL"] = quote(canary, safe="").encode()
            found[f"{number} in hex"] = raw.hex().encode()
            found[f"{number} in JSON"] = raw.replace(b"/", b"\\/")
            for shift in range(3):
                encoded = base64.b64encode(b"\0" * shift + raw)[(0, 2, 3)[shift] :]
                found[f"{number} in base64, {shift}"] = encoded[: len(encoded) - 4]
        return found

    def in_(self, data: bytes) -> list[str]:
        return [name for name, spelled in self.spellings().items() if spelled in data]


@pytest.fixture(scope="module")
def canaries() -> Canaries:
    return Canaries()


@pytest.fixture(scope="module")
def host(make_host: Any, canaries: Canaries, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("agents")
    agent = folder / "canary-agent"
    agent.write_text(f"#!{sys.executable}\n{Path(__file__).with_name('canary_agent.py').read_text()}")
    agent.chmod(0o755)
    config = '[use]\ntelemetry = ["prometheus"]\n[session]\nfault_limit_lines = 1000\n'
    config += f'[mcp.tools]\ncommand = ["true"]\nenv = {{SERVICE = "{canaries.mcp}"}}\n'
    for way in ("tells", "dies", "refuses"):
        config += (
            f"[agents.{way}]\ncommand = {json.dumps([str(agent), way, '--api-key', canaries.option])}\n"
            'env_required = ["CANARY_ACCESS", "CANARY_URL"]\nmcp_servers = ["tools"]\noffers = ["terminal"]\n'
        )
    return make_host(config, CANARY_ACCESS=canaries.access, CANARY_URL=canaries.url)


class Frames:
    """Everything that a socket is sent."""

    def __init__(self) -> None:
        self.data = b""
        self._news = anyio.Event()

    async def listen(self, host: Any, *, task_status: Any) -> None:
        headers = {"Authorization": f"Bearer {host.token}"}
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{host.url}/ws", headers=headers) as socket:
            wanted = {"topics": ["*"], "after_seq": 0}
            await socket.send_json({"id": "1", "type": "request", "action": "events.subscribe", "payload": wanted})
            await socket.receive()
            task_status.started()
            async for message in socket:
                self.data += message.data.encode() + b"\n"
                self._news.set()
                self._news = anyio.Event()

    async def until(self, sign: str) -> None:
        with anyio.fail_after(DEADLINE_S):
            while sign.encode() not in self.data:
                await self._news.wait()


@pytest.fixture
async def client(host: Any) -> AsyncIterator[Client]:
    async with Client.connect(host.url, host.token) as client:
        yield client


async def launched(client: Client, way: str) -> tuple[str, str]:
    board = (await client.call("board.create", {"name": "Work"}))["board"]["id"]
    task = {"board_id": board, "title": way, "description": "", "agent_type": way}
    task_id = (await client.call("task.create", task))["task"]["id"]
    agent = await client.call("agent.launch", {"task_id": task_id, "prompt": "tell me"})
    return agent["agent"]["id"], task_id


async def answered(client: Client, agent_id: str, canaries: Canaries) -> None:
    """Answer the agent's questions, until its turn ends."""
    with anyio.fail_after(DEADLINE_S):
        async for told in client.notifications():
            if told.payload.get("agent_id") != agent_id:
                continue
            if told.action == "permission.requested":
                asked = told.payload["permission"]
                choice = {"permission_id": asked["id"], "option_id": "once", "digest": asked["digest"]}
                await client.call("permission.respond", choice)
            elif told.action == "elicitation.requested":
                filled = {"outcome": "accept", "content": {"pin": canaries.password}}
                await client.call(
                    "elicitation.respond", {"elicitation_id": told.payload["elicitation"]["id"], **filled}
                )
            elif told.action in {"acp.result", "acp.error"} and told.payload.get("code") != "PROTOCOL_FAULT":
                return
    raise AssertionError("the turn never ended")


async def shelled(client: Client, task_id: str, canaries: Canaries) -> list[Any]:
    """What people do in shells, with what is secret in commands and in outputs."""
    half, rest = canaries.access[:9], canaries.access[9:]
    told = []
    opened = await client.call("shell.open", {"task_id": task_id})
    shell = {"shell_id": opened["shell"]["id"]}
    for command in (f"echo {canaries.access}", f"printf {half}; sleep 0.05; printf {rest}; printf {half} >&2"):
        told.append(await client.call("shell.run", {**shell, "command": command}, DEADLINE_S))
        told.append(await client.call("shell.read", {**shell, "offset": 0}))
    told.append(await client.call("shell.commands", shell))
    told.append(await client.call("shell.close", shell))
    # A person's terminal shows what is typed; only what is kept of it is without secrets.
    opened = await client.call("shell.open", {"task_id": task_id, "pty": True})
    terminal = {"shell_id": opened["shell"]["id"]}
    await client.call("shell.input", {**terminal, "data": f"echo {half}''{rest}; exit\n"})
    with anyio.fail_after(DEADLINE_S):
        async for message in client.notifications():
            if message.action == "shell.exited" and message.payload["shell_id"] == terminal["shell_id"]:
                break
    told.append(await client.call("shell.commands", terminal))
    return told


async def reads(client: Client, agents: list[str], tasks: list[str]) -> list[Any]:
    told = []
    for agent_id in agents:
        told += [
            await client.call(action, {"agent_id": agent_id})
            for action in ("agent.status", "agent.logs", "agent.transcript", "agent.capture")
        ]
    for task_id in tasks:
        told += [
            await client.call(action, {"task_id": task_id})
            for action in (
                "task.get",
                "task.events",
                "agent.list",
                "permission.list",
                "elicitation.list",
            )
        ]
    told.append(await client.call("agent.sessions", {}))
    told += [await client.call("search.query", {"text": word}) for word in ("whole", "stderr", "echo")]
    told.append(await client.call("audit.list", {"limit": 500}))
    return [*told, await client.call("usage.summary", {}), await client.call("orchestrator.queue", {})]


async def refused(client: Client, canaries: Canaries) -> list[str]:
    """What a client is told of a repository URL with a password, and of a wrong word."""
    board = (await client.call("board.create", {"name": "Work"}))["board"]["id"]
    told = []
    for scheme in ("https", "ssh", "gopher"):
        url = f"{scheme}://robot:{canaries.typed}@git.example.org/x.git"
        task = {"board_id": board, "title": "t", "description": "", "repository_url": url}
        with pytest.raises(ClientError) as error:
            await client.call("task.create", task)
        told.append(repr(error.value))
    with pytest.raises(ClientError) as error:
        await client.call("agent.status", {"agent_id": canaries.access})
    return [*told, repr(error.value)]


def kept(home: Path, log: Path) -> dict[str, bytes]:
    """All that the host keeps and logs."""
    files = [
        file for file in home.rglob("*") if file.is_file() and not NOT_THE_HOSTS & set(file.relative_to(home).parts)
    ]
    return {str(file.relative_to(home.parent)): file.read_bytes() for file in [*files, log]}


# What the host tells of itself; of those that it has not, nobody asks.
OF_ITSELF = ("health.check", "host.info", "host.status", "agent.types", "backup.list", "metrics.summary")


async def of_itself(host: Any, client: Client) -> list[Any]:
    """What it tells of itself on the socket and over HTTP, its metrics among that."""
    told: list[Any] = [await client.call(action, {}) for action in OF_ITSELF if action in ACTIONS]
    token = (host.home / "metrics-token").read_text().strip()
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession() as session:
        for path in ("/metrics", "/health", "/schema.json"):
            async with session.get(f"{host.url}{path}", headers=headers if path == "/metrics" else {}) as answer:
                assert answer.status == 200
                told.append(await answer.text())
    assert "kandev_spawns_total" in told[-3]
    return told


def cells(database: bytes, folder: Path) -> bytes:
    """Every value of every table, also of those that a page of the file would cut."""
    path = folder / "of-a-backup.db"
    path.write_bytes(database)
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as opened:
        names = [name for (name,) in opened.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        assert "events" in names
        rows = [row for name in names for row in opened.execute(f'SELECT * FROM "{name}"')]
    values = [value for row in rows for value in row if isinstance(value, str | bytes)]
    return b"\n".join(value.encode() if isinstance(value, str) else value for value in values)


def contents(exported: Path, backup: Path) -> bytes:
    """What is carried away; a backup as it is unpacked."""
    with zipfile.ZipFile(backup) as file:
        assert sorted(file.namelist()) == ["database", "manifest.json"]
        of_tables = cells(file.read("database"), exported.parent)
        return exported.read_bytes() + of_tables + b"".join(map(file.read, file.namelist()))


def said(frames: bytes) -> str:
    """The agent's message as a client puts it together."""
    events = [json.loads(frame) for frame in frames.splitlines()]
    payloads = [event["payload"] for event in events if event["action"] == "acp.log"]
    return "".join(each["message"] for each in payloads if each["metadata"]["type"] == "agent_message_chunk")


async def test_no_canary_is_in_anything_that_the_host_keeps_tells_or_logs(
    host: Any, client: Client, canaries: Canaries
) -> None:
    frames = Frames()
    async with anyio.create_task_group() as listening:
        await listening.start(frames.listen, host)
        agents, tasks = [], []
        for way in ("dies", "refuses", "tells"):
            agent_id, task_id = await launched(client, way)
            agents, tasks = [*agents, agent_id], [*tasks, task_id]
            await answered(client, agent_id, canaries)
        replies: list[Any] = await reads(client, agents, tasks)
        replies += await shelled(client, tasks[-1], canaries)
        replies += await refused(client, canaries)
        replies += await of_itself(host, client)
        status = await client.call("agent.status", {"agent_id": agents[-1]})
        assert status["status"] == "RUNNING", status["agent"]["error_message"]
        await client.call("agent.stop", {"agent_id": agents[-1]})
        replies += await reads(client, agents, tasks)
        backup = Path((await client.call("backup.create", {}, DEADLINE_S))["backup"]["path"])
        last = (await client.call("board.create", {"name": "the last one"}))["board"]["id"]
        await frames.until(last)
        listening.cancel_scope.cancel()
    # The screen of a person's terminal is theirs: see docs/shells.md.
    events = b"\n".join(line for line in frames.data.splitlines() if b'"stream":"terminal"' not in line)
    assert canaries.in_(events) == []
    assert b"[redacted]" in events
    assert canaries.in_(said(frames.data).encode()) == []
    assert said(frames.data).count("whole: [redacted]\n") == 2, "the canary as it is, and in a URL"
    assert canaries.in_(json.dumps(replies, ensure_ascii=False).encode()) == []
    assert canaries.in_(repr(replies).encode()) == []
    while_it_runs = {name: canaries.in_(data) for name, data in kept(host.home, host.home.parent / "host.log").items()}
    assert {name: found for name, found in while_it_runs.items() if found} == {}
    assert any(name.endswith("-wal") for name in while_it_runs), "the WAL was looked at"
    assert any("captures" in name for name in while_it_runs), "captures were looked at"
    exported = host.home.parent / "exported.jsonl"
    command = [sys.executable, "-m", "kandev_host", "export", str(exported)]
    await anyio.run_process(command, env={**os.environ, "KANDEV_HOME": str(host.home)})
    carried = contents(exported, backup)
    assert b"[redacted]" in carried
    assert canaries.in_(carried) == []
    assert host.token.encode() not in carried
    host.stop()
    afterwards = {name: canaries.in_(data) for name, data in kept(host.home, host.home.parent / "host.log").items()}
    assert {name: found for name, found in afterwards.items() if found} == {}
