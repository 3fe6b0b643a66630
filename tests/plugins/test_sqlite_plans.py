"""Every list is read by an index, in its order, from the cursor on: no page costs more because there is more behind it.

The queries are those of the services; each is explained with and without SQLite's statistics, first page and next.
Not here: full-text queries, whose hits are sorted, and filters beside a column, whose tasks SQLite may rather sort.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import apsw
import pytest

from kandev_host.models import (
    AgentInstance,
    AgentLog,
    Board,
    Column,
    Command,
    Elicitation,
    PermissionRequest,
    QueueEntry,
    Row,
    Session,
    ShellRow,
    Snapshot,
    Task,
    TaskEvent,
)
from kandev_sqlite import replay
from kandev_sqlite.ladder import migrate
from kandev_sqlite.lookups import statement
from kandev_sqlite.mapper import TABLES, mapper
from kandev_sqlite.query import cursor_at, key_of, select

CREATED = ("created_at", "id")
NEWEST = ("-created_at", "-id")
PLACE = ("position", "id")
RANK = ("rank", "id")
TASK = Task(board_id="b1", column_id="c1", title="T", description="", created_by="u", agent_type="demo")
AGENT = AgentInstance(task_id=TASK.id, agent_type="demo", runtime="bwrap")

LISTS: list[tuple[type[Row], list[tuple[str, str, Any]], Sequence[str]]] = [
    (Board, [], CREATED),
    (Column, [("board_id", "=", "b1")], PLACE),
    (Task, [], CREATED),
    (Task, [("board_id", "=", "b1")], CREATED),
    (Task, [("state", "=", "TODO")], CREATED),
    (Task, [("agent_type", "=", "demo")], CREATED),
    (Task, [("board_id", "=", "b1"), ("state", "=", "TODO")], CREATED),
    (Task, [("board_id", "=", "b1"), ("agent_type", "=", "demo")], CREATED),
    (Task, [("board_id", "=", "b1"), ("state", "=", "TODO"), ("agent_type", "=", "demo")], CREATED),
    (Task, [("priority", ">=", 5)], CREATED),
    (Task, [("board_id", "=", "b1"), ("priority", ">=", 5)], CREATED),
    (Task, [("column_id", "=", "c1")], PLACE),
    (Task, [("board_id", "=", "b1"), ("column_id", "=", "c1")], PLACE),
    (Task, [("board_id", "=", "b1"), ("column_id", "=", None)], PLACE),
    (Task, [("board_id", "=", "b1"), ("column_id", "=", "c1"), ("position", ">=", 3)], PLACE),
    (TaskEvent, [("task_id", "=", TASK.id)], ("version", "created_at", "id")),
    (AgentInstance, [], NEWEST),
    (AgentInstance, [("task_id", "=", TASK.id)], NEWEST),
    (AgentInstance, [("status", "=", "RUNNING")], NEWEST),
    (AgentInstance, [("task_id", "=", TASK.id), ("status", "=", "RUNNING")], NEWEST),
    (AgentInstance, [("agent_type", "=", "demo")], NEWEST),
    (Session, [], NEWEST),
    (Session, [("agent_id", "=", AGENT.id)], NEWEST),
    (AgentLog, [("agent_instance_id", "=", AGENT.id)], CREATED),
    (AgentLog, [("agent_instance_id", "=", AGENT.id), ("log_level", "in", ("warning", "error"))], CREATED),
    (PermissionRequest, [], CREATED),
    (PermissionRequest, [("agent_id", "=", AGENT.id)], CREATED),
    (PermissionRequest, [("task_id", "=", TASK.id)], CREATED),
    (PermissionRequest, [("state", "=", "pending")], CREATED),
    (PermissionRequest, [("agent_id", "=", AGENT.id), ("state", "=", "pending")], CREATED),
    (PermissionRequest, [("task_id", "=", TASK.id), ("state", "=", "pending")], CREATED),
    (Elicitation, [], CREATED),
    (Elicitation, [("agent_id", "=", AGENT.id)], CREATED),
    (Elicitation, [("task_id", "=", TASK.id), ("state", "=", "pending")], CREATED),
    (Elicitation, [("state", "=", "pending")], CREATED),
    (QueueEntry, [("state", "=", "waiting")], RANK),
    (Snapshot, [("task_id", "=", TASK.id)], CREATED),
    (Snapshot, [("task_id", "=", TASK.id)], NEWEST),
    (QueueEntry, [], ("id",)),
    (ShellRow, [], NEWEST),
    (ShellRow, [("task_id", "=", TASK.id)], NEWEST),
    (ShellRow, [("state", "=", "open")], CREATED),
    (Command, [], NEWEST),
    (Command, [("task_id", "=", TASK.id)], NEWEST),
    (Command, [("state", "=", "running")], CREATED),
    (Command, [("shell_id", "=", "s1")], NEWEST),
]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[apsw.Connection]:
    path = tmp_path_factory.mktemp("plans") / "kandev.db"
    connection = apsw.Connection(str(path))
    migrate(connection, path)
    connection.execute("PRAGMA foreign_keys = OFF")
    yield connection
    connection.close()


@pytest.fixture(params=["without statistics", "with statistics"])
def db(database: apsw.Connection, request: pytest.FixtureRequest) -> apsw.Connection:
    if request.param == "with statistics" and not database.execute("SELECT count(*) FROM tasks").get:
        fill(database)
        database.execute("ANALYZE")
    return database


def fill(connection: apsw.Connection) -> None:
    """A big board and small ones; most tasks are done, and have one agent."""
    put(connection, [task(n) for n in range(3000)])
    put(connection, [AgentInstance(task_id=f"t{n // 2}", agent_type="demo", runtime="bwrap") for n in range(3000)])
    put(connection, [session(n) for n in range(3000)])
    put(connection, [AgentLog(agent_instance_id=AGENT.id, message="x") for _ in range(3000)])
    put(connection, [TaskEvent(task_id=f"t{n // 3}", event_type="x", created_by="u") for n in range(3000)])
    put(connection, [entry(n) for n in range(1000)])
    with connection:  # one commit, not one for each row
        connection.executemany(
            "INSERT INTO streams(task_id, agent_id, turn_id, board_id) VALUES (?, ?, ?, 'b1')",
            [(f"t{n}", f"a{n}", f"u{n}") for n in range(1000)],
        )
        connection.executemany(
            "INSERT INTO events(id, action, actor, stream, payload, created_at) "
            "VALUES ('e', 'acp.log', 'h', ?, '{}', 1)",
            [(n % 1000,) for n in range(10_000)],
        )


def task(n: int) -> Task:
    return Task(
        id=f"t{n}", board_id="b1" if n % 10 else f"b{n}", column_id=f"c{n % 4}", position=n // 4, title="T",
        description="", state="TODO" if n % 50 == 0 else "COMPLETED", priority=n % 7, created_by="u",
        agent_type="demo" if n % 3 else "other",
    )  # fmt: skip


def session(n: int) -> Session:
    return Session(agent_id=f"a{n}", task_id=f"t{n // 2}", acp_session_id="s", cwd="/workspace", protocol_version=1)


def entry(n: int) -> QueueEntry:
    return QueueEntry(id=f"t{n}", board_id="b1", state="waiting" if n % 9 else "running", created_by="u")


def put(connection: apsw.Connection, rows: Sequence[Row]) -> None:
    table = mapper(type(rows[0]))
    with connection:
        connection.executemany(table.upsert(1), map(table.encode, rows))


def plan(db: apsw.Connection, sql: str, values: Sequence[Any]) -> list[str]:
    return [str(row[3]) for row in db.execute("EXPLAIN QUERY PLAN " + sql, values)]


def cursor_of(kind: type[Row], order: Sequence[str]) -> str:
    rows: dict[type[Row], Row] = {
        Board: Board(name="B", owner_id="u"),
        Column: Column(board_id="b1", name="C", position=0),
        Task: TASK,
        TaskEvent: TaskEvent(task_id=TASK.id, event_type="x", created_by="u"),
        AgentInstance: AGENT,
        AgentLog: AgentLog(agent_instance_id=AGENT.id, message="x"),
        PermissionRequest: PermissionRequest(
            agent_id="a", task_id="t", session_id="s", tool_call={}, options=[], digest="d"
        ),
        Elicitation: Elicitation(agent_id="a", task_id="t", mode="form", message="m"),
        Session: session(1),
        Snapshot: Snapshot(task_id=TASK.id, kind="turn", created_by="u"),
        QueueEntry: QueueEntry(id="t", board_id="b", created_by="u"),
        ShellRow: ShellRow(workspace_id="w", runtime="bwrap", opened_by="u"),
        Command: Command(command="ls"),
    }
    table = mapper(kind)
    return cursor_at(table, key_of(table, order), rows[kind])


@pytest.mark.parametrize("page", ["first", "next"])
@pytest.mark.parametrize(
    ("kind", "where", "order"),
    LISTS,
    ids=[f"{kind.__name__}-{'-'.join(name for name, *_ in where) or 'all'}-{order[0]}" for kind, where, order in LISTS],
)
def test_a_list_is_read_in_the_order_of_an_index(
    db: apsw.Connection, kind: type[Row], where: list[tuple[str, str, Any]], order: Sequence[str], page: str
) -> None:
    table = mapper(kind)
    cursor = cursor_of(kind, order) if page == "next" else None
    steps = plan(db, *select(table, where, key_of(table, order), 100, cursor))
    assert len(steps) == 1, "no sorting, no second table"
    assert " INDEX " in steps[0] or "PRIMARY KEY" in steps[0], steps
    chosen = bool([op for _, op, _ in where if op == "="])
    assert steps[0].startswith("SEARCH") or (page == "first" and not chosen), steps


@pytest.mark.parametrize("kind", TABLES, ids=lambda kind: str(kind.__name__))
def test_rows_are_found_by_their_ids(db: apsw.Connection, kind: type[Row]) -> None:
    steps = plan(db, statement(mapper(kind)), ('["a", "b"]',))
    assert steps[0].startswith("SEARCH"), steps
    assert "(id=?)" in steps[0], steps


def test_how_many_tasks_a_place_holds_is_counted_in_an_index_alone(db: apsw.Connection) -> None:
    (step,) = plan(db, "SELECT count(*) FROM tasks WHERE board_id IS ? AND column_id IS ?", ("b1", "c1"))
    assert "COVERING INDEX" in step


@pytest.mark.parametrize("topic", ["task:t1", "board:b1", "agent:a1", "*"])
def test_events_of_a_topic_are_found_by_index(db: apsw.Connection, topic: str) -> None:
    """All that is read is found by the key or an index; nothing is read through."""
    told: list[list[str]] = []

    def explain(cursor: apsw.Cursor, sql: str, values: Any) -> bool:
        if not sql.startswith("EXPLAIN"):
            told.append(plan(cursor.connection, sql, values or ()))
        return True

    db.exec_trace = explain
    try:
        replay.events(db, 5, [topic], 100, "acp.")
    finally:
        db.exec_trace = None
    steps = [step for steps in told for step in steps]
    assert steps
    assert [step for step in steps if step.startswith("SCAN") and "json_each" not in step] == []
    assert [step for step in steps if "TEMP B-TREE" in step] == []


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT seq FROM events ORDER BY seq LIMIT 500",
        "SELECT min(seq) FROM events",
        "SELECT id FROM receipts WHERE created_at < 5 ORDER BY created_at LIMIT 500",
        "SELECT 1 FROM events WHERE stream = 5",
    ],
)
def test_what_retention_asks_is_read_by_index(db: apsw.Connection, sql: str) -> None:
    steps = plan(db, sql, ())
    assert all("INDEX" in step or "SEARCH" in step or step == "SCAN events" for step in steps), steps
    assert [step for step in steps if "TEMP B-TREE" in step] == []
