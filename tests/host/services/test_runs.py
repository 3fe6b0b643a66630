"""Launches and their ends: the demo agent in the real jail, through the services."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from msgspec.structs import replace

from kandev_agents.presets import DEMO
from kandev_host.errors import Busy, Conflict, NotFound, Unavailable, ValidationFailed
from kandev_host.interfaces import AgentType, Put
from kandev_host.models import AgentInstance, Limits, QueueEntry, Task, Workspace
from kandev_host.protocol.actions.agents import (
    AgentCancel,
    AgentLaunch,
    AgentLogs,
    AgentPrompt,
    AgentStatusGet,
    AgentStop,
    AgentTranscript,
    AgentTypes,
    AgentTypeUpdate,
    PermissionList,
    PermissionRespond,
    WorkspaceDiff,
)
from kandev_host.protocol.actions.boards import BoardCreate, BoardDelete
from kandev_host.protocol.actions.orchestrator import OrchestratorComplete, OrchestratorStart, OrchestratorStop
from kandev_host.protocol.actions.tasks import TaskCreate, TaskDelete, TaskStateChange
from kandev_host.settings import OrchestratorSettings, Settings

pytestmark = pytest.mark.anyio

WAIT_S = 60.0
ONE_ATTEMPT = Settings(orchestrator=OrchestratorSettings(attempts=1))
TYPES = [
    DEMO,
    AgentType(name="missing", command=("no-such-agent",), install_hint="npm i no-such-agent"),
    AgentType(name="keyed", command=DEMO.command, env_required=("NO_SUCH_KEY",)),
    AgentType(name="online", command=DEMO.command, hosts=("api.example.com",)),
    replace(DEMO, name="off", enabled=False),
    AgentType(name="garbage", command=("sh", "-c", "echo 'went wrong' >&2; echo garbage; exit 3")),
]


class Desk:
    def __init__(self, house: Any, board_id: str) -> None:
        self.house = house
        self.board_id = board_id

    async def task(self, description: str = "", **fields: Any) -> Task:
        request = TaskCreate(
            board_id=self.board_id,
            title="t",
            description=description,
            agent_type=fields.pop("agent_type", "demo"),
            **fields,
        )
        task: Task = (await self.house.tasks.create(self.house.me, request)).task
        return task

    async def launch(self, task: Task, **fields: Any) -> AgentInstance:
        reply = await self.house.agents.launch(self.house.me, AgentLaunch(task_id=task.id, **fields))
        agent: AgentInstance = reply.agent
        return agent

    async def start(self, task: Task, preset: Any = "unattended") -> AgentInstance:
        request = OrchestratorStart(task_id=task.id, preset=preset)
        agent: AgentInstance = (await self.house.orchestrator.start(self.house.me, request)).agent
        return agent

    async def until(self, meets: Callable[[str, dict[str, Any]], bool]) -> dict[str, Any]:
        """The first event, past or to come, that meets the condition."""
        seen = 0
        with anyio.fail_after(WAIT_S):
            while True:
                while seen < len(self.house.events):
                    item = self.house.events[seen]
                    seen += 1
                    payload = msgspec.json.decode(item.payload)
                    if meets(item.action, payload):
                        return dict(payload)
                await self.house.arrived.wait()

    async def became(self, task: Task, state: str) -> Task:
        found = await self.until(
            lambda action, payload: (
                action == "task.state_changed" and payload["task"]["id"] == task.id and payload["new_state"] == state
            )
        )
        return msgspec.convert(found["task"], Task)

    async def agent_became(self, agent: AgentInstance, **fields: Any) -> AgentInstance:
        found = await self.until(
            lambda action, payload: (
                action == "agent.updated"
                and payload["agent"]["id"] == agent.id
                and all(payload["agent"][key] == value for key, value in fields.items())
            )
        )
        return msgspec.convert(found["agent"], AgentInstance)


@pytest.fixture
async def desk(open_house: Any, tmp_path: Path, anyio_backend: str) -> AsyncIterator[Desk]:
    async with open_house(tmp_path / "data", TYPES, ONE_ATTEMPT) as house:
        board = await house.boards.create(house.me, BoardCreate(name="Work"))
        yield Desk(house, board.board.id)


# --- types and refusals ----------------------------------------------------------------------------------------------


async def test_types_say_why_one_cannot_be_started_and_what_to_do(desk: Desk) -> None:
    types = (await desk.house.agents.types.list(desk.house.me, AgentTypes())).agent_types
    found = {item.name: item.availability for item in types}
    assert found["demo"].ok
    assert found["missing"].fix == "npm i no-such-agent"
    assert "NO_SUCH_KEY" in (found["keyed"].reason or "")
    assert '[agents.online] network = "allowlist"' in (found["online"].fix or "")
    assert "disabled" in (found["off"].reason or "")


async def test_what_a_user_changes_of_a_type_stays_and_nothing_else_can_be_changed(
    open_house: Any, tmp_path: Path
) -> None:
    async with open_house(tmp_path / "data", TYPES, ONE_ATTEMPT) as house:
        limits = Limits(memory_limit="1g")
        reply = await house.agents.types.update(
            house.me, AgentTypeUpdate(name="demo", enabled=False, default_resources=limits)
        )
        assert (reply.agent_type.enabled, reply.agent_type.default_resources) == (False, limits)
    async with open_house(tmp_path / "data", TYPES, ONE_ATTEMPT) as house:
        again = house.agents.types.get("demo")
        assert (again.enabled, again.default_resources) == (False, limits)
        reply = await house.agents.types.update(
            house.me, AgentTypeUpdate(name="demo", enabled=True, default_resources=None)
        )
        assert (reply.agent_type.availability.ok, reply.agent_type.default_resources) == (True, Limits())
    assert set(AgentTypeUpdate.__struct_fields__) == {"name", "enabled", "default_resources", "default_options"}


async def test_what_the_settings_say_later_is_not_hidden_by_what_a_user_changed(
    open_house: Any, tmp_path: Path
) -> None:
    """An agent that was limited once can still be disabled in the settings, one disabled once still be limited."""
    limits = Limits(memory_limit="1g")
    async with open_house(tmp_path / "data", TYPES, ONE_ATTEMPT) as house:
        types, me = house.agents.types, house.me
        await types.update(me, AgentTypeUpdate(name="demo", default_resources=limits))
        await types.update(me, AgentTypeUpdate(name="keyed", enabled=False))
    later = [replace(DEMO, enabled=False), replace(TYPES[2], default_resources=limits)]
    async with open_house(tmp_path / "data", later, ONE_ATTEMPT) as house:
        assert house.agents.types.get("demo").enabled is False
        assert house.agents.types.get("keyed").default_resources == limits


async def test_changes_of_types_that_cannot_be_are_refused(desk: Desk) -> None:
    types, me = desk.house.agents.types, desk.house.me
    with pytest.raises(NotFound) as caught:
        await types.update(me, AgentTypeUpdate(name="nobody", enabled=True))
    assert "demo" in caught.value.details["known"]
    with pytest.raises(ValidationFailed) as invalid:
        await types.update(me, AgentTypeUpdate(name="demo", default_resources=Limits(memory_limit="much")))
    assert invalid.value.details["field"] == "default_resources.memory_limit"
    with pytest.raises(ValidationFailed):
        await types.update(me, AgentTypeUpdate(name="off", enabled=True))


async def test_a_broken_installation_is_not_told_to_install(open_house: Any, tmp_path: Path) -> None:
    script = tmp_path / "agent"
    script.write_text("#!/usr/bin/env no-such-interpreter\n")
    script.chmod(0o755)
    broken = AgentType(name="broken", command=(str(script),), install_hint="npm i broken")
    async with open_house(tmp_path / "data", [broken], Settings()) as house:
        types = (await house.agents.types.list(house.me, AgentTypes())).agent_types
    assert types[0].availability.fix == "install no-such-interpreter, or name its path"


@pytest.mark.parametrize("name", ["missing", "keyed", "online", "off"])
async def test_an_agent_that_cannot_be_started_leaves_the_task_alone(desk: Desk, name: str) -> None:
    task = await desk.task()
    with pytest.raises(Unavailable) as caught:
        await desk.launch(task, agent_type=name)
    assert caught.value.details["fix"]
    assert await desk.house.store.get(Task, task.id) == task


async def test_an_unknown_agent_type_is_not_found_and_the_known_are_named(desk: Desk) -> None:
    with pytest.raises(NotFound) as caught:
        await desk.launch(await desk.task(), agent_type="nobody")
    assert "demo" in caught.value.details["known"]


async def test_a_task_without_agent_type_needs_one(desk: Desk) -> None:
    with pytest.raises(ValidationFailed) as caught:
        await desk.launch(await desk.task(agent_type=None))
    assert caught.value.details["field"] == "agent_type"


async def test_an_unknown_runtime_is_unavailable(desk: Desk) -> None:
    with pytest.raises(Unavailable):
        await desk.launch(await desk.task(), runtime="nowhere")


async def test_a_limit_that_is_no_amount_is_refused_by_its_path(desk: Desk) -> None:
    with pytest.raises(ValidationFailed) as caught:
        await desk.launch(await desk.task(), resources=Limits(memory_limit="lots"))
    assert caught.value.details["field"] == "resources.memory_limit"


async def test_a_content_block_is_checked_by_its_path(desk: Desk) -> None:
    with pytest.raises(ValidationFailed) as caught:
        await desk.launch(await desk.task(), prompt=[{"type": "text", "text": "x"}, {"type": "text"}])
    assert caught.value.details["field"] == "prompt[1].text"


async def test_a_repository_that_has_gone_is_refused_before_anything_is_written(desk: Desk, repository: Path) -> None:
    task = await desk.task(repository_url=str(repository))
    shutil.rmtree(repository)
    with pytest.raises(ValidationFailed):
        await desk.launch(task)
    assert await desk.house.store.get(Task, task.id) == task
    assert await desk.house.store.count(AgentInstance) == 0


# --- runs ------------------------------------------------------------------------------------------------------------


async def test_an_orchestrated_run_completes_its_task_and_leaves_a_diff(desk: Desk) -> None:
    task = await desk.task("write hello.txt: hello")
    agent = await desk.start(task)
    await desk.became(task, "COMPLETED")
    await desk.agent_became(agent, status="COMPLETED")
    reply = await desk.house.workspaces.diff(desk.house.me, WorkspaceDiff(task_id=task.id))
    assert [file.path for file in reply.files] == ["hello.txt"]


async def test_a_run_waits_for_its_permission(desk: Desk) -> None:
    task = await desk.task("write hello.txt: hello")
    await desk.start(task, preset=None)
    asked = (await desk.until(lambda action, _: action == "permission.requested"))["permission"]
    waiting = (await desk.house.permissions.list(desk.house.me, PermissionList(state="pending"))).permissions
    option = next(option["optionId"] for option in asked["options"] if option["kind"] == "allow_once")
    await desk.house.permissions.respond(desk.house.me, PermissionRespond(permission_id=asked["id"], option_id=option))
    await desk.became(task, "COMPLETED")
    assert [request.id for request in waiting] == [asked["id"]]


async def test_a_refusal_blocks_the_task(desk: Desk) -> None:
    task = await desk.task("refuse")
    await desk.start(task)
    assert (await desk.became(task, "BLOCKED")).state_reason == "The agent refused to go on"


async def test_an_error_fails_the_task_with_its_words(desk: Desk) -> None:
    task = await desk.task("fail: out of tokens")
    await desk.start(task)
    assert "out of tokens" in ((await desk.became(task, "FAILED")).state_reason or "")


async def test_an_agent_that_dies_fails_the_task(desk: Desk) -> None:
    task = await desk.task("exit 7")
    agent = await desk.start(task)
    await desk.became(task, "FAILED")
    assert (await desk.agent_became(agent, status="FAILED")).exit_code == 7


async def test_an_agent_that_prints_garbage_fails_with_its_stderr_in_the_logs(desk: Desk) -> None:
    task = await desk.task(agent_type="garbage")
    agent = await desk.launch(task)
    await desk.became(task, "FAILED")
    status = await desk.house.agent_reading.status(desk.house.me, AgentStatusGet(agent_id=agent.id))
    logs = (await desk.house.agent_reading.logs(desk.house.me, AgentLogs(agent_id=agent.id))).logs
    assert (status.status, status.exit_code, bool(status.error_message)) == ("FAILED", 3, True)
    assert "went wrong" in [line.message for line in logs]


async def test_a_launched_agent_waits_idle_for_prompts(desk: Desk) -> None:
    task = await desk.task()
    agent = await desk.launch(task)
    await desk.agent_became(agent, status="RUNNING", activity="idle")
    row = await desk.house.store.get(Task, task.id)
    assert (row.state, row.assigned_agent_id) == ("IN_PROGRESS", agent.id)


async def test_a_turn_of_a_launched_agent_leaves_the_task_in_progress(desk: Desk) -> None:
    task = await desk.task()
    agent = await desk.launch(task, prompt="say: hello")
    await desk.until(lambda action, _: action == "acp.result")
    assert (await desk.house.store.get(Task, task.id)).state == "IN_PROGRESS"
    assert desk.house.supervisor.live(agent.id) is not None


async def test_a_prompt_right_after_the_launch_is_taken(desk: Desk) -> None:
    agent = await desk.launch(await desk.task())
    reply = await desk.house.agents.prompt(desk.house.me, AgentPrompt(agent_id=agent.id, prompt="say: hello"))
    result = await desk.until(lambda action, _: action == "acp.result")
    assert result["turn_id"] == reply.turn_id


async def test_a_prompt_reopens_a_finished_task(desk: Desk) -> None:
    task = await desk.task()
    agent = await desk.launch(task)
    await desk.house.tasks.state(desk.house.me, TaskStateChange(task_id=task.id, state="COMPLETED"))
    await desk.house.agents.prompt(desk.house.me, AgentPrompt(agent_id=agent.id, prompt="say: hello"))
    assert (await desk.house.store.get(Task, task.id)).state == "IN_PROGRESS"


async def test_the_transcript_holds_the_stored_updates_in_order(desk: Desk) -> None:
    task = await desk.task("say: hello")
    await desk.start(task)
    await desk.became(task, "COMPLETED")
    reply = await desk.house.agent_reading.transcript(desk.house.me, AgentTranscript(task_id=task.id))
    numbers = [entry.seq for entry in reply.updates]
    assert numbers == sorted(numbers)
    assert "acp.result" in [entry.action for entry in reply.updates]


async def test_a_second_launch_of_a_task_is_a_conflict(desk: Desk) -> None:
    task = await desk.task()
    agent = await desk.launch(task)
    with pytest.raises(Conflict) as caught:
        await desk.launch(task)
    assert caught.value.details["agent_id"] == agent.id


async def test_of_two_launches_at_once_one_wins(desk: Desk) -> None:
    task = await desk.task()
    outcomes: list[str] = []

    async def attempt() -> None:
        try:
            await desk.launch(task)
        except Conflict as error:
            outcomes.append(error.code)
        else:
            outcomes.append("launched")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(attempt)
        tasks.start_soon(attempt)
    assert sorted(outcomes) == ["CONFLICT", "launched"]


async def test_a_workspace_that_cannot_be_made_fails_the_run_and_leaves_nothing(desk: Desk) -> None:
    task = await desk.task(repository_url="http://127.0.0.1:9/x.git")
    agent = await desk.launch(task)
    await desk.became(task, "FAILED")
    ended = await desk.agent_became(agent, status="FAILED")
    assert "fatal:" in (ended.error_message or "")
    assert await desk.house.store.get(Workspace, task.id) is None


# --- ends ------------------------------------------------------------------------------------------------------------


async def test_cancelling_a_turn_keeps_agent_and_task(desk: Desk) -> None:
    task = await desk.task("sleep 60")
    agent = await desk.start(task)
    await desk.agent_became(agent, activity="prompting")
    await desk.house.agents.cancel(desk.house.me, AgentCancel(agent_id=agent.id))
    await desk.until(lambda action, payload: action == "acp.result" and payload["status"] == "cancelled")
    assert (await desk.house.store.get(Task, task.id)).state == "IN_PROGRESS"
    assert desk.house.supervisor.live(agent.id) is not None


async def test_cancelling_without_a_turn_is_a_conflict(desk: Desk) -> None:
    agent = await desk.launch(await desk.task())
    await desk.agent_became(agent, status="RUNNING", activity="idle")
    with pytest.raises(Conflict):
        await desk.house.agents.cancel(desk.house.me, AgentCancel(agent_id=agent.id))


async def test_stopping_a_run_cancels_the_task_and_ends_the_agent(desk: Desk) -> None:
    task = await desk.task("sleep 60")
    agent = await desk.start(task)
    await desk.agent_became(agent, activity="prompting")
    reply = await desk.house.orchestrator.stop(desk.house.me, OrchestratorStop(task_id=task.id))
    assert (reply.task.state, reply.agent.id, reply.agent.status) == ("CANCELLED", agent.id, "STOPPED")
    assert (await desk.house.store.get(Task, task.id)).state == "CANCELLED"


async def test_completing_a_task_ends_its_agent(desk: Desk) -> None:
    task = await desk.task("sleep 60")
    agent = await desk.start(task)
    await desk.agent_became(agent, activity="prompting")
    reply = await desk.house.orchestrator.complete(desk.house.me, OrchestratorComplete(task_id=task.id))
    assert (reply.task.state, reply.agent.status) == ("COMPLETED", "COMPLETED")


async def test_an_agent_stopped_before_it_started_is_stopped(desk: Desk) -> None:
    task = await desk.task()
    agent = await desk.launch(task)
    reply = await desk.house.agents.stop(desk.house.me, AgentStop(agent_id=agent.id, force=True))
    assert reply.agent.status == "STOPPED"
    assert (await desk.house.store.get(Task, task.id)).state == "CANCELLED"


@pytest.mark.parametrize("settled", [True, False], ids=["live", "on its way up"])
async def test_a_stop_whose_end_the_store_does_not_take_is_busy_and_cancels_the_task_later(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, settled: bool
) -> None:
    """P12: not acknowledged before it is written; and written, as what it was, when the store takes it again."""
    monkeypatch.setattr("kandev_host.sessions.conclusion.RECORD_S", 0.1)
    task = await desk.task("sleep 60")
    agent = await desk.start(task)
    if settled:
        await desk.agent_became(agent, activity="prompting")
    record = desk.house.journal.record

    async def refusing(*changes: Any, **options: Any) -> None:
        if any(isinstance(change, Put) and getattr(change.row, "status", "") == "STOPPED" for change in changes):
            raise Busy("The database is locked")
        await record(*changes, **options)

    with monkeypatch.context() as patch:
        patch.setattr(desk.house.journal, "record", refusing)
        with pytest.raises(Busy, match="agent is gone"):
            await desk.house.agents.stop(desk.house.me, AgentStop(agent_id=agent.id))
        assert desk.house.agents.alive(agent.id)
        assert (await desk.house.store.get(Task, task.id)).state == "IN_PROGRESS"
    await desk.agent_became(agent, status="STOPPED")
    assert (await desk.house.store.get(Task, task.id)).state == "CANCELLED"


async def test_an_end_that_is_being_written_when_the_host_shuts_down_is_written_once(
    open_house: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: the launch fails, the store takes its time with that, and the host is left in between."""
    writing, go_on = anyio.Event(), anyio.Event()
    async with open_house(tmp_path / "data", TYPES, ONE_ATTEMPT) as house:
        desk = Desk(house, (await house.boards.create(house.me, BoardCreate(name="Work"))).board.id)
        task, write = await desk.task(), house.store.commit

        async def slow(commits: Any) -> Any:
            if any(
                getattr(getattr(change, "row", None), "status", "") == "FAILED" for c in commits for change in c.changes
            ):
                writing.set()
                with anyio.CancelScope(shield=True):
                    await go_on.wait()
            return await write(commits)

        async def fails(*_: Any) -> None:
            raise Unavailable("The clone failed")

        monkeypatch.setattr(house.store, "commit", slow)
        monkeypatch.setattr(house.workspaces, "ensure", fails)
        await desk.launch(task)
        await writing.wait()
        asyncio.get_running_loop().call_later(0.2, go_on.set)
    async with open_house(tmp_path / "data", TYPES, ONE_ATTEMPT) as house:
        events = [item for item in await house.store.events(0, limit=500) if item.task_id == task.id]
        assert len({item.id for item in events}) == len(events)
        assert [item.action for item in events].count("acp.error") == 1


async def test_stopping_an_ended_agent_is_a_conflict(desk: Desk) -> None:
    agent = await desk.launch(await desk.task())
    await desk.house.agents.stop(desk.house.me, AgentStop(agent_id=agent.id, force=True))
    with pytest.raises(Conflict) as caught:
        await desk.house.agents.stop(desk.house.me, AgentStop(agent_id=agent.id))
    assert caught.value.details["state"] == "STOPPED"


async def test_a_task_or_board_with_a_live_agent_is_not_deleted(desk: Desk) -> None:
    task = await desk.task()
    agent = await desk.launch(task)
    with pytest.raises(Conflict) as by_task:
        await desk.house.tasks.delete(desk.house.me, TaskDelete(task_id=task.id))
    with pytest.raises(Conflict) as by_board:
        await desk.house.boards.delete(desk.house.me, BoardDelete(board_id=desk.board_id))
    assert by_task.value.details["agents"] == by_board.value.details["agents"] == [agent.id]


async def test_force_stops_the_agents_of_a_board_and_removes_their_workspaces(desk: Desk) -> None:
    task = await desk.task()
    agent = await desk.launch(task)
    await desk.agent_became(agent, status="RUNNING")
    await desk.house.boards.delete(desk.house.me, BoardDelete(board_id=desk.board_id, force=True))
    assert await desk.house.store.count(Workspace) == 0
    assert desk.house.supervisor.live(agent.id) is None


async def test_a_host_that_shuts_down_puts_its_runs_back_into_the_queue(open_house: Any, tmp_path: Path) -> None:
    async with open_house(tmp_path / "data", TYPES, ONE_ATTEMPT) as house:
        board = await house.boards.create(house.me, BoardCreate(name="Work"))
        desk = Desk(house, board.board.id)
        task = await desk.task("sleep 60")
        agent = await desk.start(task)
        await desk.agent_became(agent, activity="prompting")
    async with open_house(tmp_path / "data", TYPES, ONE_ATTEMPT) as house:
        found, entry = await house.store.get(Task, task.id), await house.store.get(QueueEntry, task.id)
        assert (found.state, found.state_reason) == ("TODO", "The host shut down")
        assert (entry.state, entry.attempt, entry.not_before) == ("waiting", 0, None)


async def test_a_task_whose_launched_agent_the_shutdown_stops_waits_for_a_person(
    open_house: Any, tmp_path: Path
) -> None:
    async with open_house(tmp_path / "data", TYPES, ONE_ATTEMPT) as house:
        board = await house.boards.create(house.me, BoardCreate(name="Work"))
        desk = Desk(house, board.board.id)
        task = await desk.task()
        await desk.agent_became(await desk.launch(task), activity="idle")
    async with open_house(tmp_path / "data", TYPES, ONE_ATTEMPT) as house:
        found = await house.store.get(Task, task.id)
        assert (found.state, found.state_reason) == ("BLOCKED", "The host shut down")
        assert await house.store.get(QueueEntry, task.id) is None
