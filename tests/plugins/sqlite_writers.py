"""A process to be killed: tasks created through a journal from eight sides, each id printed once acknowledged."""

from __future__ import annotations

import sys

import anyio

from kandev_host import Environment, Put, event
from kandev_host.bus import MemoryBus
from kandev_host.journal import Journal
from kandev_host.models import Board, Task, User
from kandev_sqlite import SqliteSettings, open_store

WRITES = 2000
USER = User(id="the-user", email="ada@example.org", username="ada")
BOARD = Board(id="the-board", name="Inbox", owner_id=USER.id)


async def write(journal: Journal) -> None:
    for _ in range(WRITES):
        task = Task(board_id=BOARD.id, title="A task", description="", created_by=USER.id)
        await journal.record(Put(task), event("task.created", {"task": task}, task_id=task.id))
        print(task.id, flush=True)


async def main(folder: str) -> None:
    async with (
        open_store(SqliteSettings(), Environment(folder, "test")) as store,
        Journal(store, MemoryBus()) as journal,
        anyio.create_task_group() as group,
    ):
        await journal.record(Put(USER), Put(BOARD))
        for _ in range(8):
            group.start_soon(write, journal)


anyio.run(main, sys.argv[1])
