"""P9: whatever state a run was in when its host died, the next host brings rows and reality together, and only once."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from msgspec.structs import replace

from kandev_host.interfaces import Put
from kandev_host.models import (
    LIVE_STATUSES,
    ROWS,
    AgentInstance,
    AgentStatus,
    HostState,
    PermissionRequest,
    QueueEntry,
    Session,
    Task,
    TaskState,
    Turn,
    Workspace,
    now,
)
from kandev_host.protocol.actions.orchestrator import OrchestratorStatus
from kandev_host.services.recovery import REASON

pytestmark = pytest.mark.anyio


async def left(
    floor: Any,
    status: AgentStatus,
    task_state: TaskState = "IN_PROGRESS",
    *,
    orchestrated: bool = True,
    attempt: int = 1,
    **fields: Any,
) -> Task:
    """A task with a run, as a host that is gone left it. An agent type of None keeps it out of the queue."""
    task = Task(
        board_id=floor.board_id, title="say: done", description="", state=task_state, agent_type="demo", created_by="me"
    )
    agent = AgentInstance(
        task_id=task.id,
        agent_type="demo",
        runtime="bwrap",
        status=status,
        orchestrated=orchestrated,
        attempt=attempt,
        stopped_at=None if status in LIVE_STATUSES else now(),
        **fields,
    )
    task = replace(task, assigned_agent_id=agent.id)
    rows = [task, agent]
    if orchestrated:
        rows.append(
            QueueEntry(
                id=task.id,
                board_id=task.board_id,
                agent_type="demo",
                state="running",
                attempt=attempt,
                fence=attempt,
                host_id="a host that is gone",
                agent_id=agent.id,
                created_by="me",
            )
        )
    await floor.house.journal.record(*map(Put, rows))
    return task


async def reconcile(floor: Any) -> dict[str, Any]:
    """Twice: the second time nothing is found, nothing is written, and no row is another."""
    report: dict[str, Any] = await floor.house.recovery.reconcile()
    head, rows = floor.house.journal.state.head, await everything(floor)
    assert not any((await floor.house.recovery.reconcile()).values())
    assert (floor.house.journal.state.head, await everything(floor)) == (head, rows)
    return report


async def everything(floor: Any) -> dict[str, Any]:
    return {kind.__name__: (await floor.house.store.find(kind, limit=500)).rows for kind in ROWS}


@pytest.mark.parametrize("status", LIVE_STATUSES)
async def test_p9_a_run_of_the_queue_goes_back_into_it_and_that_counts_as_an_attempt(
    floor: Any, status: AgentStatus
) -> None:
    task = await left(floor, status)
    report = await reconcile(floor)
    entry, row = await floor.entry(task), await floor.row(task)
    (run,) = await floor.runs(task)
    assert (run.status, run.failure, run.error_message) == ("FAILED", "host_died", REASON)
    assert (row.state, row.state_reason) == ("TODO", REASON)
    assert (entry.state, entry.attempt, entry.failure, entry.agent_id) == ("waiting", 1, "host_died", None)
    assert (report["agents_failed"], report["tasks_requeued"]) == ([run.id], [task.id])
    async with floor.dispatching():
        await floor.run_became(task, 2)


async def test_p9_the_last_attempt_that_a_dying_host_took_fails_the_task(floor: Any) -> None:
    task = await left(floor, "RUNNING", attempt=5)
    report = await reconcile(floor)
    assert (await floor.row(task)).state == "FAILED"
    assert (report["tasks_failed"], await floor.entry(task)) == ([task.id], None)


@pytest.mark.parametrize("status", LIVE_STATUSES)
async def test_p9_a_run_that_a_person_launched_fails_its_task(floor: Any, status: AgentStatus) -> None:
    task = await left(floor, status, orchestrated=False)
    report = await reconcile(floor)
    assert ((await floor.row(task)).state, await floor.entry(task)) == ("FAILED", None)
    assert report["tasks_failed"] == [task.id]


@pytest.mark.parametrize(
    ("status", "failure", "state"),
    [
        ("COMPLETED", None, "COMPLETED"),
        ("FAILED", "config", "FAILED"),
        ("FAILED", "crash", "TODO"),
        ("STOPPED", None, "TODO"),
    ],
)
async def test_p9_an_end_that_was_recorded_and_not_yet_concluded_is_concluded(
    floor: Any, status: AgentStatus, failure: Any, state: TaskState
) -> None:
    task = await left(floor, status, failure=failure)
    await reconcile(floor)
    assert (await floor.row(task)).state == state
    assert (await floor.entry(task) is not None) == (state == "TODO")


@pytest.mark.parametrize("state", ["BLOCKED", "COMPLETED", "FAILED", "CANCELLED"])
async def test_p9_what_a_person_decided_stands_and_the_lease_goes(floor: Any, state: TaskState) -> None:
    task = await left(floor, "RUNNING", state)
    report = await reconcile(floor)
    assert ((await floor.row(task)).state, await floor.entry(task)) == (state, None)
    assert report["queue_settled"] == [task.id]


async def test_p9_a_task_that_a_person_put_back_waits_anew(floor: Any) -> None:
    task = await left(floor, "RUNNING", "TODO", attempt=3)
    await reconcile(floor)
    entry = await floor.entry(task)
    assert (entry.state, entry.attempt, entry.agent_id) == ("waiting", 0, None)


async def test_p9_a_task_that_a_person_works_on_by_hand_is_left_alone(floor: Any) -> None:
    task = await left(floor, "FAILED", orchestrated=False, failure="crash")
    by_hand = replace(task, started_at=now())
    await floor.house.journal.record(Put(by_hand))
    await reconcile(floor)
    assert await floor.row(task) == by_hand


async def test_p9_waiting_entries_and_the_pause_are_as_they_were(floor: Any) -> None:
    await floor.house.orchestrator.pause(floor.house.me, None)
    task = await floor.task()
    async with floor.dispatching():
        before = await floor.entry(task)
    await reconcile(floor)
    assert await floor.entry(task) == before
    assert await floor.house.store.count(HostState) == 1


async def test_p9_turns_requests_and_sessions_of_the_dead_are_closed(floor: Any) -> None:
    task = await left(floor, "RUNNING")
    (agent,) = await floor.runs(task)
    ids = {"agent_id": agent.id, "task_id": task.id}
    session = Session(**ids, acp_session_id="s", cwd="/workspace", protocol_version=1)
    rows = (
        session,
        replace(agent, session_id=session.id, activity="waiting_permission", stalled_at=now()),
        Turn(**ids, prompt=[], state="running", created_by="me"),
        Turn(**ids, prompt=[], state="queued", created_by="me"),
        PermissionRequest(**ids, session_id=session.id, tool_call={}, options=[], digest="d"),
    )
    await floor.house.journal.record(*map(Put, rows))
    report = await reconcile(floor)
    found = await everything(floor)
    (run,) = await floor.runs(task)
    assert [turn.state for turn in found["Turn"]] == ["failed", "cancelled"]
    assert [request.state for request in found["PermissionRequest"]] == ["cancelled"]
    assert [row.closed_at is not None for row in found["Session"]] == [True]
    assert (run.activity, run.stalled_at) == (None, None)
    assert (report["turns_closed"], report["permissions_cancelled"]) == (2, 1)


async def test_p3_a_runtime_that_does_not_answer_is_named_and_holds_the_start_no_longer(
    floor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kandev_host.services.recovery.REAP_S", 0.05)
    monkeypatch.setattr(floor.house.runtimes["bwrap"], "list_owned", anyio.sleep_forever)
    task = await left(floor, "RUNNING")
    with anyio.fail_after(10):
        report = await floor.house.recovery.reconcile()
    assert (report["not_reached"], report["tasks_requeued"]) == (["bwrap"], [task.id])


async def test_the_report_is_told_by_the_status(floor: Any) -> None:
    task = await left(floor, "RUNNING")
    report = await floor.house.recovery.reconcile()
    told = (await floor.house.orchestrator.status(floor.house.me, OrchestratorStatus())).recovery
    assert report.items() <= told.items()
    assert told["tasks_requeued"] == [task.id]
    assert told["took_s"] < 10


async def test_a_graceful_stop_loses_no_run_and_counts_no_attempt(open_floor: Any) -> None:
    """Running, on its way up, waiting: all of it goes on with the next start."""
    async with open_floor(max_agents=2) as floor, floor.dispatching():
        running, waiting = await floor.task(), await floor.task()
        await floor.run_became(running, activity="prompting")
        starting = await floor.task()
        await floor.looked()
    async with open_floor(max_agents=5) as floor:
        assert not any((await floor.house.recovery.reconcile()).values())
        for task in (running, waiting, starting):
            entry = await floor.entry(task)
            assert ((await floor.row(task)).state, entry.state, entry.attempt) == ("TODO", "waiting", 0)
        async with floor.dispatching():
            for task in (running, waiting, starting):
                await floor.run_became(task, 1, activity="prompting")


async def test_a_run_that_the_host_lost_is_found_by_the_sweep(floor: Any) -> None:
    """Its end could not be written, say, as the disk was full."""
    async with floor.dispatching():
        task = await left(floor, "RUNNING")
        await floor.house.journal.record(Put(Workspace(id=task.id, runtime="bwrap")))
    async with floor.dispatching():
        (first, *_) = await floor.runs(task)
        assert (first.status, first.failure) == ("FAILED", "crash")
        await floor.became(task, "TODO")
