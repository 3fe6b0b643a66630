"""Requests to draw: which thing, which fields, and how they become a payload in the world as it then is.

What is drawn are small numbers whose range never changes, so that a run can be repeated though ids differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

from .world import Row, World

Drawn = tuple[str, Row]

STATES = ("TODO", "IN_PROGRESS", "BLOCKED", "COMPLETED", "FAILED", "CANCELLED")
WORDS = ("apple", "pear", "plum")
TEXTS = ("apple", "pear plum", "plum\u2028apple", "Ünï 😀 \u202e pear", "\\\" ' -- apple")
UNKNOWN = "00000000-0000-7000-8000-00000000dead"
REFERENCES = 40

refs = st.integers(0, REFERENCES - 1)
texts = st.sampled_from(TEXTS)
states = st.sampled_from(STATES)
positions = st.integers(0, 5) | st.just(1_000_000)
versions = st.sampled_from(["none", "none", "none", "present", "older", "later"])
column_states = st.none() | states
limits = st.none() | st.integers(1, 3)


def pick(world: World, ids: Sequence[str], ref: int) -> str:
    """Mostly one that is there; else one that is gone, or never was."""
    if ref < REFERENCES - 4 and ids:
        return ids[ref % len(ids)]
    if ref < REFERENCES - 2 and world.gone:
        return world.gone[-1 - ref % len(world.gone)]
    return UNKNOWN if ref % 2 else "nothing\0'"


def _draw(action: str, required: Row, /, **optional: st.SearchStrategy[Any]) -> st.SearchStrategy[Drawn]:
    return st.tuples(st.just(action), st.fixed_dictionaries(required, optional=optional))


_board = {"board": refs, "version": versions}
_column = {"column": refs, "version": versions}
_task = {"task": refs, "version": versions}
_blockers = st.lists(refs, max_size=3)
_priority = st.integers(0, 10)
_metadata = st.sampled_from([{}, {"a": [1, None, {"b": "ü"}]}, {"a": 2**63}])

_create = _draw(
    "task.create", {"board": refs, "title": texts, "description": texts},
    priority=_priority, column=refs, blocked_by=_blockers, metadata=_metadata,
)  # fmt: skip
_update = _draw(
    "task.update", _task, title=texts, description=texts, priority=_priority, blocked_by=_blockers, metadata=_metadata
)
_move = _draw("task.move", {**_task, "column": refs, "position": positions})
_state = _draw("task.state", {**_task, "state": states}, reason=texts)
_reads = [_draw("task.get", {"task": refs}), _draw("board.get", {"board": refs}), _draw("column.list", {"board": refs})]
_COLUMN = [
    _draw("column.create", {"board": refs, "name": texts}, position=positions, wip_limit=limits, state=column_states),
    _draw("column.update", _column, name=texts, wip_limit=limits, state=column_states),
    _draw("column.update", {**_column, "wip_limit": limits}),
    _draw("column.move", {**_column, "position": positions}),
    _draw("column.delete", _column, force=st.booleans()),
]
_BOARD = [
    _draw("board.create", {"name": texts}, description=st.none() | texts),
    _draw("board.update", _board, name=texts, description=st.none() | texts),
]
_delete_board = _draw("board.delete", _board, force=st.booleans())
_delete_task = _draw("task.delete", _task, force=st.booleans())
_CHANGES = [
    *[_create, _move, _state, _update] * 6,
    *[_draw("task.update", {**_task, "blocked_by": _blockers})] * 3,
    *[_delete_task] * 2,
    *_COLUMN * 2,
    *_BOARD,
    _delete_board,
]


def _one_of(kinds: Sequence[st.SearchStrategy[Drawn]]) -> st.SearchStrategy[Drawn]:
    """Each as often as it stands there, which `st.one_of` does not do."""
    return st.sampled_from(range(len(kinds))).flatmap(lambda index: kinds[index])


changes: st.SearchStrategy[Drawn] = _one_of(_CHANGES)
requests: st.SearchStrategy[Drawn] = _one_of([*_CHANGES, *_reads * 2])
filters: st.SearchStrategy[Row] = st.fixed_dictionaries(
    {"limit": st.integers(1, 4)},
    optional={
        "board": refs,
        "column": refs,
        "state": states,
        "priority_min": _priority,
        "words": st.lists(st.sampled_from(WORDS), max_size=2),
        "agent_type": st.just("demo"),
    },
)


def payload_of(world: World, drawn: Drawn, mark: str) -> Row:
    """The payload; `mark` is a word that every task of this run has in its description."""
    action, fields = drawn
    payload = dict(fields)
    row = _target(world, action.partition(".")[0], payload)
    version = payload.pop("version", "none")
    if version != "none":
        present = row["version"] if row is not None else 1
        payload["expected_version"] = {"present": present, "older": max(1, present - 1), "later": present + 1}[version]
    if "column" in payload:
        payload["column_id"] = _column_for(world, row or world.boards.get(payload.get("board_id", "")), payload)
    if "blocked_by" in payload:
        payload["blocked_by"] = [pick(world, list(world.tasks), ref) for ref in payload["blocked_by"]]
    if "description" in payload and action.startswith("task."):
        payload["description"] += f" {mark}"
    return payload


def _target(world: World, noun: str, payload: Row) -> Row | None:
    """Replace the reference to what the request is about; its row."""
    if "board" in payload:
        payload["board_id"] = pick(world, list(world.boards), payload.pop("board"))
        return None if noun == "column" else world.boards.get(payload["board_id"])
    if noun == "column":
        payload["column_id"] = pick(world, [row["id"] for row in world.all_columns()], payload.pop("column"))
        return world.column(payload["column_id"])
    if "task" not in payload:
        return None
    payload["task_id"] = pick(world, list(world.tasks), payload.pop("task"))
    return world.tasks.get(payload["task_id"])


def _column_for(world: World, owner: Row | None, payload: Row) -> str:
    """Mostly of the same board."""
    ref = payload.pop("column")
    board_id = None if owner is None else owner.get("board_id", owner["id"])
    near = world.columns.get(board_id or "", [])
    return pick(world, [row["id"] for row in (near if ref % 8 else world.all_columns())], ref)


def list_payload(world: World, drawn: Row, mark: str) -> Row:
    """Of task.list. Tasks of other runs are kept out by the mark."""
    payload = dict(drawn)
    words = payload.pop("words", [])
    if "board" in payload:
        payload["board_id"] = pick(world, list(world.boards), payload.pop("board"))
    if "column" in payload:
        payload["column_id"] = pick(world, [row["id"] for row in world.all_columns()], payload.pop("column"))
    if words or not payload.keys() & {"board_id", "column_id"}:
        payload["query"] = " ".join([mark, *words])
    return payload


def listed(world: World, payload: Row, order: Callable[[Row], Any]) -> list[Row]:
    """The tasks that meet every filter of task.list."""
    equal = {name: payload[name] for name in ("board_id", "column_id", "state", "agent_type") if name in payload}
    words = set(payload.get("query", "").split())
    found = [
        task
        for task in world.tasks.values()
        if equal.items() <= {name: task[name] for name in equal}.items()
        and task["priority"] >= payload.get("priority_min", 0)
        and words <= set(f"{task['title']} {task['description']}".split())
    ]
    return sorted(found, key=(lambda task: task["position"]) if "column_id" in payload else order)
