"""What is counted of committed rows, and the taps on store and actions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from kandev_host.errors import Busy, Conflict
from kandev_host.interfaces import Action, Commit, Put, Stats
from kandev_host.metering import Metering, metering
from kandev_host.metering.readings import Readings
from kandev_host.metering.recorder import Recorder
from kandev_host.metrics import METRICS
from kandev_host.models import AgentInstance, PermissionRequest, Row, TaskEvent, Usage, now
from kandev_host.telemetry import FanOut

pytestmark = pytest.mark.anyio
AGENT = AgentInstance(id="a", task_id="t", agent_type="demo", runtime="bwrap")
USAGE = Usage(turn_id="t1", agent_id="a", task_id="t", agent_type="demo", source="agent", input_tokens=100)


class Sink:
    """Sums up, and holds every measurement to the list of metrics."""

    def __init__(self) -> None:
        self.sums: Counter[str] = Counter()

    def count(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        assert METRICS[name].kind == "counter"
        assert tuple(labels) == METRICS[name].labels
        self.sums[f"{name}:{','.join(labels.values())}"] += value  # type: ignore[assignment]

    def observe(self, name: str, seconds: float, labels: Mapping[str, str]) -> None:
        assert METRICS[name].kind == "histogram"
        assert tuple(labels) == METRICS[name].labels
        assert seconds >= 0
        self.sums[f"{name}:{','.join(labels.values())}"] += 1

    def of(self, prefix: str) -> dict[str, float]:
        return {name.removeprefix(f"{prefix}:"): value for name, value in self.sums.items() if value and prefix in name}


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def recorder(sink: Sink) -> Recorder:
    return Recorder(sink, ["demo", "claude"])


def record(recorder: Recorder, *rows: Row) -> None:
    for row in rows:
        recorder.record([Commit([Put(row)])])


def test_a_turn_is_counted_once_however_often_its_usage_is_told(sink: Sink, recorder: Recorder) -> None:
    priced = replace(USAGE, output_tokens=7, cost="0.5", currency="USD")
    gateways = replace(priced, id="other", source="gateway", input_tokens=120)
    record(recorder, USAGE, priced, priced, gateways, USAGE)
    assert sink.of("kandev_tokens_total") == {"demo,input": 120, "demo,output": 7}
    assert sink.of("kandev_cost_total") == {"demo,USD": 0.5}
    assert sink.of("kandev_turns_unpriced_total") == {"demo": 1}


@pytest.mark.parametrize("cost", ["NaN", "-1", "Infinity", "much", None])
def test_a_cost_that_is_no_amount_counts_nothing(sink: Sink, recorder: Recorder, cost: str | None) -> None:
    record(recorder, replace(USAGE, cost=cost, currency="USD"))
    assert sink.of("kandev_cost_total") == {}


def test_what_agents_say_makes_no_labels(sink: Sink, recorder: Recorder) -> None:
    record(recorder, replace(USAGE, agent_type="evil-1", cost="1", currency="XYZ"))
    assert sink.of("kandev_cost_total") == {"other,other": 1}


def test_a_run_is_launched_stalls_and_ends(sink: Sink, recorder: Recorder) -> None:
    running = replace(AGENT, status="RUNNING", updated_at=AGENT.created_at + timedelta(seconds=2))
    stalled = replace(running, stalled_at=now())
    record(recorder, AGENT, replace(AGENT, status="STARTING"), running, stalled, stalled, running)
    assert next(recorder.samples()) == ("kandev_agents", {"agent_type": "demo", "status": "RUNNING"}, 1)
    record(recorder, replace(running, status="FAILED", failure="stalled"))
    assert sink.of("kandev_agent_launches_total") == {"demo,started": 1}
    assert sink.of("kandev_agent_launch_duration_seconds") == {"demo": 1}
    assert sink.of("kandev_agent_stalls_total") == {"demo": 1}
    assert sink.of("kandev_agent_runs_total") == {"demo,failed,stalled": 1}
    assert [sample[0] for sample in recorder.samples()] == ["kandev_permissions_waiting"]


def test_a_second_attempt_that_does_not_start_is_a_retry_and_a_failed_launch(sink: Sink, recorder: Recorder) -> None:
    second = replace(AGENT, attempt=2)
    record(recorder, second, replace(second, status="FAILED", failure="config"))
    assert sink.of("kandev_agent_retries_total") == {"demo": 1}
    assert sink.of("kandev_agent_launches_total") == {"demo,failed": 1}


def test_a_run_that_its_host_did_not_survive_is_counted_by_the_next(sink: Sink, recorder: Recorder) -> None:
    record(recorder, replace(AGENT, status="FAILED", failure="host_died"))
    assert sink.of("kandev_agent_runs_total") == {"demo,failed,host_died": 1}
    assert sink.of("kandev_agent_launches_total") == {}


def test_tasks_are_counted_as_they_come_and_end(sink: Sink, recorder: Recorder) -> None:
    line = TaskEvent(task_id="t", event_type="created", new_state="TODO", created_by="u")
    done = replace(line, event_type="state_changed", old_state="IN_PROGRESS", new_state="COMPLETED")
    record(recorder, line, done, replace(done, old_state="COMPLETED", new_state="TODO"))
    assert sink.of("kandev_tasks_created_total") == {"": 1}
    assert sink.of("kandev_tasks_finished_total") == {"completed": 1}


def test_permissions_wait_until_somebody_decides(sink: Sink, recorder: Recorder) -> None:
    asked = PermissionRequest(agent_id="a", task_id="t", session_id="s", tool_call={}, options=[], digest="d")
    record(recorder, asked, asked)
    assert list(recorder.samples()) == [("kandev_permissions_waiting", {}, 1)]
    record(recorder, replace(asked, state="allowed", decided_by="somebody", resolved_at=now()))
    by_policy = replace(asked, id="p", state="rejected", decided_by="policy", resolved_at=now())
    record(recorder, by_policy)
    assert list(recorder.samples()) == [("kandev_permissions_waiting", {}, 0)]
    assert sink.of("kandev_permissions_requested_total") == {"": 1}
    assert sink.of("kandev_permissions_answered_total") == {"allowed,person": 1, "rejected,policy": 1}
    assert sink.of("kandev_permission_wait_seconds") == {"": 1}


class Store:
    """One that refuses every second commit, and is busy when it counts."""

    async def commit(self, commits: Any) -> Any:
        return [[1] if number % 2 == 0 else Conflict("no") for number in range(len(commits))]

    async def count(self, *_: Any) -> int:
        raise Busy("locked")

    def __getattr__(self, name: str) -> Any:
        return f"the store's own {name}"


async def test_a_store_is_timed_and_only_what_it_wrote_is_counted(sink: Sink) -> None:
    meter = Metering(FanOut([sink]), ["demo"])
    store: Any = meter.store(Store())  # type: ignore[arg-type]
    line = TaskEvent(task_id="t", event_type="created", created_by="u")
    assert len(await store.commit([Commit([Put(line)])] * 4)) == 4
    with pytest.raises(Busy):
        await store.count(TaskEvent)
    assert store.vacuum == "the store's own vacuum"
    assert sink.of("kandev_tasks_created_total") == {"": 2}
    assert sink.of("kandev_store_commits_total") == {"written": 2, "refused": 2}
    assert sink.of("kandev_store_duration_seconds") == {"commit": 1, "count": 1}
    assert sink.of("kandev_store_errors_total") == {"count,BUSY": 1}


async def test_actions_are_timed_and_their_refusals_counted(sink: Sink) -> None:
    async def later(_call: Any, request: Any) -> Any:
        if request == "bad":
            raise Conflict("no")
        return request

    def at_once(_call: Any, _request: Any) -> Any:
        raise ZeroDivisionError

    meter = Metering(FanOut([sink]), [])
    actions = [Action("task.get", object, later, "task:read"), Action("task.list", object, at_once, "task:read")]
    slow, quick = meter.actions(actions)
    call: Any = None
    assert await slow.handler(call, "good") == "good"
    with pytest.raises(Conflict):
        await slow.handler(call, "bad")
    with pytest.raises(ZeroDivisionError):
        quick.handler(call, None)
    assert sink.of("kandev_action_duration_seconds") == {"task.get,ok": 1, "task.get,error": 1, "task.list,error": 1}
    assert sink.of("kandev_action_errors_total") == {"CONFLICT": 1, "INTERNAL_ERROR": 1}


async def test_gauges_of_a_locked_store_are_unknown_and_the_others_are_told(sink: Sink, recorder: Recorder) -> None:
    class Floor:
        waiting, waiting_bytes, sockets, runs = 3, 4096, 2, ()

    floor: Any = Floor()
    gauges = Readings(sink, recorder, store=Store(), journal=floor, agents=floor, gateway=floor)  # type: ignore[arg-type]
    await gauges.refresh()
    told = {name: value for name, labels, value in gauges.samples() if tuple(labels) == METRICS[name].labels}
    assert told.keys() >= {"kandev_build_info", "kandev_uptime_seconds", "kandev_permissions_waiting"}
    assert told["kandev_asyncio_tasks"] >= 1
    assert (told["kandev_journal_queue_commits"], told["kandev_websocket_connections"]) == (3, 2)
    assert "kandev_queue_tasks" not in told


async def test_resource_use_is_summed_by_type_and_kept_of_who_does_not_answer(
    sink: Sink, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kandev_host.metering.readings.FRESH_S", 0.0)

    class Run:
        def __init__(self, id: str, *stats: Stats | None) -> None:
            self.agent = replace(AGENT, id=id)
            self.told = list(stats)

        async def stats(self) -> Stats:
            if (stats := self.told.pop(0)) is None:
                raise OSError("gone")
            return stats

    class Floor:
        waiting = waiting_bytes = sockets = 0
        runs: tuple[Run, ...] = (
            Run("a", Stats(1.5, 100, 1), Stats(1.75, 50, 1)),
            Run("b", Stats(2.0, 1000, 3), None),
            Run("c", Stats(0.25), Stats()),
        )

    def memory() -> dict[str, float]:
        return {labels["agent_type"]: value for name, labels, value in gauges.samples() if "memory" in name}

    floor: Any = Floor()
    gauges = Readings(sink, recorder, store=Store(), journal=floor, agents=floor, gateway=floor)  # type: ignore[arg-type]
    seen = []
    for _ in range(2):
        await gauges.refresh()
        seen.append(memory())
    floor.runs = ()
    await gauges.refresh()
    assert [*seen, memory()] == [{"demo": 1100}, {"demo": 1050}, {"demo": 0}]
    assert sink.of("kandev_agent_cpu_seconds_total") == {"demo": 4.0}


def test_without_telemetry_everything_is_as_it_was_made() -> None:
    nobody = metering(FanOut(), (), ["demo"])
    things: list[Any] = [object(), {}, []]
    assert [nobody.store(things[0]), nobody.runtimes(things[1]), nobody.actions(things[2])] == things
    assert nobody.bus(things[0]) is things[0]
    assert (nobody.tally, nobody.latency) == (None, None)
