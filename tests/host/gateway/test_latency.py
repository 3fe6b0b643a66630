"""How late sockets get what agents say, as it is measured."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from kandev_host.client import Client
from kandev_host.events import event
from kandev_host.models import now

pytestmark = pytest.mark.anyio
HOUR = timedelta(hours=1)


async def test_what_an_agent_says_is_timed_and_neither_replays_nor_other_events_are(open_house: Any) -> None:
    seen: list[float] = []
    async with open_house(latency=seen.append) as house:
        old = {"task_id": "t1", "agent_id": "a1", "created_at": now() - HOUR}
        await house.journal.record(event("acp.log", {}, **old))
        async with Client.connect(house.url, house.token) as client:
            await client.call("events.subscribe", {"topics": ["task:t1"], "after_seq": 0})
            await anext(client.notifications())
            await house.journal.record(event("task.updated", {}, task_id="t1", created_at=now() - HOUR))
            await anext(client.notifications())
            assert seen == []
            await house.journal.record(event("acp.log", {}, **old), event("acp.log", {}, task_id="t1", agent_id="a1"))
            await anext(client.notifications())
    assert [round(seconds / 3600, 1) for seconds in seen] == [1.0]  # the oldest of what was sent together
