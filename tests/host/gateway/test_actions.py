"""The table of built-in actions, tied to services that only remember what they were asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from kandev_host.errors import Unavailable
from kandev_host.events import event
from kandev_host.gateway.actions import core_actions
from kandev_host.interfaces import Principal
from kandev_host.protocol.actions import ACTIONS

pytestmark = pytest.mark.anyio

SERVICES = [
    "boards", "columns", "tasks", "agents", "agent_reading", "agent_sessions", "agent_types", "permissions",
    "elicitations", "orchestrator", "search", "usage", "workspaces", "info", "session_rows", "prompt_queue", "captures",
    "workspace_reading", "workspace_keeping", "shells", "snapshots", "commits", "backups", "audit",
]  # fmt: skip
SUBSCRIPTIONS = {"task.subscribe", "task.unsubscribe", "events.subscribe", "events.unsubscribe"}


class Service:
    """Answers every method with its own name and the principal's, and `launch` of task t2 with an error."""

    def __init__(self, name: str, house: Any) -> None:
        self._name = name
        self._house = house

    def __getattr__(self, method: str) -> Any:
        async def ask(principal: Any, request: Any, *_following: Any) -> Any:
            if method == "launch":
                await self._house.journal.record(event("acp.status", {}, task_id=request.task_id))
                if request.task_id == "t2":
                    raise Unavailable("No such agent", fix="install it")
            task = SimpleNamespace(id="t1")
            return Reply(service=self._name, method=method, principal=principal.id, task=task)

        return ask


class Reply(msgspec.Struct):
    service: str
    method: str
    principal: str
    task: Any
    shell: Any = None

    def __post_init__(self) -> None:
        self.task = self.shell = Named(self.task.id)


class Named(msgspec.Struct):
    id: str


def table(house: Any) -> Any:
    services = {name: Service(name, house) for name in SERVICES}
    return core_actions(SimpleNamespace(store=house.store, **services))  # type: ignore[arg-type]


@pytest.fixture
async def served(open_house: Any) -> AsyncIterator[Any]:
    async with open_house(actions=table) as house:
        yield house


@pytest.fixture
async def wire(served: Any, open_wire: Any) -> AsyncIterator[Any]:
    async with open_wire(served) as opened:
        yield opened


VALUES = {
    "state": "TODO", "title": "T", "name": "N", "description": "", "prompt": "P", "position": 0, "option_id": "o",
    "topics": ["*"], "outcome": "decline", "cols": 80, "rows": 24, "signal": "INT",
}  # fmt: skip


# The services whose names do not say which actions they serve.
ELSEWHERE = {
    "host": "info", "health": "info", "queue": "prompt_queue", "agent.capture": "captures",
    "agent.sessions": "session_rows", "agent.session_delete": "session_rows",
    "workspace.diff": "snapshots", "workspace.commits": "commits", "workspace.restore": "snapshots",
    "workspace.snapshot": "snapshots", "workspace.snapshots": "snapshots",
}  # fmt: skip
METHODS = {
    "check": "health", "types": "list", "type_update": "update", "capture": "read", "sessions": "list",
    "session_delete": "delete", "snapshot": "take", "snapshots": "list",
}  # fmt: skip


def valid(action: str) -> dict[str, Any]:
    fields = msgspec.structs.fields(ACTIONS[action].request)
    return {field.name: VALUES.get(field.name, "t1") for field in fields if field.required}


@pytest.mark.parametrize("action", sorted(ACTIONS.keys() - SUBSCRIPTIONS))
async def test_every_action_reaches_its_service_as_its_principal(wire: Any, action: str) -> None:
    await wire.request(action, valid(action))
    while (reply := await wire.message())["type"] == "notification":
        pass
    assert reply["type"] == "response", reply
    noun, verb = action.split(".")
    assert reply["payload"]["service"].startswith(ELSEWHERE.get(action) or ELSEWHERE.get(noun, noun))
    assert reply["payload"]["method"] == METHODS.get(verb, verb)
    assert reply["payload"]["principal"].startswith("0000")


@pytest.mark.parametrize("action", sorted(ACTIONS))
async def test_every_action_names_an_unknown_field(wire: Any, action: str) -> None:
    error = (await wire.ask(action, {**valid(action), "surprise": 1}))["payload"]
    assert (error["code"], error["details"]) == ("VALIDATION_ERROR", {"field": "surprise"})


@pytest.mark.parametrize("action", sorted(name for name in ACTIONS if valid(name)))
async def test_every_action_names_a_missing_field(wire: Any, action: str) -> None:
    for field in valid(action):
        payload = {name: value for name, value in valid(action).items() if name != field}
        error = (await wire.ask(action, payload))["payload"]
        assert (error["code"], error["details"]) == ("VALIDATION_ERROR", {"field": field})


@pytest.mark.parametrize("action", sorted(name for name in ACTIONS if valid(name)))
async def test_every_action_names_a_wrong_typed_field(wire: Any, action: str) -> None:
    for field in valid(action):
        error = (await wire.ask(action, {**valid(action), field: {"wrong": True}}))["payload"]
        assert error["code"] == "VALIDATION_ERROR"
        assert error["details"]["field"].startswith(field)


@pytest.mark.parametrize("action", sorted(ACTIONS))
async def test_no_action_is_served_without_a_token(served: Any, open_wire: Any, action: str) -> None:
    async with open_wire(served, token=None) as stranger:
        reply = await stranger.ask(action, valid(action))
        assert reply["payload"]["code"] == "UNAUTHORIZED"
        assert (await stranger.closed())[0] == 4401


async def test_whoever_creates_a_task_follows_it(served: Any, wire: Any) -> None:
    await wire.ask("task.create", valid("task.create"))
    await served.record(1)
    assert (await wire.message())["seq"] == 1


async def test_whoever_launches_an_agent_hears_its_first_word(wire: Any) -> None:
    await wire.request("agent.launch", {"task_id": "t1"})
    assert {(await wire.message())["type"], (await wire.message())["type"]} == {"notification", "response"}


async def test_a_launch_that_failed_follows_nothing(served: Any, wire: Any) -> None:
    await wire.request("agent.launch", {"task_id": "t2"})
    while (message := await wire.message())["type"] == "notification":
        pass
    assert message["payload"]["details"]["fix"] == "install it"
    await served.record(1, task_id="t2")
    assert (await wire.ask("health.check"))["type"] == "response"


@pytest.mark.parametrize(("kind", "scopes"), [("service", {"*"}), ("user", {"tasks:read"})])
async def test_whoever_may_not_read_a_shell_cannot_follow_it(
    open_house: Any, open_wire: Any, people: Any, kind: Any, scopes: set[str]
) -> None:
    other = Principal("x", kind, "x", frozenset(scopes))
    async with open_house(authenticator=people(lambda _token: other)) as house, open_wire(house) as wire:
        assert (await wire.ask("events.subscribe", {"topics": ["*"]}))["type"] == "response"
        error = (await wire.ask("events.subscribe", {"topics": ["task:t1", "shell:s1"]}))["payload"]
        assert (error["code"], error["details"]) == ("FORBIDDEN", {"scope": "shell:read"})
