"""What a host that died left behind, found at the next start."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kandev_host.interfaces import ProcessSpec, Put, Remove
from kandev_host.models import AgentInstance, Board, PermissionRequest, Session, Task, Turn, Workspace
from kandev_host.protocol.actions.boards import BoardCreate
from kandev_host.services.recovery import REASON

pytestmark = pytest.mark.anyio


@pytest.fixture
async def left(house: Any) -> tuple[Task, AgentInstance]:
    """A task whose agent runs, in a database whose host is gone."""
    board: Board = (await house.boards.create(house.me, BoardCreate(name="Work"))).board
    task = Task(board_id=board.id, title="t", description="", state="IN_PROGRESS", created_by="me")
    agent = AgentInstance(task_id=task.id, agent_type="demo", runtime="bwrap", status="RUNNING", activity="prompting")
    task = msgspec.structs.replace(task, assigned_agent_id=agent.id)
    session = Session(agent_id=agent.id, task_id=task.id, acp_session_id="s", cwd="/workspace", protocol_version=1)
    ids: dict[str, Any] = {"agent_id": agent.id, "task_id": task.id}
    asked = PermissionRequest(**ids, session_id=session.id, tool_call={}, options=[], digest="d")
    running = Turn(**ids, prompt=[], state="running", created_by="me")
    queued = Turn(**ids, prompt=[], state="queued", created_by="me")
    await house.journal.record(*map(Put, (task, agent, session, running, queued, asked)))
    return task, agent


async def test_a_run_of_a_dead_host_is_failed_with_the_reason(house: Any, left: tuple[Task, AgentInstance]) -> None:
    task, agent = left
    report = await house.recovery.reconcile()
    found, row = await house.store.get(AgentInstance, agent.id), await house.store.get(Task, task.id)
    assert (found.status, found.activity, found.error_message) == ("FAILED", None, REASON)
    assert (row.state, row.state_reason) == ("FAILED", REASON)
    assert (report["agents_failed"], report["tasks_failed"]) == ([agent.id], [task.id])


async def test_what_was_open_is_closed_and_prompts_wait_on(house: Any, left: tuple[Task, AgentInstance]) -> None:
    await house.recovery.reconcile()
    turns = (await house.store.find(Turn)).rows
    asked = (await house.store.find(PermissionRequest)).rows
    assert [turn.state for turn in turns] == ["failed", "queued"]
    assert [request.state for request in asked] == ["cancelled"]


async def test_followers_are_told(house: Any, left: tuple[Task, AgentInstance]) -> None:
    await house.recovery.reconcile()
    told = {item.action for item in house.events}
    assert {"agent.updated", "acp.error", "permission.resolved", "task.state_changed"} <= told


async def test_a_second_look_finds_nothing(house: Any, left: tuple[Task, AgentInstance]) -> None:
    await house.recovery.reconcile()
    head = house.journal.state.head
    report = await house.recovery.reconcile()
    assert (house.journal.state.head, report["agents_failed"], report["turns_closed"]) == (head, [], 0)


async def test_what_a_person_decided_meanwhile_stands(house: Any, left: tuple[Task, AgentInstance]) -> None:
    task, _ = left
    await house.journal.record(Put(msgspec.structs.replace(task, state="CANCELLED")))
    await house.recovery.reconcile()
    assert (await house.store.get(Task, task.id)).state == "CANCELLED"


async def test_a_half_made_workspace_is_removed(house: Any, left: tuple[Task, AgentInstance]) -> None:
    task, _ = left
    runtime = house.runtimes["bwrap"]
    await runtime.prepare(task.id)
    await runtime.run(ProcessSpec(workspace_id=task.id, command=("sh", "-c", "echo half > /workspace/x")))
    await house.recovery.reconcile()
    await runtime.prepare(task.id)
    listing = await runtime.run(ProcessSpec(workspace_id=task.id, command=("ls", "/workspace")))
    assert listing.stdout == b""


async def test_a_workspace_whose_task_is_gone_is_removed(house: Any, left: tuple[Task, AgentInstance]) -> None:
    task, _ = left
    await house.workspaces.ensure(task, "bwrap")
    await house.journal.record(Remove(Task, task.id))
    report = await house.recovery.reconcile()
    assert report["workspaces_removed"] == [task.id]
    assert await house.store.get(Workspace, task.id) is None


async def test_the_local_user_is_there_from_the_start(house: Any) -> None:
    assert (await house.users.ensure_local()).id == house.me.id
