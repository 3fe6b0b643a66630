from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kandev_host import Environment, Put, Remove, Store
from kandev_host.models import Board, Task
from kandev_host.testing.world import BOARD, USER, a_task, a_world, write
from kandev_sqlite import SqliteSettings, open_store
from kandev_sqlite.mapper import from_time, to_time

SHARED = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TIMES = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))

tasks = st.lists(
    st.builds(
        a_task,
        priority=st.integers(0, 2),
        branch=st.none() | st.sampled_from(["", "a", "b", "é", "\U0001f600"]),
        started_at=st.none() | TIMES,
        state=st.sampled_from(["TODO", "FAILED"]),
    ),
    max_size=12,
)
fields = ["priority", "branch", "started_at", "state", "created_at", "title"]
orders = st.permutations(fields).flatmap(
    lambda names: st.tuples(*[st.sampled_from([name, f"-{name}"]) for name in names[:3]])
)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(SqliteSettings(), Environment(str(tmp_path), "test")) as store:
        yield store


def in_order(rows: list[Task], order: tuple[str, ...]) -> list[Task]:
    """What Python makes of the same order, unknown values being the smallest."""
    ordered = sorted(rows, key=lambda row: row.id)
    for name in reversed(order):
        plain = name.removeprefix("-")
        known = [row for row in ordered if getattr(row, plain) is not None]
        unknown = [row for row in ordered if getattr(row, plain) is None]
        known.sort(key=lambda row: getattr(row, plain), reverse=name.startswith("-"))
        ordered = known + unknown if name.startswith("-") else unknown + known
    return ordered


@pytest.mark.anyio
@SHARED
@given(rows=tasks, order=orders, limit=st.integers(1, 5), priority=st.integers(0, 2))
async def test_pages_are_what_python_sorts_and_chooses(
    store: Store, rows: list[Task], order: tuple[str, ...], limit: int, priority: int
) -> None:
    await write(store, Remove(Board, BOARD.id), Put(USER), Put(BOARD), *map(Put, rows))
    met: list[Task] = []
    cursor = None
    while True:
        page = await store.find(Task, [("priority", ">=", priority)], order=order, limit=limit, cursor=cursor)
        met += page.rows
        assert len(page.rows) <= limit
        cursor = page.next_cursor
        if cursor is None:
            break
    assert met == in_order([row for row in rows if row.priority >= priority], order)


@pytest.mark.anyio
@SHARED
@given(text=st.text() | st.text(alphabet='"*:()^-+{}ANDORNEAT \0é'))
async def test_any_text_is_a_valid_query(store: Store, text: str) -> None:
    if await store.count(Task) == 0:
        await a_world(store)
    await store.search(text)
    await store.find(Task, [("text", "match", text)])


@pytest.mark.anyio
@SHARED
@given(words=st.lists(st.sampled_from(["login", "bug", "paint", "door"]), min_size=1, max_size=4), star=st.booleans())
async def test_all_words_must_occur(store: Store, words: list[str], star: bool) -> None:
    if await store.count(Task) == 0:
        await a_world(store)  # its task is titled "Fix the login bug"
    query = " ".join(word[:3] + "*" if star else word for word in words)
    assert await store.count(Task, [("text", "match", query)]) == (set(words) <= {"login", "bug"})


@pytest.mark.anyio
@SHARED
@given(changes=st.lists(st.tuples(st.integers(0, 3), st.none() | st.sampled_from(["paint", "door", "paint door"]))))
async def test_full_text_knows_what_the_rows_say(store: Store, changes: list[tuple[int, str | None]]) -> None:
    await write(store, Remove(Board, BOARD.id), Put(USER), Put(BOARD))
    titles: dict[str, str] = {}
    for n, title in changes:
        if title is None:
            await write(store, Remove(Task, str(n)))
            titles.pop(str(n), None)
        else:
            await write(store, Put(a_task(title, id=str(n))))
            titles[str(n)] = title
    for word in ("paint", "door"):
        page = await store.find(Task, [("text", "match", word)])
        assert {row.id for row in page.rows} == {id for id, title in titles.items() if word in title}


@given(value=TIMES)
def test_times_are_stored_exactly(value: datetime) -> None:
    assert to_time(from_time(value)) == value
