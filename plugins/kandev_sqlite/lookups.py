"""Rows by their ids: all that are asked for in one round of the event loop are one query for each kind.

A query of its own for each costs a future, a timer and two wakes, and a busy event loop several switches of threads.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, TypeVar

import apsw
import msgspec

from kandev_host import models
from kandev_sqlite.failures import failure
from kandev_sqlite.mapper import Mapper, mapper, utf8
from kandev_sqlite.worker import Workers

R = TypeVar("R", bound=models.Row)
Asked = list[tuple[str, asyncio.Future[Any]]]
_encode = msgspec.json.Encoder().encode


class Lookups:
    """Belongs to the event loop of its `readers`."""

    def __init__(self, readers: Workers, timeout_s: float) -> None:
        self._readers = readers
        self._timeout_s = timeout_s
        self._asked: dict[type[models.Row], Asked] = {}
        self._loop = asyncio.get_running_loop()

    async def get(self, kind: type[R], id: str) -> R | None:
        """None if there is none. Raises as `Store` does for reads."""
        asked = self._asked.get(kind)
        if asked is None:
            asked = self._asked[kind] = []
            self._loop.call_soon(self._read, kind)
        answer: asyncio.Future[R | None] = self._loop.create_future()
        asked.append((utf8(id), answer))
        return await answer

    def _read(self, kind: type[models.Row]) -> None:
        asked = self._asked.pop(kind)
        ids = _encode([id for id, _ in asked]).decode()
        # Who gives up is not missed: the others wait on, and the time of the query is bounded.
        read = self._readers.read(partial(_rows, mapper(kind), ids), self._timeout_s)
        read.add_done_callback(partial(_answer, asked))


def statement(table: Mapper[Any]) -> str:
    """What reads the rows whose ids are in a list of JSON: one statement, however many they are."""
    return f'SELECT {table.columns} FROM "{table.table}" WHERE id IN (SELECT value FROM json_each(?))'  # noqa: S608


def _rows(table: Mapper[Any], ids: str, db: apsw.Connection) -> dict[str, models.Row]:
    try:
        rows = [table.decode(row) for row in db.execute(statement(table), (ids,))]
    except apsw.Error as error:
        raise failure(error, db) from error
    return {row.id: row for row in rows}


def _answer(asked: Asked, read: asyncio.Future[dict[str, models.Row]]) -> None:
    error = read.exception()
    for id, answer in asked:
        if answer.done():
            continue
        if error is None:
            answer.set_result(read.result().get(id))
        else:
            answer.set_exception(error)
