"""What a soak does to a host, in rounds: each worker begins, works and puts away what it began, until time is up."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import anyio

from benchmarks.hostile import attack
from benchmarks.servers import Server
from kandev_host.client import Client, ClientError

DEADLINE_S = 120.0
ATTACKERS = 2
BYSTANDER_S = 0.05
REPLAYED = 200
KEPT_BACKUPS = 2
AUTHOR = {"GIT_AUTHOR_NAME": "soak", "GIT_AUTHOR_EMAIL": "soak@localhost.invalid"}


@dataclass
class Load:
    """`done` counts what was done, `latencies_s` is what a client noticed that only asks how the host is."""

    server: Server
    repository: Path
    done: Counter[str] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)
    _until: float = 0.0

    async def round(self, seconds: float) -> None:
        """All of it at once, for so long; when this returns nothing of it is left in the host."""
        self._until = time.monotonic() + seconds
        async with self._attacked(), asyncio.TaskGroup() as tasks:
            for worker in (*self._workers, self._agent, self._look):
                tasks.create_task(self._work(worker))
            tasks.create_task(self._once(self._back_up))

    async def times(self, count: int) -> None:
        """Each of it so often, every kind beside the others; the attacks as long as that takes."""
        self._until = 0.0
        async with self._attacked(), asyncio.TaskGroup() as tasks:
            for worker in (*self._workers, self._look, self._back_up):
                tasks.create_task(self._repeat(worker, count))

    @property
    def _workers(self) -> tuple[Callable[[], Awaitable[None]], ...]:
        return self._agent, self._shell, self._socket, self._scrape, self._session

    @asynccontextmanager
    async def _attacked(self) -> AsyncIterator[None]:
        attackers = [asyncio.create_task(attack(self.server)) for _ in range(ATTACKERS)]
        try:
            yield
        finally:
            for each in attackers:
                each.cancel()
            await asyncio.gather(*attackers, return_exceptions=True)

    async def _repeat(self, worker: Callable[[], Awaitable[None]], count: int) -> None:
        for _ in range(count):
            await self._once(worker)

    async def _work(self, worker: Callable[[], Awaitable[None]]) -> None:
        while time.monotonic() < self._until:
            await self._once(worker)

    async def _once(self, worker: Callable[[], Awaitable[None]]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            await worker()
        self.done[worker.__name__.strip("_")] += 1

    def _client(self) -> Client:
        return Client.connect(self.server.url, self.server.token, timeout_s=DEADLINE_S)

    async def _agent(self) -> None:
        """A task with a clone; an agent that asks, writes, is diffed and stopped; then all of it goes."""
        async with self._client() as client:
            board = (await client.call("board.create", {"name": "soak"}))["board"]["id"]
            wanted = {"board_id": board, "title": "t", "description": "", "repository_url": str(self.repository)}
            task = (await client.call("task.create", wanted))["task"]["id"]
            await client.call("task.subscribe", {"task_id": task})
            launch = {"task_id": task, "agent_type": "demo", "prompt": "write NOTE.md: hello"}
            await client.call("agent.launch", launch, DEADLINE_S)
            async for told in client.notifications():
                if told.action == "permission.requested":
                    asked = told.payload["permission"]
                    option = next(each["optionId"] for each in asked["options"] if each["kind"] == "allow_once")
                    await client.call("permission.respond", {"permission_id": asked["id"], "option_id": option})
                elif told.action == "acp.result":
                    break
                elif told.action == "acp.error":
                    raise RuntimeError(told.payload)
            await client.call("workspace.diff", {"task_id": task}, DEADLINE_S)
            await client.call("board.delete", {"board_id": board, "force": True}, DEADLINE_S)

    async def _shell(self) -> None:
        async with self._client() as client:
            for pty in (False, True):
                shell = (await client.call("shell.open", {"pty": pty}, DEADLINE_S))["shell"]["id"]
                if not pty:
                    command = {"shell_id": shell, "command": "seq 1000; sleep 0.1 & wait"}
                    await client.call("shell.run", command, DEADLINE_S)
                await client.call("shell.close", {"shell_id": shell}, DEADLINE_S)

    async def _socket(self) -> None:
        """Comes, reads again what has been, and goes, with and without a word."""
        async with self._client() as client:
            head = await client.subscribe("*")
            await client.subscribe("*", after_seq=max(0, head - REPLAYED), journal_id=client.journal_id)
            async for told in client.notifications():
                if told.seq is not None and told.seq >= head - 1:
                    break
        headers = {"Authorization": f"Bearer {self.server.token}"}
        async with aiohttp.ClientSession() as session:
            socket = await session.ws_connect(f"{self.server.url}/ws", headers=headers)
            await socket.send_json({"id": "1", "type": "request", "action": "events.subscribe", "payload": {}})
            transport = socket.get_extra_info("socket")
            if transport is not None:
                transport.shutdown(2)

    async def _scrape(self) -> None:
        headers = {"Authorization": f"Bearer {self.server.token}"}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.get(f"{self.server.url}/metrics") as answer,
        ):
            answer.raise_for_status()
            await answer.read()
        await asyncio.sleep(0.2)

    async def _session(self) -> None:
        """A log-in link, as a browser uses it, and its end."""
        async with self._client() as client:
            ticket = (await client.call("auth.ticket"))["ticket"]
        async with (
            aiohttp.ClientSession(headers={"Origin": self.server.url}) as session,
            session.post(f"{self.server.url}/login", json={"ticket": ticket}) as answer,
        ):
            token = (await answer.json())["token"]
        async with Client.connect(self.server.url, token) as client:
            with suppress(ClientError):  # the socket may go before the answer is read
                await client.call("auth.logout")

    async def _look(self) -> None:
        async with self._client() as client:
            while True:
                began = time.perf_counter()
                await client.call("health.check", timeout_s=DEADLINE_S)
                self.latencies_s.append(time.perf_counter() - began)
                if time.monotonic() >= self._until:
                    return
                await asyncio.sleep(BYSTANDER_S)

    async def _back_up(self) -> None:
        async with self._client() as client:
            await client.call("backup.create", timeout_s=DEADLINE_S)
            backups: list[dict[str, Any]] = (await client.call("backup.list", timeout_s=DEADLINE_S))["backups"]
        for old in backups[KEPT_BACKUPS:]:
            await anyio.Path(old["path"]).unlink()


def make_repository(folder: Path) -> Path:
    """Of one commit."""
    env = {**os.environ, **AUTHOR, "GIT_COMMITTER_NAME": "soak", "GIT_COMMITTER_EMAIL": "soak@localhost.invalid"}
    folder.mkdir()
    (folder / "README.md").write_text("# soak\n")
    for arguments in (("init", "-q", "-b", "main"), ("add", "-A"), ("commit", "-qm", "first")):
        subprocess.run(["git", *arguments], cwd=folder, env=env, check=True, capture_output=True)
    return folder
