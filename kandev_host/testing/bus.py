"""What every Bus must do. Subclass `BusContract` and give it an (async) fixture `bus`: an open, unheard one."""

from __future__ import annotations

import anyio
import pytest

from kandev_host.events import Event, event
from kandev_host.interfaces import Bus

DEADLINE_S = 10.0


class Listener:
    """A sink that remembers what came, and can be waited on."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self._came = anyio.Event()

    def __call__(self, item: Event) -> None:
        self.heard.append(item.action)
        self._came.set()

    async def wait_for(self, action: str) -> list[str]:
        """All that came up to this event."""
        with anyio.fail_after(DEADLINE_S):
            while action not in self.heard:
                self._came = anyio.Event()
                await self._came.wait()
        return self.heard


@pytest.mark.anyio
class BusContract:
    """The tests. They use only what `Bus` promises."""

    async def test_events_come_in_order_across_calls(self, bus: Bus) -> None:
        listener = Listener()
        bus.subscribe(["*"], listener)
        bus.publish([event("one", {}), event("two", {})])
        bus.publish([event("end", {})])
        assert await listener.wait_for("end") == ["one", "two", "end"]

    async def test_only_the_topics_asked_for_come(self, bus: Bus) -> None:
        listener = Listener()
        bus.subscribe(["task:1", "board:1", "agent:1"], listener)
        bus.publish(
            [
                event("task", {}, task_id="1"),
                event("other", {}, task_id="2", board_id="2", agent_id="2"),
                event("board", {}, board_id="1", task_id="2"),
                event("none", {}),
                event("agent", {}, agent_id="1"),
            ]
        )
        assert await listener.wait_for("agent") == ["task", "board", "agent"]

    async def test_an_event_of_several_topics_comes_once(self, bus: Bus) -> None:
        listener = Listener()
        bus.subscribe(["task:1", "board:1", "*"], listener)
        bus.publish([event("one", {}, task_id="1", board_id="1"), event("end", {})])
        assert await listener.wait_for("end") == ["one", "end"]

    async def test_every_subscriber_hears_it(self, bus: Bus) -> None:
        listeners = [Listener(), Listener()]
        for listener in listeners:
            bus.subscribe(["*"], listener)
        bus.publish([event("end", {})])
        for listener in listeners:
            assert await listener.wait_for("end") == ["end"]

    async def test_topics_can_be_added_and_given_up(self, bus: Bus) -> None:
        listener = Listener()
        subscription = bus.subscribe([], listener)
        bus.publish([event("too early", {}, task_id="1")])
        subscription.add("task:1")
        subscription.add("task:end")
        bus.publish([event("heard", {}, task_id="1")])
        await listener.wait_for("heard")
        subscription.discard("task:1")
        subscription.discard("task:unknown")
        bus.publish([event("too late", {}, task_id="1"), event("end", {}, task_id="end")])
        assert await listener.wait_for("end") == ["heard", "end"]

    async def test_a_closed_subscription_hears_no_more(self, bus: Bus) -> None:
        closed, listener = Listener(), Listener()
        subscription = bus.subscribe(["*"], closed)
        bus.subscribe(["*"], listener)
        subscription.close()
        subscription.close()
        bus.publish([event("end", {})])
        await listener.wait_for("end")
        assert closed.heard == []

    async def test_a_sink_may_close_its_subscription(self, bus: Bus) -> None:
        heard: list[str] = []
        listener = Listener()

        def once(item: Event) -> None:
            heard.append(item.action)
            subscription.close()

        subscription = bus.subscribe(["*"], once)
        bus.subscribe(["*"], listener)
        bus.publish([event("one", {}), event("end", {})])
        await listener.wait_for("end")
        assert heard == ["one"]
