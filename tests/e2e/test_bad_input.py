"""Every action against input that it must refuse, over the socket of a real host."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from msgspec import inspect

from kandev_host.client import Client, ClientError
from kandev_host.protocol.actions import ACTIONS

pytestmark = pytest.mark.anyio

HOST_ENV = {"KANDEV_GATEWAY__REQUESTS_PER_S": "100000", "KANDEV_GATEWAY__REQUEST_BURST": "100000"}
KINDS = {"board_id": "board", "column_id": "column", "task_id": "task", "agent_id": "agent"}
# Lists filter by ids, and to stop following what is not there is no mistake.
ANY_ID = {"audit.list", "task.list", "agent.list", "task.unsubscribe", "permission.list", "orchestrator.queue"}
TOO_LARGE = {"VALIDATION_ERROR", "PAYLOAD_TOO_LARGE"}


class Peer:
    """A client that keeps what it was told, and a second one that must not notice."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def refused(self, action: str, payload: object) -> ClientError:
        with pytest.raises(ClientError) as caught:
            await self.client.call(action, payload)
        text = f"{caught.value.message} {caught.value.details}"
        assert "Traceback" not in text, action
        assert caught.value.code != "INTERNAL_ERROR", (action, payload)
        return caught.value

    async def head(self) -> int:
        return int((await self.client.call("events.subscribe", {"topics": ["agent:none"]}))["seq"])


@pytest.fixture
async def peer(one_host: Any) -> AsyncIterator[Peer]:
    async with (
        Client.connect(one_host.url, one_host.token) as client,
        Client.connect(one_host.url, one_host.token) as other,
    ):
        before = await Peer(client).head()
        yield Peer(client)
        assert await Peer(client).head() == before, "a refused request wrote something"
        assert other.closed is None
        assert (await other.call("health.check"))["status"] == "ok"
    assert "Traceback" not in one_host.log()


def fields(action: str) -> list[inspect.Field]:
    info = inspect.type_info(ACTIONS[action].request)
    assert isinstance(info, inspect.StructType)
    return list(info.fields)


def alternatives(kind: inspect.Type) -> list[inspect.Type]:
    return list(kind.types) if isinstance(kind, inspect.UnionType) else [kind]


def valid(item: inspect.Field) -> Any:
    """A value of the right form; ids are of nothing."""
    kind = alternatives(item.type)[0]
    if isinstance(kind, inspect.IntType):
        return kind.ge or 0
    if isinstance(kind, inspect.LiteralType):
        return kind.values[0]
    return str(uuid.uuid4()) if item.encode_name.endswith("_id") else "something"


def required(action: str) -> dict[str, Any]:
    return {item.encode_name: valid(item) for item in fields(action) if item.required}


def oversized(kind: inspect.Type) -> Iterator[Any]:
    """Values just beyond each bound of a type; a text or list without a bound is a mistake of ours."""
    if isinstance(kind, inspect.StrType):
        assert kind.max_length is not None
        yield "x" * (kind.max_length + 1)
    elif isinstance(kind, inspect.IntType):
        assert kind.le is not None
        yield kind.le + 1
        yield 10**400
        if kind.ge is not None:
            yield kind.ge - 1
    elif isinstance(kind, inspect.ListType):
        assert kind.max_length is not None
        yield ["x"] * (kind.max_length + 1)
    elif isinstance(kind, inspect.DictType):
        yield {"key": "x" * (512 << 10)}


EACH_FIELD = [(action, item) for action in ACTIONS for item in fields(action)]


def name_of(value: object) -> str:
    return value.encode_name if isinstance(value, inspect.Field) else str(value)


@pytest.mark.parametrize(("action", "item"), EACH_FIELD, ids=name_of)
async def test_a_field_that_is_wrong_is_named(peer: Peer, action: str, item: inspect.Field) -> None:
    name = item.encode_name
    booleans = any(isinstance(kind, inspect.BoolType) for kind in alternatives(item.type))
    numbers = any(isinstance(kind, inspect.FloatType) for kind in alternatives(item.type))
    bad: list[Any] = [{} if numbers else 1.5, [[1.5]], 7 if booleans else True]
    for value in bad:
        error = await peer.refused(action, {**required(action), name: value})
        assert (error.code, error.details["field"].partition("[")[0]) == ("VALIDATION_ERROR", name)


@pytest.mark.parametrize(("action", "item"), EACH_FIELD, ids=name_of)
async def test_a_field_beyond_its_bounds_is_named(peer: Peer, action: str, item: inspect.Field) -> None:
    for kind in alternatives(item.type):
        for value in oversized(kind):
            error = await peer.refused(action, {**required(action), item.encode_name: value})
            assert error.code in TOO_LARGE, item.encode_name
            assert error.details["field"].partition("[")[0] == item.encode_name


@pytest.mark.parametrize(("action", "item"), [each for each in EACH_FIELD if each[1].required], ids=name_of)
async def test_a_field_that_is_missing_is_named(peer: Peer, action: str, item: inspect.Field) -> None:
    payload = required(action)
    del payload[item.encode_name]
    error = await peer.refused(action, payload)
    assert (error.code, error.details["field"]) == ("VALIDATION_ERROR", item.encode_name)


@pytest.mark.parametrize("action", ACTIONS)
async def test_a_field_that_does_not_exist_is_named(peer: Peer, action: str) -> None:
    error = await peer.refused(action, {**required(action), "surprise": 1})
    assert (error.code, error.details["field"]) == ("VALIDATION_ERROR", "surprise")


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("payload", [7, "text", [], True])
async def test_a_payload_that_is_no_object_is_refused(peer: Peer, action: str, payload: object) -> None:
    error = await peer.refused(action, payload)
    assert (error.code, error.details["field"]) == ("VALIDATION_ERROR", "payload")


@pytest.mark.parametrize(
    ("action", "item"),
    [
        (action, item)
        for action, item in EACH_FIELD
        if item.encode_name in KINDS and action not in ANY_ID and (item.required or not required(action))
    ],
    ids=name_of,
)
@pytest.mark.parametrize("unknown", ["00000000-0000-7000-8000-00000000dead", "../../etc/passwd", "a\0b", "' OR 1=1 --"])
async def test_an_unknown_id_is_not_found(peer: Peer, action: str, item: inspect.Field, unknown: str) -> None:
    error = await peer.refused(action, {**required(action), item.encode_name: unknown})
    assert error.code == "NOT_FOUND"
    first = next(name for name in (each.encode_name for each in fields(action)) if name in KINDS)
    if item.encode_name == first:
        assert (error.details["kind"], error.details["id"]) == (KINDS[first], unknown)


async def test_an_unknown_permission_is_not_found(peer: Peer) -> None:
    error = await peer.refused("permission.respond", {"permission_id": "nothing", "outcome": "cancelled"})
    assert (error.code, error.details) == ("NOT_FOUND", {"kind": "permission", "id": "nothing"})


async def test_a_misspelt_action_is_told_the_nearest(peer: Peer) -> None:
    error = await peer.refused("task.crate", {})
    assert (error.code, error.details["did_you_mean"]) == ("UNKNOWN_ACTION", "task.create")


@pytest.mark.parametrize("cursor", ["x", "null", "W10=", "e30=", "WzEsMl0=", "\0", "é", "A" * 2048])
@pytest.mark.parametrize("action", ["board.list", "task.list", "agent.list", "permission.list"])
async def test_a_cursor_that_nobody_gave_is_refused(peer: Peer, action: str, cursor: str) -> None:
    error = await peer.refused(action, {"cursor": cursor})
    assert (error.code, error.details["field"]) == ("VALIDATION_ERROR", "cursor")


@pytest.mark.parametrize("query", ['"', "AND", "a OR", "*", "NEAR(", "^", "{x}:", "-", "' ; drop table tasks", "\0"])
async def test_any_text_can_be_searched_for(peer: Peer, query: str) -> None:
    assert (await peer.client.call("task.list", {"query": query}))["tasks"] == []


@pytest.fixture(scope="module")
def boards() -> dict[str, str]:
    return {}


@pytest.fixture
async def task_id(one_host: Any, boards: dict[str, str]) -> str:
    """Of a task that names no agent."""
    if "task" not in boards:
        async with Client.connect(one_host.url, one_host.token) as client:
            board = (await client.call("board.create", {"name": "Work"}))["board"]
            payload = {"board_id": board["id"], "title": "Work", "description": ""}
            boards["task"] = (await client.call("task.create", payload))["task"]["id"]
    return boards["task"]


@pytest.mark.parametrize("action", ["agent.launch", "orchestrator.start"])
async def test_an_unknown_agent_type_is_told_the_known_ones(task_id: str, peer: Peer, action: str) -> None:
    error = await peer.refused(action, {"task_id": task_id, "agent_type": "nobody"})
    assert (error.code, error.details["kind"], error.details["id"]) == ("NOT_FOUND", "agent_type", "nobody")
    assert "demo" in error.details["known"]


@pytest.mark.parametrize("action", ["agent.launch", "orchestrator.start"])
async def test_an_agent_that_is_not_installed_says_why_and_what_to_do(task_id: str, peer: Peer, action: str) -> None:
    types = (await peer.client.call("agent.types"))["agent_types"]
    missing = next(item["name"] for item in types if not item["availability"]["ok"])
    error = await peer.refused(action, {"task_id": task_id, "agent_type": missing})
    assert error.code == "UNAVAILABLE"
    assert error.details["reason"]
    assert error.details["fix"]


async def test_an_unjailed_runtime_that_was_not_switched_on_cannot_be_asked_for(task_id: str, peer: Peer) -> None:
    error = await peer.refused("agent.launch", {"task_id": task_id, "agent_type": "demo", "runtime": "host"})
    assert error.code == "UNAVAILABLE"


@pytest.mark.parametrize(
    ("prompt", "field"),
    [
        ([{}], "prompt[0].type"),
        ([{"type": "program"}], "prompt[0].type"),
        ([{"type": "text", "text": 7}], "prompt[0].text"),
        ([{"type": "text", "text": "a"}, {"type": "resource_link"}], "prompt[1].uri"),
        (" ", "prompt"),
    ],
)
async def test_a_prompt_that_is_no_content_is_refused(task_id: str, peer: Peer, prompt: object, field: str) -> None:
    error = await peer.refused("agent.launch", {"task_id": task_id, "agent_type": "demo", "prompt": prompt})
    assert (error.code, error.details["field"]) == ("VALIDATION_ERROR", field)


@pytest.mark.parametrize("text", ["a\0b", "\x1b]52;c;x\x07", "\u202e", "\ufffe", "😀"])
async def test_odd_text_is_stored_as_it_came(one_host: Any, task_id: str, text: str) -> None:
    async with Client.connect(one_host.url, one_host.token) as client:
        payload = {
            "task_id": task_id,
            "title": text,
            "description": text,
            "metadata": {text: [text, 2**64 - 1, -(2**63)]},
        }
        await client.call("task.update", payload)
        task = (await client.call("task.get", {"task_id": task_id}))["task"]
    assert {name: task[name] for name in payload if name != "task_id"} == {
        name: value for name, value in payload.items() if name != "task_id"
    }
