"""A board of ada's with one thing of each kind, boards beside it, and all who may ask for them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec

from kandev_host.gateway.actions import core_actions
from kandev_host.interfaces import Action, Call, Principal, scopes_of
from kandev_host.models import (
    LOCAL_USER_ID,
    AgentInstance,
    Board,
    Column,
    Elicitation,
    Limits,
    PermissionRequest,
    PermissionRule,
    Session,
    ShellRow,
    Snapshot,
    Task,
    Turn,
)
from kandev_host.protocol.actions import ACTIONS

from .conftest import EventStore
from .test_actions import SERVICES, Service

PEOPLE = {
    "viewer": Principal("eve", "user", "eve", scopes_of("viewer"), credential="viewer"),
    "owner": Principal("ada", "user", "ada", scopes_of("member"), credential="owner"),
    "other": Principal("bob", "user", "bob", scopes_of("member"), credential="other"),
    "admin": Principal(LOCAL_USER_ID, "user", "local", scopes_of("admin"), credential="admin"),
    "gone": Principal("zoe", "user", "zoe", scopes_of("admin"), credential="gone"),
    "key": Principal("ada", "user", "a key of ada's", frozenset({"tasks:read", "tasks:write"}), credential="key"),
}
LISTS = {"topics", "task_ids"}
IDS = {
    "board_id": "b1", "column_id": "c1", "task_id": "t1", "agent_id": "a1", "prompt_id": "p1", "permission_id": "q1",
    "rule_id": "r1", "elicitation_id": "e1", "session_id": "s1", "shell_id": "sh1", "snapshot_id": "sn1",
}  # fmt: skip
VALUES: dict[str, Any] = {
    "state": "TODO", "title": "T", "name": "N", "description": "", "prompt": "P", "position": 0, "option_id": "o",
    "method_id": "m", "value": "v", "outcome": "decline", "text": "x", "path": "x", "command": "ls", "data": "x",
    "cols": 80, "rows": 24, "signal": "INT",
}  # fmt: skip


class Note(msgspec.Struct, forbid_unknown_fields=True):
    pass


class Tag(msgspec.Struct, forbid_unknown_fields=True):
    task_id: str
    task_ids: list[str] = []
    note_id: str | None = None


async def serve(_call: Call, _request: Any) -> dict[str, Any]:
    return {"done": True}


PLUGIN = (
    Action("plugin.note", Note, serve, "notes:write", owned=False),
    Action("plugin.read", Note, serve, "notes:read"),
    Action("plugin.tag", Tag, serve, "tasks:write"),
    Action("plugin.vague", dict[str, Any], serve, "tasks:write"),
    Action("plugin.anyone", Note, serve, ""),
)


def agent(id: str, task_id: str) -> AgentInstance:
    return AgentInstance(id=id, task_id=task_id, agent_type="demo", runtime="bwrap", resource_limits=Limits())


ON_TASK: dict[str, Any] = {
    "p": (Turn, {"agent_id": "a1", "prompt": [], "created_by": "ada"}),
    "q": (PermissionRequest, {"agent_id": "a1", "session_id": "s1", "tool_call": {}, "options": [], "digest": ""}),
    "e": (Elicitation, {"agent_id": "a1", "mode": "form", "message": ""}),
    "r": (PermissionRule, {"effect": "allow", "created_by": "ada"}),
    "s": (Session, {"agent_id": "a1", "acp_session_id": "x", "cwd": "/", "protocol_version": 1}),
    "sh": (ShellRow, {"workspace_id": "t1", "runtime": "bwrap", "opened_by": "ada"}),
    "sn": (Snapshot, {"kind": "turn", "created_by": "ada"}),
}
THINGS = [
    *(Board(id=id, name=id, owner_id=owner) for id, owner in (("b1", "ada"), ("b2", "ada"), ("b9", "bob"))),
    *(Column(id=f"c{n}", board_id=f"b{n}", name="c", position=0) for n in "129"),
    *(Task(id=f"t{n}", board_id=f"b{n}", title="t", description="", created_by="ada") for n in "129"),
    *(agent(f"a{n}", f"t{n}") for n in "129"),
    *(kind(id=f"{key}{n}", task_id=f"t{n}", **rest) for key, (kind, rest) in ON_TASK.items() for n in "19"),
    PermissionRule(id="everywhere", effect="allow", created_by="ada"),
    ShellRow(id="scratch", workspace_id="w2", runtime="bwrap", opened_by="bob"),
]


class Rows(EventStore):
    """A store in memory that holds the things of the table."""

    def __init__(self) -> None:
        super().__init__()
        self.rows |= {(type(row), row.id): row for row in THINGS}

    async def get(self, kind: type[Any], id: str) -> Any:
        self.looked_up += 1
        return self.rows.get((kind, id))

    async def find(self, kind: type[Any], where: Any, **_: Any) -> Any:
        found = [row for row in self.rows.values() if isinstance(row, kind)]
        return SimpleNamespace(rows=[row for row in found if all(getattr(row, name) == it for name, _, it in where)])


def actions(house: Any) -> list[Action[Any]]:
    services = {name: Service(name, house) for name in SERVICES}
    return [*core_actions(SimpleNamespace(store=house.store, **services)), *PLUGIN]  # type: ignore[arg-type]


def payload_of(action: str, named: dict[str, Any]) -> dict[str, Any]:
    shape = next((each.request for each in PLUGIN if each.name == action), None) or (
        ACTIONS[action].request if action in ACTIONS else Note
    )
    fields = msgspec.structs.fields(shape) if isinstance(shape, type) else ()
    needed = {field.name: IDS.get(field.name, VALUES.get(field.name)) for field in fields if field.required}
    return {**needed, **{name: it.split(",") if name in LISTS else it for name, it in named.items()}}
