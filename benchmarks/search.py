"""search: full-text queries over 1,000,000 stored messages, p95, against the same FTS5 queries in bare apsw.

Ours is `search.query` over the socket; the floor runs the very statement, on the same database file, in this process.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from benchmarks.measure import Measure, Row
from benchmarks.servers import Server, connected, host
from benchmarks.stored import vocabulary, with_messages
from kandev_sqlite.text import SEARCHES, fts_query

MESSAGES = 1_000_000
QUERIES = 40
LIMIT = 20


def queries() -> list[str]:
    """Words from the 100th most frequent one on, pairs of them, phrases and prefixes; always the same."""
    chance, words = random.Random(3), vocabulary()[100:20_000]
    made = []
    for number in range(QUERIES):
        # As often near the front as near the end, by orders of magnitude: people look for both.
        one, two = (words[int(len(words) ** chance.random()) - 1] for _ in range(2))
        made.append((one, f"{one} {two}", f'"{one} {two}"', f"{one[:4]}*")[number % 4])
    return made


def p95_ms(times_s: list[float]) -> float:
    return statistics.quantiles(times_s, n=20)[-1] * 1e3


async def ours_ms(server: Server) -> float:
    times = []
    async with connected(server) as socket:
        for number, text in enumerate(queries()):
            payload = {"text": text, "kinds": ["message"], "limit": LIMIT}
            request = {"id": str(number), "type": "request", "action": "search.query", "payload": payload}
            start = time.perf_counter()
            await socket.send_str(json.dumps(request))
            answer = await socket.receive_json()
            times.append(time.perf_counter() - start)
            assert answer["type"] == "response", answer
    return p95_ms(times)


def floor_ms(database: apsw.Connection) -> float:
    times = []
    for text in queries():
        start = time.perf_counter()
        database.execute(SEARCHES["message"], (fts_query(text), None, LIMIT)).fetchall()
        times.append(time.perf_counter() - start)
    return p95_ms(times)


@contextmanager
def opened() -> Iterator[tuple[Measure, Measure]]:
    folders: list[Path] = []

    def fill(folder: Path) -> None:
        folders.append(folder)
        with_messages(MESSAGES)(folder)

    with host(before=fill) as server:
        database = apsw.Connection(str(folders[0] / "kandev.db"), flags=apsw.SQLITE_OPEN_READONLY)
        yield (lambda: asyncio.run(ours_ms(server)), lambda: floor_ms(database))
        database.close()


ROWS = (Row("search", f"search.query over {MESSAGES:,} messages, p95, against bare FTS5", "ms", "≤ 1.5", opened),)
