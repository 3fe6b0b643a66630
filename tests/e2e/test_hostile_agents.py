"""One hostile agent for each observation: each comes to its own end, and harms neither the host nor its neighbour."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest

from kandev_host.client import Client, ClientError
from kandev_host.testing import hostile_agent

pytestmark = pytest.mark.anyio

DEADLINE_S = 60
FLOOD_DEADLINE_S = 600
GROWTH_BYTES = 64 << 20
ENDED = {"FAILED", "STOPPED", "COMPLETED"}
OWN_ERRORS = {"TURN_FAILED", "AGENT_FAILED"}
# Long enough for agents that answer at all, also on a busy machine; four do not listen to a cancel.
TIMING = """
[session]
initialize_timeout_s = 10.0
request_timeout_s = 10.0
cancel_grace_s = 10.0
kill_grace_s = 0.5
"""


def type_of(mode: str) -> str:
    return "hostile-" + re.sub(r"\W+", "-", mode.lower())


@pytest.fixture(scope="module")
def hostile_host(make_host: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A host whose settings hold a table for each mode, and a well-behaved neighbour."""
    program = str(hostile_agent.write_program(tmp_path_factory.mktemp("agents") / "hostile-agent"))
    modes = [*hostile_agent.MODES, *hostile_agent.FLOODS, "neighbour"]
    tables = (f"[agents.{type_of(mode)}]\ncommand = {json.dumps([program, mode])}\n" for mode in modes)
    host = make_host(TIMING + "\n".join(tables))
    yield host
    host.stop()
    shutil.rmtree(host.home)  # gigabytes


@dataclass
class Memory:
    """The resident memory of a process: its peak since this was made."""

    pid: int
    before_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        self.before_bytes = self._status("VmRSS")

    @property
    def peak_growth_bytes(self) -> int:
        return self._status("VmHWM") - self.before_bytes

    def _status(self, name: str) -> int:
        found = re.search(rf"^{name}:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text(), re.M)
        assert found is not None
        return int(found[1]) << 10


class Neighbour:
    """A second session on the same host: a turn of it is over in time, whatever the first one does."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._agent_id = ""

    async def move_in(self) -> None:
        self._agent_id = (await launch(self._client, type_of("neighbour")))["id"]

    async def turn(self) -> None:
        with anyio.fail_after(DEADLINE_S):
            asked = await self._client.call("agent.prompt", {"agent_id": self._agent_id, "prompt": "hello"})
            async for message in self._client.notifications():
                if message.action == "acp.result" and message.payload["turn_id"] == asked["turn_id"]:
                    assert message.payload["summary"] == "Done."
                    return


@dataclass
class Scene:
    """A host with a neighbour, seen from two connections that follow nothing of the hostile agent."""

    host: Any
    client: Client
    neighbour: Neighbour
    agent: dict[str, Any] = field(default_factory=dict)
    namespaces: set[str] = field(default_factory=set)
    began: int = 0
    last: int | None = None
    mode: str = ""
    may_grow_bytes: int = GROWTH_BYTES

    async def look(self) -> dict[str, Any]:
        """The host is well, the neighbour gets its turn; how the hostile agent does."""
        with anyio.fail_after(DEADLINE_S):
            assert (await self.client.call("health.check"))["status"] == "ok"
        await self.neighbour.turn()
        self.namespaces |= namespaces_of(self.agent["id"])
        return dict(await self.client.call("agent.status", {"agent_id": self.agent["id"]}))

    async def until(self, reached: Callable[[dict[str, Any]], Any], deadline_s: float = DEADLINE_S) -> dict[str, Any]:
        with anyio.fail_after(deadline_s):
            while not reached(status := await self.look()):
                pass
        return status

    async def start(self, mode: str, expected: Mapping[str, Any]) -> None:
        self.mode, self.may_grow_bytes = mode, expected.get("grows", GROWTH_BYTES)
        self.began = await self._head()
        preset = {"preset": expected["preset"]} if "preset" in expected else {}
        self.agent = await launch(self.client, type_of(mode), prompt="go", **preset)
        await self.client.call("events.unsubscribe", {"topics": [f"task:{self.agent['task_id']}"]})

    async def at_work(self, pending: int) -> None:
        """It has said something, or so many questions of it wait."""
        with anyio.fail_after(DEADLINE_S):
            while True:
                await self.look()
                if pending and len(await self.asked("pending")) >= pending:
                    return
                if not pending and any(said == "working" for said in (await self.told())[1]):
                    return

    async def asked(self, state: str | None = None) -> list[dict[str, Any]]:
        wanted = {} if state is None else {"state": state}
        payload = {"agent_id": self.agent["id"], "limit": 500, **wanted}
        return list((await self.client.call("permission.list", payload))["permissions"])

    async def told(self) -> tuple[list[dict[str, Any]], list[str]]:
        """Errors and results, and texts: all, or of the last events if `last` says how many."""
        updates: list[dict[str, Any]] = []
        after: int | None = self.began if self.last is None else max(self.began, await self._head() - self.last)
        while after is not None:
            payload = {"agent_id": self.agent["id"], "after_seq": after, "limit": 500}
            page = await self.client.call("agent.transcript", payload, timeout_s=DEADLINE_S)
            updates, after = updates + page["updates"], page["next_after_seq"]
        ends = [{"action": item["action"], **item["payload"]} for item in updates]
        texts = [item["payload"]["message"] for item in updates if item["action"] == "acp.log"]
        return [end for end in ends if end["action"] in {"acp.error", "acp.result"}], texts

    async def _head(self) -> int:
        return int((await self.client.call("events.subscribe", {"topics": ["board:none"]}))["seq"])

    async def stop(self, *, force: bool = False) -> dict[str, Any]:
        """The agent's row once it has ended, by itself or by us."""
        try:
            payload = {"agent_id": self.agent["id"], "force": force}
            await self.client.call("agent.stop", payload, timeout_s=DEADLINE_S)
        except ClientError as error:
            assert error.code == "CONFLICT"  # noqa: PT017 - it has ended already
        return dict((await self.client.call("agent.status", {"agent_id": self.agent["id"]}))["agent"])


def namespaces_of(agent_id: str) -> set[str]:
    """The PID namespaces in which processes with this id in their environment or arguments live, but for ours."""
    found = set()
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            known = Path(f"/proc/{entry}/environ").read_bytes() + Path(f"/proc/{entry}/cmdline").read_bytes()
            if agent_id.encode() in known:
                found.add(os.readlink(f"/proc/{entry}/ns/pid"))
        except OSError:
            continue
    return found - {os.readlink("/proc/self/ns/pid")}


def processes_in(namespaces: set[str]) -> list[str]:
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{entry}/ns/pid") in namespaces:
                found.append(Path(f"/proc/{entry}/cmdline").read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return found


async def launch(client: Client, agent_type: str, **more: Any) -> dict[str, Any]:
    board = (await client.call("board.create", {"name": "Work"}))["board"]
    task = {"board_id": board["id"], "title": "Work", "description": "", "agent_type": agent_type}
    task_id = (await client.call("task.create", task))["task"]["id"]
    return dict((await client.call("agent.launch", {"task_id": task_id, **more}))["agent"])


@pytest.fixture
async def scene(hostile_host: Any) -> AsyncIterator[Scene]:
    """And afterwards: nothing of the agent is left, the host is well, it has not grown, and had no surprise."""
    said = len(hostile_host.log())
    async with (
        Client.connect(hostile_host.url, hostile_host.token) as client,
        Client.connect(hostile_host.url, hostile_host.token) as beside,
    ):
        neighbour = Neighbour(beside)
        await neighbour.move_in()
        await neighbour.turn()
        memory = Memory(hostile_host.process.pid)
        scene = Scene(hostile_host, client, neighbour)
        try:
            yield scene
        finally:
            await scene.stop(force=True)
        with anyio.fail_after(DEADLINE_S):
            while processes_in(scene.namespaces) or namespaces_of(scene.agent["id"]):
                await anyio.sleep(0.02)  # what was killed may be about to vanish
        grown = memory.peak_growth_bytes
        print(f"\n{scene.mode}: {memory.before_bytes >> 20} MiB and at most {grown >> 20} more")
        assert grown < scene.may_grow_bytes
        await scene.look()
        await beside.call("agent.stop", {"agent_id": neighbour._agent_id, "force": True})
    assert "Traceback" not in hostile_host.log()[said:]


@pytest.mark.parametrize("mode", hostile_agent.MODES)
async def test_p14_p15_p16_a_hostile_agent_harms_only_itself(scene: Scene, mode: str) -> None:
    await run(scene, mode, hostile_agent.MODES[mode], DEADLINE_S)


@pytest.mark.timeout(FLOOD_DEADLINE_S + 3 * DEADLINE_S)
@pytest.mark.parametrize("mode", hostile_agent.FLOODS)
async def test_p14_a_gigabyte_is_taken_at_its_own_pace_in_little_memory(scene: Scene, mode: str) -> None:
    scene.last = 30 if re.search("updates|limit", mode) else None  # nobody reads a gigabyte
    await run(scene, mode, hostile_agent.FLOODS[mode], FLOOD_DEADLINE_S)


async def run(scene: Scene, mode: str, expected: Mapping[str, Any], deadline_s: float) -> None:
    await scene.start(mode, expected)
    if expected.get("cancel"):
        await scene.at_work(expected.get("pending", 0))
        await scene.client.call("agent.cancel", {"agent_id": scene.agent["id"]})
    by_itself = expected["status"] != "STOPPED"
    await scene.until(
        lambda seen: seen["status"] in ENDED if by_itself else seen["usage"]["turns"] or seen["status"] in ENDED,
        deadline_s,
    )
    await check_told(scene, expected)
    row = await scene.stop()
    assert (row["status"], row["failure"]) == (expected["status"], expected.get("failure")), row["error_message"]
    if expected["turn"] is None:
        assert expected["words"] in row["error_message"]
    if "asked" in expected:
        asked = await scene.asked()
        assert Counter(item["state"] for item in asked) == expected["asked"]
        assert all(item["tool_call"].items() >= expected.get("shown", {}).items() for item in asked)
    if "logged" in expected:
        payload = {"agent_id": scene.agent["id"], "limit": 500}
        logs = (await scene.client.call("agent.logs", payload))["logs"]
        assert expected["logged"] in [log["message"] for log in logs]


async def check_told(scene: Scene, expected: Mapping[str, Any]) -> None:
    """What was told of its turn, and of its errors."""
    wanted = expected.get("said", [])
    with anyio.fail_after(DEADLINE_S):
        while not set(wanted) <= set((told := await scene.told())[1]):
            await scene.look()
    ends, _ = told
    codes = [end["code"] for end in ends if end["action"] == "acp.error"]
    assert {*codes} - OWN_ERRORS == {*expected.get("codes", [])}, ends
    if expected["turn"] == "failed":
        failed = [end["message"] for end in ends if end.get("code") == "TURN_FAILED"]
        assert any(expected["words"] in message for message in failed), ends
    elif expected["turn"] is not None:
        assert [end["status"] for end in ends if end["action"] == "acp.result"] == [expected["turn"]], ends
