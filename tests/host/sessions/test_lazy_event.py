from __future__ import annotations

import anyio
import pytest

from kandev_host.sessions.lazy_event import LazyEvent

pytestmark = pytest.mark.anyio


async def test_everybody_who_waits_is_woken_and_who_comes_later_does_not_wait() -> None:
    event, woken = LazyEvent(), 0

    async def wait() -> None:
        nonlocal woken
        await event.wait()
        woken += 1

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            assert (woken, event.is_set()) == (0, False)
            event.set()
        await event.wait()
    assert (woken, event.is_set()) == (2, True)
