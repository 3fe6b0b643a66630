"""The memory of jails without cgroups is watched by one thread for all of them, which ends with the last."""

from __future__ import annotations

import threading
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest

from kandev_sandbox import Cgroups, Limits

pytestmark = pytest.mark.anyio
MIB = 1 << 20
NOTHING = Cgroups((), "a test wants none", None)
IDLE_LIMITS = Limits(memory_bytes=256 * MIB)
# Six that each hold a part, which meets no limit of a single process.
HOARD = """
import os, time
for _ in range(6):
    if os.fork() == 0:
        held = bytearray(b"x") * (20 << 20)
        time.sleep(600)
os.wait()
"""


def watchers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "kandev-memory"]


@pytest.fixture(autouse=True)
async def none_of_before() -> None:
    for thread in watchers():
        await gone(thread)


async def gone(thread: threading.Thread) -> None:
    await anyio.to_thread.run_sync(thread.join, 60)
    assert not thread.is_alive()


async def test_one_thread_watches_all_and_ends_with_the_last(sandbox: Any) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(5):
            await stack.enter_async_context(sandbox.open("sleep", "600", limits=IDLE_LIMITS, groups=NOTHING))
        (thread,) = watchers()
    await gone(thread)


async def test_it_watches_again_after_it_ended(sandbox: Any) -> None:
    for _ in range(2):
        async with sandbox.open("sleep", "600", limits=IDLE_LIMITS, groups=NOTHING):
            (thread,) = watchers()
        await gone(thread)


async def test_only_the_jail_that_goes_beyond_its_memory_is_ended(sandbox: Any) -> None:
    limits = Limits(memory_bytes=64 * MIB)
    async with sandbox.open("cat", limits=IDLE_LIMITS, groups=NOTHING) as beside:
        async with sandbox.open("/usr/bin/python3", "-c", HOARD, limits=limits, groups=NOTHING) as jail:
            with anyio.fail_after(90):
                await jail.wait()
        assert jail.ending is not None
        assert jail.ending.limit == "memory"
        await beside.stdin.send(b"still here")
        assert await beside.stdout.receive() == b"still here"
    assert beside.ending is None


async def test_what_a_late_jail_uses_is_seen_while_another_idles(sandbox: Any) -> None:
    async with sandbox.open("sleep", "600", limits=Limits(memory_bytes=64 << 30), groups=NOTHING):
        await test_only_the_jail_that_goes_beyond_its_memory_is_ended(sandbox)


async def test_a_machine_that_does_not_count_its_pages_is_watched_by_time(
    sandbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kandev_sandbox.memory_watch._allocated", lambda: None)
    await test_only_the_jail_that_goes_beyond_its_memory_is_ended(sandbox)
