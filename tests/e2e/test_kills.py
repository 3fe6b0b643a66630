"""The host killed in every state of a run: nothing of it survives, and the next start says what it found."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

import kandev_host.testing
from kandev_host.client import Client, ClientError

DEADLINE_S = 60
GONE_S = 3.0  # P4
STOPPED_S = 11  # P10: 10 s, and a second for the looks around it
SCRIPTS: dict[str, dict[str, Any]] = {
    "silent": {"initialize": None},
    "stubborn": {
        "ignore_cancel": True, "ignore_term": True, "ignore_eof": True, "prompt": [{"text": "no"}, {"hang": True}]
    },
}  # fmt: skip


@pytest.fixture
def mark() -> str:
    """In the arguments of every scripted agent of this test, to find them by."""
    return f"mark-{os.urandom(6).hex()}"


@pytest.fixture
def host(make_host: Any, mark: str, tmp_path: Path) -> Any:
    agent = tmp_path / "agent"
    source = Path(kandev_host.testing.__file__).with_name("scripted_agent.py").read_text()
    agent.write_text(f"#!{sys.executable}\n{source}")
    agent.chmod(0o755)
    tables = (
        f"[agents.{name}]\ncommand = {json.dumps([str(agent), json.dumps(script), mark])}\n"
        for name, script in SCRIPTS.items()
    )
    return make_host("\n".join(tables))


@pytest.fixture
def tarpit() -> Iterator[int]:
    """The port of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def processes(*marks: str) -> list[str]:
    """Command lines of what runs with one of these in its environment or arguments."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                text = Path(f"/proc/{entry}/cmdline").read_bytes()
                environ = Path(f"/proc/{entry}/environ").read_bytes()
            except OSError:
                continue
            if any(mark.encode() in text + environ for mark in marks):
                found.append(text.decode(errors="replace"))
    return found


def gone(*marks: str) -> bool:
    deadline = time.monotonic() + GONE_S
    while processes(*marks) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not processes(*marks)


async def new_task(client: Client, **fields: Any) -> str:
    board = (await client.call("board.create", {"name": "Work"}))["board"]
    payload = {"board_id": board["id"], "title": "Work", "description": "", **fields}
    return str((await client.call("task.create", payload))["task"]["id"])


async def until(client: Client, found: Callable[[Any], bool]) -> None:
    with anyio.fail_after(DEADLINE_S):
        async for message in client.notifications():
            if found(message):
                return


async def launched(client: Client, task_id: str, agent_type: str, prompt: str | None) -> str:
    payload = {"task_id": task_id, "agent_type": agent_type, **({} if prompt is None else {"prompt": prompt})}
    return str((await client.call("agent.launch", payload))["agent"]["id"])


def is_status(status: str) -> Callable[[Any], bool]:
    return lambda message: message.action == "agent.updated" and message.payload["agent"]["status"] == status


async def pending(client: Client, tarpit: int) -> str:
    task_id = await new_task(client, repository_url=f"http://127.0.0.1:{tarpit}/x.git")
    agent_id = await launched(client, task_id, "demo", None)
    with anyio.fail_after(DEADLINE_S):
        while not processes(f"127.0.0.1:{tarpit}/x.git"):
            await anyio.sleep(0.02)
    return agent_id


async def starting(client: Client, _: int) -> str:
    agent_id = await launched(client, await new_task(client), "silent", None)
    with anyio.fail_after(DEADLINE_S):
        while not processes(agent_id):
            await anyio.sleep(0.02)
    return agent_id


async def prompting(client: Client, _: int) -> str:
    agent_id = await launched(client, await new_task(client), "stubborn", "go")
    await until(client, lambda message: message.action == "acp.log")
    await client.call("agent.prompt", {"agent_id": agent_id, "prompt": "and this later"})
    return agent_id


async def waiting(client: Client, _: int) -> str:
    agent_id = await launched(client, await new_task(client), "demo", "write HELLO.md: hello")
    await until(client, lambda message: message.action == "permission.requested")
    return agent_id


async def idle(client: Client, _: int) -> str:
    agent_id = await launched(client, await new_task(client), "stubborn", None)
    await until(client, is_status("RUNNING"))
    return agent_id


@pytest.mark.anyio
@pytest.mark.parametrize("state", [pending, starting, prompting, waiting, idle])
async def test_after_a_kill_nothing_runs_and_all_is_written_down(
    host: Any, mark: str, tarpit: int, state: Callable[[Client, int], Any]
) -> None:
    async with Client.connect(host.url, host.token) as client:
        agent_id = await state(client, tarpit)
        task_id = (await client.call("agent.status", {"agent_id": agent_id}))["agent"]["task_id"]
        assert processes(agent_id, mark, f"127.0.0.1:{tarpit}/x.git")
        host.kill()
    assert gone(agent_id, mark, f"127.0.0.1:{tarpit}/x.git")
    host.start()
    assert host.recovered["agents_failed"] == [agent_id]
    assert host.recovered["tasks_failed"] == [task_id]
    async with Client.connect(host.url, host.token) as client:
        agent = (await client.call("agent.status", {"agent_id": agent_id}))["agent"]
        task = (await client.call("task.get", {"task_id": task_id}))["task"]
        asked = (await client.call("permission.list", {"agent_id": agent_id}))["permissions"]
    assert (agent["status"], agent["activity"], task["state"]) == ("FAILED", None, "FAILED")
    assert "host died" in agent["error_message"]
    assert [row["state"] for row in asked] == (["pending"] if state is waiting else []), "its run can be gone on with"
    assert host.recovered["turns_closed"] == {prompting: 1, waiting: 1}.get(state, 0), "what waits, waits on"
    if state is pending:
        assert not [*host.home.glob("workspaces/*"), *host.home.glob("uids/*")]
    host.kill()
    host.start()
    assert not any(host.recovered.values()), "a second start found something new"


@pytest.mark.anyio
async def test_a_host_killed_while_an_agent_is_being_stopped(host: Any, mark: str) -> None:
    async with Client.connect(host.url, host.token) as client:
        agent_id = await prompting(client, 0)
        async with Client.connect(host.url, host.token) as other, anyio.create_task_group() as tasks:
            tasks.start_soon(_stop, other, agent_id)
            await anyio.sleep(0.3)
            host.kill()
    assert gone(agent_id, mark)
    host.start()
    assert host.recovered["agents_failed"] == [agent_id]


async def _stop(client: Client, agent_id: str) -> None:
    with pytest.raises(ClientError):
        await client.call("agent.stop", {"agent_id": agent_id})


@pytest.mark.anyio
async def test_p10_sigterm_with_twenty_agents_that_ignore_it(host: Any, mark: str) -> None:
    agents = 20
    async with Client.connect(host.url, host.token) as client:
        for _ in range(agents):
            await launched(client, await new_task(client), "stubborn", "go")
        running = 0
        with anyio.fail_after(DEADLINE_S):
            async for message in client.notifications():
                running += message.action == "acp.log"
                if running == agents:
                    break
    assert processes(mark)
    started = time.monotonic()
    assert host.stop() == 0
    assert time.monotonic() - started < STOPPED_S
    assert processes(mark) == []
    host.start()
    assert not any(host.recovered.values())


@pytest.mark.anyio
async def test_a_second_sigterm_ends_the_host_at_once(host: Any, mark: str) -> None:
    async with Client.connect(host.url, host.token) as client:
        agent_id = await prompting(client, 0)
        host.process.send_signal(signal.SIGTERM)
        with anyio.fail_after(DEADLINE_S), pytest.raises(ClientError):
            async for _ in client.notifications():  # until it hangs up: it has the first signal
                pass
    host.process.send_signal(signal.SIGTERM)
    assert host.ended(DEADLINE_S) == 1
    assert gone(agent_id, mark)
    host.start()
    assert host.recovered["agents_failed"] == [agent_id]


@pytest.mark.parametrize("delay_s", [0.2, 0.5])
def test_a_host_killed_while_it_starts_leaves_a_data_folder_that_opens(tmp_path: Path, delay_s: float) -> None:
    env = {**os.environ, "KANDEV_HOME": str(tmp_path / "data")}
    command = [sys.executable, "-m", "kandev_host", "up", "--port", "0", "--json"]
    for _ in range(2):
        with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            time.sleep(delay_s)
            process.kill()
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["recovered"]["agents_failed"] == []
        process.terminate()
        process.communicate(timeout=DEADLINE_S)


@pytest.mark.parametrize("forged", ["x", "²-1/a", "1-1/ff"])
def test_a_mark_that_a_program_gave_itself_keeps_no_host_from_starting(make_host: Any, forged: str) -> None:
    host = make_host()
    assert host.stop() == 0
    owner = hashlib.sha256(str(host.home.resolve()).encode()).hexdigest()[:16]
    with subprocess.Popen(["sleep", "60"], env={"KANDEV_JAIL": f"{owner}/{forged}"}) as program:
        host.start()
        program.kill()


async def first_refusal(client: Client, task_id: str) -> str:
    """The code with which an update is refused, after those that still find room."""
    for _ in range(100):
        try:
            await client.call("task.update", {"task_id": task_id, "description": os.urandom(5000).hex()})
        except ClientError as error:
            return error.code
    return "none was"


@pytest.mark.anyio
async def test_a_full_disk_refuses_writes_and_serves_reads(make_host: Any, small_disk: Any) -> None:
    host = make_host()
    assert host.stop() == 0
    host.home = small_disk.folder / "data"
    host.start()
    async with Client.connect(host.url, host.token) as client:
        task_id = await new_task(client)
        small_disk.fill()
        assert await first_refusal(client, task_id) == "STORAGE_FULL"
        written = (await client.call("task.get", {"task_id": task_id}))["task"]
        small_disk.make_room()
        await client.call("task.update", {"task_id": task_id, "title": "again"})
        host.kill()
    host.start()
    async with Client.connect(host.url, host.token) as client:
        task = (await client.call("task.get", {"task_id": task_id}))["task"]
    assert (task["title"], task["description"]) == ("again", written["description"])
    assert host.stop() == 0
