"""Locks by name: one after the other, and nothing left when nobody holds or waits."""

from __future__ import annotations

import anyio
import pytest

from kandev_host.services.locks import Locks

pytestmark = pytest.mark.anyio


async def test_whoever_waits_goes_on_in_the_order_of_coming() -> None:
    locks, order = Locks(), list[int]()

    async def take(number: int) -> None:
        async with locks.hold("board:1"):
            order.append(number)
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks, locks.hold("board:1"):
        for number in range(3):
            tasks.start_soon(take, number)
        await anyio.wait_all_tasks_blocked()
        assert order == []
    assert order == [0, 1, 2]


async def test_a_waiter_that_is_cancelled_gives_back_what_it_holds() -> None:
    locks = Locks()
    async with locks.hold("board:1"):
        with anyio.move_on_after(0):
            async with locks.hold("task:1", "board:1"):
                raise AssertionError
        with anyio.fail_after(5):
            async with locks.hold("task:1"):
                pass
    with anyio.fail_after(5):
        async with locks.hold("task:1", "board:1"):
            pass


async def test_other_names_do_not_wait() -> None:
    locks = Locks()
    async with locks.hold("board:1"):
        with anyio.fail_after(5):
            async with locks.hold("board:2"):
                pass
