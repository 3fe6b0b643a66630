"""P9: whatever state a run was in when its host died, the next host brings rows and reality together, and only once."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from msgspec.structs import replace

from kandev_host.errors import Busy, Unavailable
from kandev_host.interfaces import Put
from kandev_host.models import (
    LIVE_STATUSES,
    ROWS,
    AgentInstance,
    AgentStatus,
    Elicitation,
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
from kandev_host.protocol.actions.agents import AgentLaunch, AgentStop
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
    host_deaths: int = 0,
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
                host_deaths=host_deaths,
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
async def test_p9_a_run_of_the_queue_goes_back_into_it_and_that_counts_as_no_attempt(
    floor: Any, status: AgentStatus
) -> None:
    task = await left(floor, status)
    report = await reconcile(floor)
    entry, row = await floor.entry(task), await floor.row(task)
    (run,) = await floor.runs(task)
    assert (run.status, run.failure, run.error_message) == ("FAILED", "host_died", REASON)
    assert (row.state, row.state_reason) == ("TODO", REASON)
    assert (entry.state, entry.failure, entry.agent_id) == ("waiting", "host_died", None)
    assert (entry.attempt, entry.host_deaths) == (0, 1)
    assert (report["agents_failed"], report["tasks_requeued"]) == ([run.id], [task.id])
    async with floor.dispatching():
        await floor.run_became(task, 1, status="STARTING")


async def test_p7_p9_a_host_that_dies_takes_no_attempt_from_a_task_that_has_one_left(floor: Any) -> None:
    task = await left(floor, "RUNNING", attempt=5)
    report = await reconcile(floor)
    entry = await floor.entry(task)
    assert ((await floor.row(task)).state, entry.attempt, entry.host_deaths) == ("TODO", 4, 1)
    assert report["tasks_requeued"] == [task.id]
    assert (await floor.house.orchestrator.status(floor.house.me, OrchestratorStatus())).retries == 1


async def test_p7_p9_a_task_whose_runs_end_with_the_host_again_and_again_fails(open_floor: Any, clock: Any) -> None:
    """It may be what the host dies of, so it must not be started for ever; the waits grow like those of attempts."""
    async with open_floor(clock=clock) as floor:
        task = await left(floor, "RUNNING")
        for deaths, wait_s in enumerate((1, 2, 4, 8), start=1):
            await reconcile(floor)
            entry = await floor.entry(task)
            assert (entry.attempt, entry.host_deaths) == (0, deaths)
            assert (entry.not_before - clock.now()).total_seconds() == wait_s
            await taken_up(floor, entry)
        report = await reconcile(floor)
        row = await floor.row(task)
    assert (row.state, row.state_reason, report["tasks_failed"]) == ("FAILED", REASON, [task.id])


async def taken_up(floor: Any, entry: QueueEntry) -> None:
    """The task runs again, as a host that is gone left it."""
    agent = AgentInstance(
        task_id=entry.id, agent_type="demo", runtime="bwrap", status="RUNNING", orchestrated=True, started_at=now()
    )
    task = await floor.house.store.get(Task, entry.id)
    running = replace(task, state="IN_PROGRESS", assigned_agent_id=agent.id, started_at=now())
    held = replace(entry, state="running", attempt=entry.attempt + 1, agent_id=agent.id, fence=entry.fence + 1)
    await floor.house.journal.record(Put(agent), Put(running), Put(held))


async def test_p9_the_last_of_too_many_deaths_of_the_host_fails_the_task(floor: Any) -> None:
    task = await left(floor, "RUNNING", host_deaths=4)
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
        Elicitation(**ids, mode="form", message="Who?"),
    )
    await floor.house.journal.record(*map(Put, rows))
    report = await reconcile(floor)
    found = await everything(floor)
    (run,) = await floor.runs(task)
    assert [turn.state for turn in found["Turn"]] == ["failed", "queued"]
    assert [request.state for request in found["PermissionRequest"]] == ["pending"], "its run can be gone on with"
    assert [asked.state for asked in found["Elicitation"]] == ["cancelled"]
    assert [row.closed_at is not None for row in found["Session"]] == [True]
    assert (run.activity, run.stalled_at) == (None, None)
    assert (report["turns_closed"], report["permissions_cancelled"]) == (1, 0)


async def test_p3_p8_runs_of_a_runtime_that_does_not_answer_count_as_live_until_it_does(
    floor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may go on there: to run their tasks again would be to run them twice."""
    monkeypatch.setattr("kandev_host.services.recovery.REAP_S", 0.5)
    monkeypatch.setattr("kandev_host.services.recovery.RETRY_S", 0.05)
    runtime = floor.house.runtimes["bwrap"]
    listing, asked = runtime.list_owned, anyio.Event()

    async def silent() -> list[Any]:
        if floor.house.dispatcher._group is not None:
            asked.set()
        await anyio.sleep_forever()
        return []

    monkeypatch.setattr(runtime, "list_owned", silent)
    task, launched = await left(floor, "RUNNING"), await left(floor, "RUNNING", orchestrated=False)
    (run,) = await floor.runs(task)
    with anyio.fail_after(60):
        async with floor.house.recovery as recovery:
            assert recovery.first["not_reached"] == ["bwrap"]
            assert recovery.left == {"not_reached": ["bwrap"]}
            assert not recovery.first["agents_failed"]
            async with floor.dispatching():
                await asked.wait()
                assert (await floor.runs(task)) == [run]
                assert (await floor.entry(task)).agent_id == run.id
                with pytest.raises(Unavailable, match="has not answered"):
                    await floor.house.agents.stop(floor.house.me, AgentStop(agent_id=run.id))
                with pytest.raises(Unavailable, match="has not answered"):
                    await floor.house.agents.launch(floor.house.me, AgentLaunch(task_id=(await floor.task()).id))
                monkeypatch.setattr("kandev_host.services.recovery.REAP_S", 30.0)  # for who does answer
                monkeypatch.setattr(runtime, "list_owned", listing)
                await floor.run_became(task, 1, status="FAILED", failure="host_died")
                await floor.until(
                    lambda _action, payload: (
                        (told := payload.get("agent") or {}).get("task_id") == task.id
                        and (told["id"] != run.id, told["status"]) == (True, "RUNNING")
                    )
                )
                await floor.became(launched, "FAILED")


async def test_a_runtime_that_is_not_there_is_told_with_its_fix_and_is_nothing_that_a_dead_host_left(
    floor: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def nowhere() -> Any:
        raise Unavailable("There is no engine.", fix="start it")

    monkeypatch.setattr(floor.house.runtimes["bwrap"], "list_owned", nowhere)
    task = await floor.task()
    async with floor.house.recovery as recovery:
        assert (recovery.first["not_reached"], recovery.left) == (["bwrap"], {})
        with pytest.raises(Unavailable, match="There is no engine") as refused:
            await floor.house.agents.launch(floor.house.me, AgentLaunch(task_id=task.id))
    assert refused.value.details["fix"].startswith("start it; ")
    assert "died" not in caplog.text


async def answering(floor: Any, monkeypatch: pytest.MonkeyPatch, first: Any) -> Any:
    """The runtime's `list_owned` does `first` at the start, and answers from then on."""
    monkeypatch.setattr("kandev_host.services.recovery.REAP_S", 0.5)
    monkeypatch.setattr("kandev_host.services.recovery.RETRY_S", 0.05)
    runtime = floor.house.runtimes["bwrap"]
    listing, asked = runtime.list_owned, list[int]()

    async def list_owned() -> Any:
        asked.append(1)
        if len(asked) == 2:
            monkeypatch.setattr("kandev_host.services.recovery.REAP_S", 30.0)  # from the next time on: it answers
        return await (first() if len(asked) <= 2 else listing())

    monkeypatch.setattr(runtime, "list_owned", list_owned)


async def test_a_runtime_with_a_fault_of_its_own_does_not_end_the_host(
    floor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken() -> Any:
        raise OSError("its own fault")

    await answering(floor, monkeypatch, broken)
    task = await left(floor, "RUNNING")
    with anyio.fail_after(60):
        async with floor.house.recovery as recovery:
            assert recovery.first["not_reached"] == ["bwrap"]
            await floor.run_became(task, 1, status="FAILED", failure="host_died")


async def test_what_a_busy_store_kept_from_being_looked_at_is_looked_at_again(
    floor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await answering(floor, monkeypatch, anyio.sleep_forever)
    task = await left(floor, "RUNNING", orchestrated=False)
    of_ended, refused = floor.house.recovery._conclusions.of_ended, list[int]()

    async def busy(*arguments: Any, **options: Any) -> Any:
        refused.append(1)
        if len(refused) == 1:
            raise Busy("The database is locked")
        return await of_ended(*arguments, **options)

    monkeypatch.setattr(floor.house.recovery._conclusions, "of_ended", busy)
    with anyio.fail_after(60):
        async with floor.house.recovery:
            await floor.became(task, "FAILED")
    assert len(refused) == 2


async def test_a_run_that_a_person_stopped_is_cancelled_by_whoever_judges_it_late(floor: Any) -> None:
    task = await left(floor, "STOPPED")
    (run,) = await floor.runs(task)
    floor.house.agents.ended_by[run.id] = floor.house.me.id
    async with floor.dispatching():
        await floor.became(task, "CANCELLED")
        await floor.looked()
    assert (await floor.runs(task), floor.house.agents.ended_by) == ([run], {})


async def test_p3_runtimes_are_waited_for_together(floor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One deadline for all: none begins to be asked only when another was given up."""
    monkeypatch.setattr("kandev_host.services.recovery.REAP_S", 1.0)
    asked: list[str] = []
    both = anyio.Event()

    class Silent:
        def __init__(self, name: str) -> None:
            self.name = name

        async def list_owned(self) -> list[Any]:
            asked.append(self.name)
            if len(asked) == 2:
                both.set()
            await both.wait()
            return []

    monkeypatch.setattr(floor.house.recovery, "_runtimes", {name: Silent(name) for name in ("one", "other")})
    report = await floor.house.recovery.reconcile()
    assert (sorted(asked), report["not_reached"]) == (["one", "other"], [])


async def test_p9_a_run_whose_end_cannot_be_recorded_holds_back_no_other(floor: Any) -> None:
    first, second = await left(floor, "RUNNING"), await left(floor, "RUNNING")
    (run,) = await floor.runs(first)
    record = floor.house.journal.record

    async def refusing(*changes: Any, **options: Any) -> None:
        if any(isinstance(change, Put) and change.row.id == run.id for change in changes):
            raise Busy("The database is locked")
        await record(*changes, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(floor.house.journal, "record", refusing)
        report = await floor.house.recovery.reconcile()
    assert (report["not_reached"], report["tasks_requeued"]) == ([f"agent {run.id}"], [second.id])
    async with floor.dispatching():
        await floor.run_became(first, 2, status="RUNNING")


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
