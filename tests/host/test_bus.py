from __future__ import annotations

import logging

import pytest

from kandev_host.bus import MemoryBus
from kandev_host.events import Event, event
from kandev_host.testing import BusContract


class TestMemoryBus(BusContract):
    @pytest.fixture
    def bus(self) -> MemoryBus:
        return MemoryBus()


def test_a_sink_that_raises_is_cut_and_harms_no_other(caplog: pytest.LogCaptureFixture) -> None:
    bus = MemoryBus()
    heard: list[str] = []
    calls: list[str] = []

    def broken(item: Event) -> None:
        calls.append(item.action)
        raise RuntimeError("broken sink")

    bus.subscribe(["*"], broken)
    bus.subscribe(["*"], lambda item: heard.append(item.action))
    with caplog.at_level(logging.ERROR):
        bus.publish([event("one", {}), event("two", {})])
    assert heard == ["one", "two"]
    assert calls == ["one"]
    assert "broken sink" in caplog.text


def test_one_who_comes_while_events_are_published_hears_the_next() -> None:
    bus = MemoryBus()
    heard: list[str] = []

    def invite(item: Event) -> None:
        if item.action == "one":
            bus.subscribe(["*"], lambda later: heard.append(later.action))

    bus.subscribe(["*"], invite)
    bus.publish([event("one", {}), event("two", {})])
    assert heard == ["two"]


def test_nobody_left_leaves_nothing_behind() -> None:
    bus = MemoryBus()
    for n in range(10):
        bus.subscribe([f"task:{n}", "*"], lambda item: None).close()
    assert not bus.members


def test_the_topics_of_an_event_are_those_of_its_ids() -> None:
    assert event("x", {}, task_id="1", board_id="2", agent_id="3").topics() == ("task:1", "board:2", "agent:3", "*")
    assert event("x", {}).topics() == ("*",)
