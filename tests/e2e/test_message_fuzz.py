"""Messages made from the types of every action, and mutated: each has one answer, and the host stays well (P18).

`KANDEV_TEST_MESSAGES` is how many for each action.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from msgspec import inspect

from kandev_host.errors import KandevError
from kandev_host.protocol.actions import ACTIONS

HOST_ENV = {"KANDEV_GATEWAY__REQUESTS_PER_S": "100000", "KANDEV_GATEWAY__REQUEST_BURST": "100000"}
MESSAGES = int(os.environ.get("KANDEV_TEST_MESSAGES", "15"))
DEADLINE_S = 60
DEPTH_LIMIT = 64
ODD = [
    "\0",
    "\ud800",
    "\u202e\u2066",
    "\ufeff",
    "é\u0301" * 9,
    "😀" * 200,
    "' OR 1=1 --",
    "../../etc/passwd",
    '"*',
    "{{7*7}}",
]
EXTREME = [10**400, -(10**400), 2**63, 2**64, -(2**63) - 1, 1e308, -0.0, 1.5]
WRONG = [True, [[1.5]], {"a": {"b": [None]}}, {}, 1.5, None, "\ud800"]

Json = dict[str, Any]
Mutation = Callable[[Any, Json, inspect.StructType], str | None]
"""Spoils a payload in place; answers the field that the host must then name, or None where it need not mind."""


# --- what is valid ----------------------------------------------------------------------------------------------------


def values(kind: inspect.Type, ids: list[str], name: str = "") -> st.SearchStrategy[Any]:
    """Values that this type takes; an id is mostly of something that is there."""
    if isinstance(kind, inspect.UnionType):
        return st.one_of([values(each, ids, name) for each in kind.types])
    if isinstance(kind, inspect.StrType):
        return texts(kind, ids, name)
    if isinstance(kind, inspect.IntType):
        return st.integers(kind.ge, kind.le)
    if isinstance(kind, inspect.ListType):
        return st.lists(
            values(kind.item_type, ids, name), min_size=kind.min_length or 0, max_size=min(kind.max_length or 4, 4)
        )
    if isinstance(kind, inspect.DictType):
        return st.dictionaries(
            values(kind.key_type, ids), values(kind.value_type, ids), max_size=4, min_size=kind.min_length or 0
        )
    if isinstance(kind, inspect.StructType):
        return st.fixed_dictionaries({}, optional={each.encode_name: values(each.type, ids) for each in kind.fields})
    if isinstance(kind, inspect.FloatType):
        least, most = kind.gt if kind.gt is not None else kind.ge, kind.lt if kind.lt is not None else kind.le
        return st.floats(
            least, most, exclude_min=kind.gt is not None, exclude_max=kind.lt is not None,
            allow_nan=False, allow_infinity=False,
        )  # fmt: skip
    plain: dict[type, st.SearchStrategy[Any]] = {
        inspect.BoolType: st.booleans(),
        inspect.NoneType: st.none(),
        inspect.AnyType: anything(),
        inspect.DateTimeType: st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat),
    }
    return st.sampled_from(kind.values) if isinstance(kind, inspect.LiteralType) else plain[type(kind)]


def texts(kind: inspect.StrType, ids: list[str], name: str) -> st.SearchStrategy[str]:
    least, most = kind.min_length or 0, min(kind.max_length or 60, 60)
    if name.endswith("_id") or name == "blocked_by":
        return st.sampled_from(ids) | st.text(min_size=1, max_size=40)
    if kind.pattern == r"\S":
        return st.text(min_size=1, max_size=most).filter(lambda text: re.search(r"\S", text) is not None)
    if kind.pattern is not None:
        return st.from_regex(kind.pattern, fullmatch=True).filter(lambda text: len(text) <= (kind.max_length or 60))
    return st.text(min_size=least, max_size=most) | st.sampled_from(["demo", "a AND b*", "x" * most])


def anything() -> st.SearchStrategy[Any]:
    leaves = (
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=20)
    )
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    )


def request_of(action: str) -> inspect.StructType:
    found = inspect.type_info(ACTIONS[action].request)
    assert isinstance(found, inspect.StructType)
    return found


def payloads(action: str, ids: list[str]) -> st.SearchStrategy[Json]:
    by_need: dict[bool, Json] = {True: {}, False: {}}
    for each in request_of(action).fields:
        by_need[each.required][each.encode_name] = values(each.type, ids, each.encode_name)
    return st.fixed_dictionaries(by_need[True], optional=by_need[False])


# --- what is not ------------------------------------------------------------------------------------------------------


def nothing(_draw: Any, _payload: Json, _kind: inspect.StructType) -> str | None:
    return None


def missing(draw: Any, payload: Json, kind: inspect.StructType) -> str | None:
    names = [each.encode_name for each in kind.fields if each.required]
    if not names:
        return None
    name: str = draw(st.sampled_from(names))
    del payload[name]
    return name


def unknown(draw: Any, payload: Json, kind: inspect.StructType) -> str | None:
    known = {each.encode_name for each in kind.fields}
    name: str = draw(
        st.text(min_size=1, max_size=20).filter(lambda text: text not in known and "`" not in text) | st.just("command")
    )
    if name in known:
        return None
    payload[name] = draw(anything())
    return name


def wrong(draw: Any, payload: Json, kind: inspect.StructType) -> str | None:
    return replaced(draw, payload, kind, WRONG)


def extreme(draw: Any, payload: Json, kind: inspect.StructType) -> str | None:
    return replaced(draw, payload, kind, EXTREME)


def oversized(draw: Any, payload: Json, kind: inspect.StructType) -> str | None:
    return replaced(draw, payload, kind, ["x" * (513 << 10), ["x"] * 1000, [{}] * 101, {"k": "x" * (70 << 10)}])


def odd(draw: Any, payload: Json, kind: inspect.StructType) -> str | None:
    """Text that nobody types. Where it is too long, or no text at all, that is said."""
    return replaced(draw, payload, kind, ODD)


def deep(draw: Any, payload: Json, kind: inspect.StructType) -> str | None:
    """Nested, within the limit of depth and beyond; where anything may stand, it may stay."""
    nested: Any = "bottom"
    for _ in range(draw(st.sampled_from([5, 50, DEPTH_LIMIT, 300]))):
        nested = [nested]
    return replaced(draw, payload, kind, [nested])


def replaced(draw: Any, payload: Json, kind: inspect.StructType, by: list[Any]) -> str | None:
    if not kind.fields:
        return None
    each = draw(st.sampled_from(list(kind.fields)))
    payload[each.encode_name] = value = draw(st.sampled_from(by))
    return each.encode_name if clearly_wrong(each.type, value) else None


def clearly_wrong(kind: inspect.Type, value: Any) -> bool:
    """Can this value not be of this type at all? What lies within it is not looked at."""
    if isinstance(kind, inspect.UnionType):
        return all(clearly_wrong(each, value) for each in kind.types)
    if isinstance(kind, inspect.StrType):
        return not isinstance(value, str) or len(value) > (kind.max_length or len(value))
    if isinstance(kind, inspect.IntType):
        whole = isinstance(value, int) and not isinstance(value, bool)
        return not whole or not (kind.ge or 0) <= value <= (kind.le or value)
    if isinstance(kind, inspect.ListType):
        return not isinstance(value, list) or len(value) > (kind.max_length or len(value))
    if isinstance(kind, inspect.DictType | inspect.StructType):
        return not isinstance(value, dict)
    if isinstance(kind, inspect.FloatType):
        return isinstance(value, bool) or not isinstance(value, int | float)
    if isinstance(kind, inspect.BoolType):
        return not isinstance(value, bool)
    if isinstance(kind, inspect.DateTimeType):
        return not isinstance(value, str)
    if isinstance(kind, inspect.LiteralType):
        return not isinstance(value, str) or value not in kind.values
    return isinstance(kind, inspect.NoneType) and value is not None


MUTATIONS: list[Mutation] = [nothing, missing, unknown, wrong, extreme, oversized, odd, deep]


# --- the host ---------------------------------------------------------------------------------------------------------


class Wire:
    """A socket that sends what it is told, and counts the answers to each request."""

    def __init__(self, host: Any) -> None:
        self.runner = asyncio.Runner()
        self.host = host
        self.sent = 0
        self.answers: dict[str | None, list[Json]] = {}

    async def open(self) -> None:
        self.session = aiohttp.ClientSession()
        headers = {"Authorization": f"Bearer {self.host.token}"}
        self.socket = await self.session.ws_connect(f"{self.host.url}/ws", headers=headers, max_msg_size=0)

    async def close(self) -> None:
        await self.socket.close()
        await self.session.close()

    async def ask(self, action: str, payload: Any) -> Json:
        """The answer, once the answer to a later question has come too."""
        self.sent += 1
        id, fence = f"r{self.sent}", f"f{self.sent}"
        for name, asked, value in ((id, action, payload), (fence, "health.check", {})):
            await self.socket.send_str(json.dumps({"id": name, "type": "request", "action": asked, "payload": value}))
        before = len(self.answers.get(None, []))
        while not ((id in self.answers or len(self.answers.get(None, [])) > before) and fence in self.answers):
            frame = await self.socket.receive()
            assert frame.type is aiohttp.WSMsgType.TEXT, (frame, action)
            message = json.loads(frame.data)
            if message["type"] != "notification":
                self.answers.setdefault(message["id"], []).append(message)
        assert self.answers[fence][0]["payload"]["status"] == "ok"
        return self.answers[id][0] if id in self.answers else self.answers[None][-1]

    def wait(self, work: Any) -> Any:
        return self.runner.run(asyncio.wait_for(work, DEADLINE_S))


@pytest.fixture(scope="module")
def wire(one_host: Any) -> Iterator[Wire]:
    wire = Wire(one_host)
    wire.wait(wire.open())
    yield wire
    again = {id: answers for id, answers in wire.answers.items() if id is not None and len(answers) > 1}
    wire.wait(wire.close())
    wire.runner.close()
    assert again == {}, "one request, two answers"
    assert "Traceback" not in one_host.log()


@pytest.fixture(scope="module")
def ids(wire: Wire) -> list[str]:
    """Of boards, columns and tasks; messages may change and delete them."""
    found: list[str] = []
    for _ in range(4):
        made = wire.wait(wire.ask("board.create", {"name": "Work"}))["payload"]
        board_id = made["board"]["id"]
        task = wire.wait(wire.ask("task.create", {"board_id": board_id, "title": "T", "description": ""}))["payload"]
        found += [board_id, task["task"]["id"], *(column["id"] for column in made["columns"])]
    return found


CODES = {kind.code for kind in KandevError.__subclasses__()}


@pytest.mark.parametrize("action", ACTIONS)
def test_any_message_has_one_answer_and_the_host_stays_well(wire: Wire, ids: list[str], action: str) -> None:
    # As found: to make a failing message smaller would take minutes, and says little more.
    @settings(
        max_examples=MESSAGES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def say(data: Any) -> None:
        payload = data.draw(payloads(action, ids))
        mutation: Mutation = data.draw(st.sampled_from(MUTATIONS))
        field = mutation(data.draw, payload, request_of(action))
        note(f"{mutation.__name__} of {field}: {str(payload)[:500]}")
        answer = wire.wait(wire.ask(action, payload))
        body = answer["payload"]
        if answer["type"] == "response":
            assert field is None, (mutation, field)
            return
        assert body["code"] in CODES, body
        assert not re.search(r"Traceback|File \"|/kandev_host/", json.dumps(body))
        if body["code"] == "VALIDATION_ERROR":
            assert body["details"]["field"]
        if field is not None and body["code"] != "BAD_REQUEST":  # too deep, or no Unicode: not even read
            assert body["code"] in {"VALIDATION_ERROR", "PAYLOAD_TOO_LARGE"}, body
            assert re.match(re.escape(field) + r"([.\[]|$)", body["details"]["field"]), body

    say()
