"""P7: when a failed run is tried again. The rule alone, and then a flapping agent on a clock that is moved by hand."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kandev_host.models import Failure, QueueEntry
from kandev_host.services.orchestration.clock import LONGEST_S
from kandev_host.services.orchestration.retry import WORTH_ANOTHER, again
from kandev_host.settings import OrchestratorSettings

DEFAULTS = OrchestratorSettings()


def waits(settings: OrchestratorSettings, failure: Failure = "crash", **given: Any) -> list[float]:
    """The longest waits between the runs, until a failure is final."""
    found = []
    for attempt in range(1, 100):
        more = again(settings, failure, attempt=attempt, random=lambda: 1.0, **given)
        if more is None:
            break
        found.append(more.delay_s)
    return found


def test_p7_the_waits_double_from_one_second_and_the_fifth_failure_is_final() -> None:
    assert waits(DEFAULTS) == [1, 2, 4, 8]


def test_p7_no_wait_is_longer_than_the_limit() -> None:
    assert waits(OrchestratorSettings(attempts=10)) == [1, 2, 4, 8, 16, 32, 60, 60, 60]


@given(st.integers(1, 4), st.floats(0, 1))
def test_p7_the_jitter_is_full(attempt: int, chance: float) -> None:
    more = again(DEFAULTS, "crash", attempt=attempt, random=lambda: chance)
    assert more is not None
    assert more.delay_s == pytest.approx(chance * 2 ** (attempt - 1))


@pytest.mark.parametrize("failure", get_args(Failure))
def test_p7_only_what_may_pass_is_tried_again(failure: Failure) -> None:
    worth = {"crash", "unavailable", "rate_limit", "stalled", "host_died"}
    assert (again(DEFAULTS, failure, attempt=1, random=lambda: 1.0) is not None) == (failure in worth)
    assert worth == WORTH_ANOTHER


def test_an_end_that_nobody_could_classify_is_final() -> None:
    assert again(DEFAULTS, None, attempt=1, random=lambda: 1.0) is None


def test_p7_a_run_that_lived_ten_minutes_starts_the_count_anew() -> None:
    more = again(DEFAULTS, "crash", attempt=5, lived_s=600, random=lambda: 1.0)
    assert more is not None
    assert (more.attempt, more.delay_s) == (1, 1)
    assert again(DEFAULTS, "crash", attempt=5, lived_s=599, random=lambda: 1.0) is None


def test_p7_deaths_of_the_host_are_counted_apart_from_attempts_with_a_limit_of_their_own_and_the_same_waits() -> None:
    found = []
    for deaths in range(10):
        more = again(DEFAULTS, "host_died", attempt=5, host_deaths=deaths, random=lambda: 1.0)
        if more is None:
            break
        found.append((more.delay_s, more.attempt, more.host_deaths))
    assert found == [(1, 4, 1), (2, 4, 2), (4, 4, 3), (8, 4, 4)]


def test_p7_a_failure_that_the_host_lived_through_ends_the_row_of_its_deaths() -> None:
    more = again(DEFAULTS, "crash", attempt=2, host_deaths=4, random=lambda: 1.0)
    assert more is not None
    assert (more.delay_s, more.attempt, more.host_deaths) == (2, 2, 0)


def test_a_rate_limit_is_not_tried_before_its_reset() -> None:
    more = again(DEFAULTS, "rate_limit", attempt=1, resets_in_s=3600, random=lambda: 0.5)
    assert more is not None
    assert more.delay_s == 3600.5


@given(st.floats(allow_nan=False), st.integers(1, 10**6), st.floats(0, 1))
def test_whatever_an_agent_says_of_its_reset_the_wait_is_bounded(
    resets_in_s: float, attempt: int, chance: float
) -> None:
    settings = OrchestratorSettings(attempts=10**7)
    more = again(settings, "rate_limit", attempt=attempt, resets_in_s=resets_in_s, random=lambda: chance)
    assert more is not None
    assert 0 <= more.delay_s <= LONGEST_S


@pytest.mark.anyio
async def test_p7_a_flapping_agent_is_started_on_schedule_and_fails_its_task_with_the_cause(
    open_floor: Any, clock: Any
) -> None:
    async with open_floor(clock=clock) as floor:
        task = await floor.task("exit 7")
        async with floor.dispatching():
            for attempt, wait_s in enumerate((1, 2, 4, 8), start=1):
                await floor.run_became(task, attempt, status="FAILED")
                await floor.looked()
                entry: QueueEntry = await floor.entry(task)
                assert ((entry.not_before - clock.now()).total_seconds(), entry.attempt) == (wait_s, attempt)
                clock.advance(wait_s - 0.001)
                await floor.looked()
                assert len(await floor.runs(task)) == attempt, "started before its time"
                assert (await floor.waiting_for(task)).kind == "backoff"
                clock.advance(0.002)
            failed = await floor.became(task, "FAILED")
    assert "exited with code 7" in failed.state_reason
    assert failed.state == "FAILED"


@pytest.mark.anyio
async def test_p17_a_jump_of_the_wall_clock_neither_starts_nor_holds_back_an_attempt(
    open_floor: Any, clock: Any
) -> None:
    async with open_floor(clock=clock) as floor:
        task = await floor.task("exit 7")
        async with floor.dispatching():
            await floor.run_became(task, 1, status="FAILED")
            await floor.looked()
            clock.wall = clock.wall.replace(year=clock.wall.year + 1)
            await floor.looked()
            assert len(await floor.runs(task)) == 1
            clock.wall = clock.wall.replace(year=clock.wall.year - 2)
            clock.advance(1.001)
            await floor.run_became(task, 2, status="FAILED")


@pytest.mark.anyio
async def test_a_backoff_goes_on_after_a_restart(open_floor: Any, clock: Any) -> None:
    async with open_floor(clock=clock, backoff_s=50.0) as floor:
        task = await floor.task("exit 7")
        async with floor.dispatching():
            await floor.run_became(task, 1, status="FAILED")
    clock.advance(20)
    async with open_floor(clock=clock, backoff_s=50.0) as floor, floor.dispatching():
        clock.advance(29.9)
        await floor.looked()
        assert len(await floor.runs(task)) == 1
        clock.advance(0.2)
        await floor.run_became(task, 2, status="FAILED")


@pytest.mark.anyio
@pytest.mark.parametrize("prompt", ["fail: the agent says so", "refuse"])
async def test_what_the_agent_itself_calls_failed_or_refuses_is_not_tried_again(open_floor: Any, prompt: str) -> None:
    async with open_floor() as floor:
        task = await floor.task(prompt)
        async with floor.dispatching():
            ended = await floor.became(task, "BLOCKED" if prompt == "refuse" else "FAILED")
            await floor.looked()
        assert ended.state_reason
        assert len(await floor.runs(task)) == 1
        assert await floor.entry(task) is None


@pytest.mark.anyio
async def test_a_launched_agent_that_dies_is_not_tried_again(floor: Any) -> None:
    task = await floor.task("x", agent_type=None)
    async with floor.dispatching():
        await floor.launch(task, agent_type="demo", prompt="exit 7")
        await floor.became(task, "FAILED")
        await floor.looked()
    assert len(await floor.runs(task)) == 1


def test_a_run_that_is_to_be_tried_once_is_tried_again_when_its_host_died() -> None:
    more = again(OrchestratorSettings(attempts=1), "host_died", attempt=1, random=lambda: 1.0)
    assert more is not None
    assert (more.attempt, more.host_deaths) == (0, 1)
