"""The client that comes back, against a host that is killed and started again."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from kandev_host.client import Backoff, ClientError, ReconnectingClient
from kandev_host.protocol.actions.boards import BoardCreate
from kandev_host.protocol.actions.tasks import TaskCreate, TaskGet

pytestmark = pytest.mark.anyio
KILLS = 3
DEADLINE_S = 90
QUICK = Backoff(first_s=0.05, limit_s=0.5, give_up_s=60)


def client(host: Any) -> ReconnectingClient:
    return ReconnectingClient(lambda: host.url, lambda: host.token, backoff=QUICK)


class Work:
    """Makes tasks one after the other, and notes which were answered for and which were told of."""

    def __init__(self, who: ReconnectingClient, board_id: str) -> None:
        self.who = who
        self.board_id = board_id
        self.made: list[str] = []
        self.unknown = 0
        self.told: list[tuple[int, str]] = []
        self.over = False

    async def make(self) -> None:
        """Until the last kill has been got over."""
        while not self.over:
            try:
                reply = await self.who.request(TaskCreate(board_id=self.board_id, title="A task", description=""))
            except ClientError as error:
                if not error.details.get("outcome_unknown"):
                    raise
                self.unknown += 1
            else:
                self.made.append(reply.task.id)
            await anyio.sleep(0.02)  # far from the rate limit, whatever the machine

    async def follow(self) -> None:
        async for notification in self.who.notifications():
            if notification.action == "task.created":
                self.told.append((notification.seq or 0, notification.payload["task"]["id"]))
            elif notification.action == "board.created" and self.told:
                return

    async def kill(self, host: Any) -> None:
        for number in range(KILLS):
            while len(self.made) < 5 * (number + 1):
                await anyio.sleep(0.02)
            await anyio.to_thread.run_sync(host.kill)
            await anyio.to_thread.run_sync(host.start)
        while len(self.made) < 5 * (KILLS + 1):
            await anyio.sleep(0.02)
        self.over = True


@pytest.mark.timeout(300)
async def test_over_kills_of_the_host_calls_have_one_effect_and_events_come_once_in_order(host: Any) -> None:
    """P1, P5, P7, as a user of the client sees them."""
    with anyio.fail_after(DEADLINE_S):
        async with client(host) as who:
            await who.subscribe("*")
            work = Work(who, (await who.request(BoardCreate(name="Work"))).board.id)
            async with anyio.create_task_group() as following:
                following.start_soon(work.follow)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(work.make)
                    tasks.start_soon(work.kill, host)
                await who.request(BoardCreate(name="The end"))
            for id in work.made:
                assert (await who.request(TaskGet(task_id=id))).task.id == id
    seqs, told = [seq for seq, _ in work.told], [id for _, id in work.told]
    assert seqs == sorted(set(seqs))
    assert len(told) == len(set(told))
    assert set(work.made) <= set(told)
    assert len(told) <= len(work.made) + work.unknown


async def test_a_host_that_shuts_down_and_starts_again_is_waited_for(host: Any) -> None:
    with anyio.fail_after(DEADLINE_S):
        async with client(host) as who:
            assert await anyio.to_thread.run_sync(host.stop) == 0
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.to_thread.run_sync, host.start)
                assert (await who.call("health.check"))["status"] == "ok"
