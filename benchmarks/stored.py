"""Databases that hold much already, for the rows that ask what that costs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate, islice
from pathlib import Path

import apsw

from kandev_host import Environment, Put, Store, event
from kandev_host.interfaces import Change, Commit
from kandev_host.models import Board, Task, User
from kandev_sqlite import SqliteSettings, open_store

TASKS = 1000
WORDS = 50_000
WORDS_PER_MESSAGE = 20
AT_ONCE = 2000
INSERT_MESSAGE = "INSERT INTO messages(id, created_at, task_id, role, text) VALUES (?, 1, ?, 'agent', ?)"
USER = User(id="bench-user", email="bench@example.org", username="bench")
BOARD = Board(id="bench-board", name="Bench", owner_id=USER.id)


def with_events(number: int) -> Callable[[Path], None]:
    """Fill a data folder with events of agents' messages, of many tasks in turn."""
    return partial(_fill, lambda: _events(number))


def with_messages(number: int) -> Callable[[Path], None]:
    """Fill a data folder with messages to search, of words as frequent as in a language (Zipf's law)."""

    def fill(folder: Path) -> None:
        _fill(lambda: iter(()), folder)
        database = apsw.Connection(str(folder / "kandev.db"))
        # Unsynced, and past the store: through it, a million of them take ten minutes.
        database.execute("PRAGMA synchronous = OFF; PRAGMA cache_size = -200000").fetchall()
        messages = _messages(number)
        while batch := list(islice(messages, AT_ONCE * 5)):
            with database:
                database.executemany(INSERT_MESSAGE, batch)
        database.close()

    return fill


def vocabulary() -> list[str]:
    """Made-up words, the most frequent first; always the same."""
    chance = random.Random(1)
    return ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(3, 9))) for _ in range(WORDS)]


def _fill(changes: Callable[[], Iterator[Change]], folder: Path) -> None:
    asyncio.run(_write(changes(), folder))


async def _write(changes: Iterator[Change], folder: Path) -> None:
    async with open_store(SqliteSettings(), Environment(str(folder), "bench")) as store:
        tasks = [
            Task(id=f"t{n}", board_id=BOARD.id, title=f"Task {n}", description="", created_by=USER.id)
            for n in range(TASKS)
        ]
        await _commit(store, [Put(USER), Put(BOARD), *map(Put, tasks)])
        while batch := list(islice(changes, AT_ONCE)):
            await _commit(store, batch)


async def _commit(store: Store, changes: list[Change]) -> None:
    (outcome,) = await store.commit([Commit(changes)])
    if isinstance(outcome, Exception):
        raise outcome


def _events(number: int) -> Iterator[Change]:
    for n in range(number):
        task = f"t{n // 100 % TASKS}"
        payload = {"agent_id": f"a-{task}", "task_id": task, "level": "info", "message": "forty words " * 12}
        yield event("acp.log", payload, task_id=task, agent_id=f"a-{task}", board_id=BOARD.id)


def _messages(number: int) -> Iterator[tuple[str, str, str]]:
    """Id, task and text of each."""
    chance, words = random.Random(2), vocabulary()
    weights = list(accumulate(1 / (rank + 1) for rank in range(len(words))))
    for n in range(number):
        yield f"m{n}", f"t{n % TASKS}", " ".join(chance.choices(words, cum_weights=weights, k=WORDS_PER_MESSAGE))
