"""Bursts of requests made from the types of all actions, many of them spoilt as raw JSON: each has one answer (P18).

What test_bad_input.py and test_message_fuzz.py ask one at a time is here asked all at once, of things that are there
(a board, its columns, tasks, an agent), so that requests meet each other. `KANDEV_TEST_EXAMPLES` is how many bursts.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from msgspec import inspect

from kandev_host.protocol.actions import ACTIONS

BURSTS = int(os.environ.get("KANDEV_TEST_EXAMPLES", "60"))
HOST_ENV = {
    "KANDEV_GATEWAY__REQUESTS_PER_S": "1000000",
    "KANDEV_GATEWAY__REQUEST_BURST": "1000000",
    "KANDEV_ORCHESTRATOR__AUTO_START": "false",
}
DEADLINE_S = 60
# JSON as it is sent. What the first ones are in is no JSON, or too deep, so the host cannot know its id either.
UNREADABLE = ("NaN", "01", '"' + "\\", "[" * 70 + "]" * 70, '{"a":' * 70 + "1" + "}" * 70)
READABLE = (
    "1e400", "-1e400", "-0", "1.5", "9" * 400, "-9223372036854775809", "18446744073709551616", "true", "null", "{}",
    "[]", r'"\u0000"', r'"a\u0000b"', '"\u2028\u2029"', '"\ufeff\u202e"', r'"\ud83d\ude00"', '"😀é\u0301"', '""',
    "[" * 50 + "]" * 50, '{"a":' * 50 + "1" + "}" * 50, "[" + "1," * 20_000 + "1]", '["x","x"]', '{"a":1,"a":2}',
    '"' + "x" * 300_000 + '"', '[{"type":"text","text":7}]', '[{"type":"image"}]', '{"":0}', '"../../etc/passwd"',
    r'"\ud800"', r'"a\udfffb"',
)  # fmt: skip
Spoilt = tuple[str, int, str]
"""How, at which field, and by which JSON."""


def values(kind: inspect.Type, name: str) -> st.SearchStrategy[Any]:
    """What a type takes. Of a field for an id, the field's name: it is replaced by an id of the burst."""
    if name.endswith("_id") or name == "blocked_by[]":
        return st.just(f"<{name}>") | st.text(min_size=1, max_size=9) | st.just(f"<{name}>")
    match kind:
        case inspect.UnionType():
            return st.one_of([values(each, name) for each in kind.types])
        case inspect.StrType(pattern=None):
            return st.text(min_size=kind.min_length or 0, max_size=min(kind.max_length or 30, 30))
        case inspect.StrType():
            return st.sampled_from(["*", "board:<board_id>", "task:<task_id>", "agent:<agent_id>"])
        case inspect.IntType():
            return st.integers(kind.ge, kind.le) | st.integers(kind.ge, 9)
        case inspect.BoolType():
            return st.booleans()
        case inspect.LiteralType():
            return st.sampled_from(kind.values)
        case inspect.ListType():
            return st.lists(values(kind.item_type, f"{name}[]"), min_size=kind.min_length or 0, max_size=3)
        case inspect.StructType():
            fields = {each.encode_name: values(each.type, each.encode_name) for each in kind.fields}
            return st.fixed_dictionaries({}, optional=fields)
        case inspect.NoneType():
            return st.none()
    return st.sampled_from([{}, {"a": [None, {"b": 2**53}]}, {"type": "text", "text": "<task_id>"}])


def fields_of(action: str) -> list[inspect.Field]:
    info = inspect.type_info(ACTIONS[action].request)
    assert isinstance(info, inspect.StructType)
    return list(info.fields)


def payloads(action: str) -> st.SearchStrategy[dict[str, Any]]:
    fields = {need: [each for each in fields_of(action) if each.required is need] for need in (True, False)}
    needed, others = (
        {each.encode_name: values(each.type, each.encode_name) for each in fields[need]} for need in (True, False)
    )
    return st.fixed_dictionaries(needed, optional=others)


REQUESTS = {action: st.tuples(st.just(action), payloads(action)) for action in ACTIONS}
spoiling: st.SearchStrategy[Spoilt] = st.tuples(
    st.sampled_from(["not", "replaced", "replaced", "missing", "surprise", "whole"]),
    st.integers(0, 20),
    st.sampled_from([*READABLE, *READABLE, *UNREADABLE]),
)
bursts = st.lists(
    st.tuples(st.sampled_from(sorted(ACTIONS)).flatmap(REQUESTS.__getitem__), spoiling), min_size=5, max_size=30
)


class Sender:
    """One socket for bursts, and a bystander that must not notice."""

    def __init__(self, host: Any) -> None:
        self.host = host
        self.runner = asyncio.Runner()
        self.sent = 0

    async def open(self) -> None:
        self.session = aiohttp.ClientSession()
        headers = {"Authorization": f"Bearer {self.host.token}"}
        url = f"{self.host.url}/ws"
        self.socket = await self.session.ws_connect(url, headers=headers, max_msg_size=0)
        self.bystander = await self.session.ws_connect(url, headers=headers, max_msg_size=0)

    async def close(self) -> None:
        await self.socket.close()
        await self.bystander.close()
        await self.session.close()

    def frame(self, id: str, action: str, payload: str) -> str:
        return f'{{"id":"{id}","type":"request","action":"{action}","payload":{payload}}}'

    async def answers(self, socket: Any, frames: dict[str, str]) -> list[dict[str, Any]]:
        """All that comes until as many answers are there as frames were sent, and then that of one more."""
        self.sent += 1
        last = f"last-{self.sent}"
        got: list[dict[str, Any]] = []
        async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:

            async def send() -> None:
                for frame in frames.values():
                    await socket.send_str(frame)

            group.create_task(send())
            asked = False
            while not asked or not got or got[-1]["id"] != last:
                if len(got) >= len(frames) and not asked:
                    asked = True
                    await socket.send_str(self.frame(last, "health.check", "{}"))
                message = await socket.receive()
                assert message.type is aiohttp.WSMsgType.TEXT, (message, socket.close_code)
                read = json.loads(message.data)
                if read["type"] != "notification":
                    got.append(read)
        assert got[-1]["payload"]["status"] == "ok"
        return got[:-1]

    async def made(self, action: str, payload: dict[str, Any]) -> dict[str, Any]:
        frame = self.frame(f"made-{self.sent}", action, json.dumps(payload))
        answer = (await self.answers(self.bystander, {"": frame}))[0]
        assert (answer["type"], answer["action"]) == ("response", action), answer
        return dict(answer["payload"])

    def wait(self, work: Any) -> Any:
        return self.runner.run(work)


@pytest.fixture(scope="module")
def sender(one_host: Any) -> Iterator[Sender]:
    sender = Sender(one_host)
    sender.wait(sender.open())
    yield sender
    sender.wait(sender.close())
    sender.runner.close()
    assert "Traceback" not in one_host.log()
    assert "unforeseen" not in one_host.log()


@pytest.fixture(scope="module")
def agent_id(sender: Sender) -> str:
    """Of an agent that lives until somebody stops it."""

    async def launched() -> str:
        board = await sender.made("board.create", {"name": "Agents"})
        payload = {"board_id": board["board"]["id"], "title": "Work", "description": "say hello", "agent_type": "demo"}
        task = await sender.made("task.create", payload)
        return str((await sender.made("agent.launch", {"task_id": task["task"]["id"]}))["agent"]["id"])

    return sender.wait(launched())  # type: ignore[no-any-return]


async def names_of(sender: Sender, agent_id: str) -> dict[str, str]:
    """A board of this burst's own, with a column and two tasks."""
    made = await sender.made("board.create", {"name": "Work"})
    board_id = made["board"]["id"]
    tasks = [
        (await sender.made("task.create", {"board_id": board_id, "title": "T", "description": ""}))["task"]["id"]
        for _ in range(2)
    ]
    column_id = made["columns"][1]["id"]
    return {
        "board_id": board_id,
        "column_id": column_id,
        "task_id": tasks[0],
        "blocked_by[]": tasks[1],
        "agent_id": agent_id,
    }


def raw(action: str, payload: dict[str, Any], spoilt: Spoilt, names: dict[str, str]) -> tuple[str, bool]:
    """The payload as JSON, and whether the host can read it."""
    how, where, by = spoilt
    parts = {name: json.dumps(value) for name, value in payload.items()}
    every = [each.encode_name for each in fields_of(action)]
    if how == "missing" and parts:
        parts.pop(sorted(parts)[where % len(parts)])
    used = how in {"whole", "surprise"} or (how == "replaced" and bool(every))
    if how == "replaced" and every:
        parts[every[where % len(every)]] = by
    if how == "surprise":
        parts["surprise"] = by
    text = "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in parts.items()) + "}"
    text = by if how == "whole" else text
    for name, id in names.items():
        text = text.replace(f"<{name}>", id)
    return text, not (used and by in UNREADABLE)


def check(action: str, sent: str, answer: dict[str, Any]) -> None:
    assert answer["action"] == action
    if answer["type"] == "response":
        return
    error = answer["payload"]
    assert error["code"] != "INTERNAL_ERROR", (action, sent[:500], error)
    assert "Traceback" not in json.dumps(error)
    if error["code"] in {"VALIDATION_ERROR", "PAYLOAD_TOO_LARGE"}:
        first = re.split(r"[.\[]", error["details"]["field"])[0]
        known = {each.encode_name for each in fields_of(action)} | {"payload"}
        assert first in known or f'"{first}":' in sent, (action, sent[:500], error)


@pytest.mark.load
@pytest.mark.timeout(120 + BURSTS)
def test_each_request_of_any_burst_has_one_answer_and_the_host_stays_well(sender: Sender, agent_id: str) -> None:
    @settings(
        max_examples=BURSTS,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.reuse, Phase.generate],
    )
    @given(burst=bursts)
    def say(burst: list[tuple[tuple[str, dict[str, Any]], Spoilt]]) -> None:
        names = sender.wait(names_of(sender, agent_id))
        asked: dict[str, tuple[str, str]] = {}
        unread: list[str] = []
        for number, ((action, payload), spoilt) in enumerate(burst):
            text, readable = raw(action, payload, spoilt, names)
            if readable:
                asked[f"{sender.sent}-{number}"] = action, text
            else:
                unread.append(sender.frame(f"{sender.sent}-{number}", action, text))
        frames = {id: sender.frame(id, action, text) for id, (action, text) in asked.items()}
        got = sender.wait(
            sender.answers(sender.socket, {**frames, **{f"?{at}": text for at, text in enumerate(unread)}})
        )
        counted = Counter(answer["id"] for answer in got)
        assert counted == Counter({**dict.fromkeys(asked, 1), **({None: len(unread)} if unread else {})})
        for answer in got:
            if answer["id"] is None:
                assert answer["payload"]["code"] == "BAD_REQUEST"
            else:
                check(*asked[answer["id"]], answer)
        sender.wait(sender.answers(sender.bystander, {}))

    say()
