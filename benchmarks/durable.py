"""durable_write: `task.create`, acknowledged when it is on the disk, against one FULL commit per insert in bare apsw.

Ours is 64 requests in flight on one socket, one per board: each is decoded, checked against the store, written with its
audit line, event and receipt, indexed for search, and its answer stored, before it is acknowledged. The floor inserts
the bare row of such a task, one transaction each, into a table of the same columns without index or search.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import apsw

from benchmarks.measure import Measure, Row
from benchmarks.servers import Server, connected, host

TASKS = 3000
IN_FLIGHT = 64
INSERTS = 10_000


def request(action: str, payload: dict[str, Any]) -> str:
    return json.dumps({"id": str(uuid4()), "type": "request", "action": action, "payload": payload})


async def tasks_per_s(server: Server) -> float:
    """Acknowledged tasks a second."""
    async with connected(server) as socket:
        boards = []
        for number in range(IN_FLIGHT):
            await socket.send_str(request("board.create", {"name": f"bench {number}"}))
            boards.append((await socket.receive_json())["payload"]["board"]["id"])
        tasks = [
            request("task.create", {"board_id": boards[number % IN_FLIGHT], "title": "A task", "description": "Do it."})
            for number in range(TASKS)
        ]
        acknowledged = 0
        start = time.perf_counter()
        for task in tasks[:IN_FLIGHT]:
            await socket.send_str(task)
        sent = IN_FLIGHT
        while acknowledged < TASKS:
            # Whoever creates a task follows it: its notification comes too.
            frame = await socket.receive_str()
            if '"type":"response"' in frame:
                acknowledged += 1
                if sent < TASKS:
                    await socket.send_str(tasks[sent])
                    sent += 1
            elif '"type":"error"' in frame:
                raise RuntimeError(frame)
        return TASKS / (time.perf_counter() - start)


def inserts_per_s() -> float:
    with tempfile.TemporaryDirectory(prefix="kandev-bench-") as folder:
        database = apsw.Connection(str(Path(folder) / "floor.db"))
        database.execute("PRAGMA journal_mode = WAL").fetchall()
        database.execute("PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 4000")
        database.execute("CREATE TABLE tasks (id TEXT PRIMARY KEY, board_id TEXT, title TEXT, description TEXT) STRICT")
        start = time.perf_counter()
        for _ in range(INSERTS):
            with database:
                database.execute("INSERT INTO tasks VALUES (?, 'b', 'A task', 'Do it.')", (str(uuid4()),))
        spent_s = time.perf_counter() - start
        database.close()
        return INSERTS / spent_s


@contextmanager
def opened() -> Iterator[tuple[Measure, Measure]]:
    with host() as server:
        yield (lambda: asyncio.run(tasks_per_s(server)), inserts_per_s)


ROWS = (Row("durable_write", "task.create, 64 in flight, against one FULL commit per insert", "/s", "≥ 1", opened),)
