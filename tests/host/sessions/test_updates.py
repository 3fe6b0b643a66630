"""Each official update becomes exactly one acp notification, itself unchanged inside."""

from __future__ import annotations

import tracemalloc
from types import SimpleNamespace
from typing import Any

import anyio
import msgspec
import pytest
from msgspec import Raw

from kandev_host.protocol.jsonrpc import Message
from kandev_host.sessions.intake import Intake
from kandev_host.sessions.wire import Wire

pytestmark = pytest.mark.anyio

UPDATES: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
    (
        {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": "hé"}, "messageId": "m"},
        "acp.log",
        {"level": "info", "message": "hé", "metadata": {"type": "agent_message_chunk", "message_id": "m"}},
    ),
    (
        {"content": {"type": "text", "text": "hm"}, "sessionUpdate": "agent_thought_chunk"},
        "acp.log",
        {"message": "hm", "metadata": {"type": "agent_thought_chunk"}},
    ),
    (
        {"sessionUpdate": "user_message_chunk", "content": {"type": "image", "data": "AA==", "mimeType": "image/png"}},
        "acp.log",
        {"message": "", "metadata": {"type": "user_message_chunk"}},
    ),
    (
        {"sessionUpdate": "tool_call", "toolCallId": "1", "title": "Read", "kind": "read", "unknown": {"a": [1.50]}},
        "acp.log",
        {"message": "Read", "metadata": {"type": "tool_call", "tool_call_id": "1", "title": "Read", "kind": "read"}},
    ),
    (
        {"sessionUpdate": "tool_call_update", "toolCallId": "2", "status": "failed"},
        "acp.log",
        {"level": "warning", "metadata": {"type": "tool_call_update", "tool_call_id": "2", "status": "failed"}},
    ),
    (
        {
            "sessionUpdate": "plan",
            "entries": [
                {"content": "a", "priority": "high", "status": "completed"},
                {"content": "b", "priority": "low", "status": "in_progress"},
            ],
        },
        "acp.progress",
        {"progress": 50, "message": "b", "current_file": None, "files_processed": None, "total_files": None},
    ),
    ({"sessionUpdate": "plan", "entries": []}, "acp.progress", {"progress": 0}),
    (
        {"sessionUpdate": "available_commands_update", "availableCommands": [{"name": "x", "description": "y"}]},
        "acp.log",
        {"message": "", "metadata": {"type": "available_commands_update"}},
    ),
    ({"sessionUpdate": "current_mode_update", "currentModeId": "code"}, "acp.status", {"status": "RUNNING"}),
    ({"sessionUpdate": "config_option_update", "configOptions": []}, "acp.status", {"activity": "prompting"}),
    ({"sessionUpdate": "session_info_update", "title": "T"}, "acp.status", {}),
    ({"sessionUpdate": "usage_update", "used": 5, "size": 9}, "acp.status", {}),
    ({"sessionUpdate": "from_the_future", "x": 1}, "acp.log", {"metadata": {"type": "from_the_future"}}),
    ({"sessionUpdate": "plan", "entries": "wrong"}, "acp.log", {"metadata": {"type": "plan"}}),
    ({"sessionUpdate": "agent_message_chunk", "content": None}, "acp.log", {"message": ""}),
    ({"noTag": True}, "acp.log", {"metadata": {"type": ""}}),
]


@pytest.mark.parametrize(("update", "action", "flat"), UPDATES)
async def test_an_update_becomes_one_notification(world: Any, update: Any, action: str, flat: Any) -> None:
    agent_id = await world.start(prompt=[{"update": update}, {"text": "end"}])
    await world.until("acp.result")
    made = [(e.action, p) for e, p in _with_update(world) if p["update"] == update]
    assert [name for name, _ in made] == [action]
    payload = made[0][1]
    assert {key: payload[key] for key in flat} == flat
    assert (payload["agent_id"], payload["task_id"]) == (agent_id, world.task.id)
    assert (payload["session_id"], payload["turn_id"]) == ("scripted-session", (await world.turn()).id)


def _with_update(world: Any) -> list[tuple[Any, dict[str, Any]]]:
    found = [(event, msgspec.json.decode(event.payload)) for event in world.published]
    return [(event, payload) for event, payload in found if "update" in payload]


async def test_a_long_text_is_whole_in_the_update_and_cut_beside_it(world: Any) -> None:
    await world.start(prompt=[{"text": "y" * 100_000}])
    log = await world.until("acp.log")
    assert len(log["update"]["content"]["text"]) == 100_000
    assert len(log["message"]) == 32 << 10
    assert log["metadata"]["truncated"] is True


async def test_tool_updates_may_come_before_their_call_and_keep_what_was_known(world: Any) -> None:
    steps = [
        {"tool_update": {"toolCallId": "1", "status": "in_progress"}},
        {"tool": {"toolCallId": "1", "title": "Build"}},
        {"tool_update": {"toolCallId": "1", "status": "completed"}},
    ]
    await world.start(prompt=steps)
    await world.until("acp.result")
    seen = [(p["metadata"].get("title"), p["metadata"].get("status")) for p in world.payloads("acp.log")]
    assert seen == [(None, "in_progress"), ("Build", "in_progress"), ("Build", "completed")]


async def test_updates_before_the_session_is_known_are_kept_in_order(world: Any) -> None:
    script = {"new_steps": [{"text": "early {n}", "repeat": 3}], "after_new": [{"text": "behind"}]}
    await world.start(script, prompt=[{"text": "turn"}])
    await world.until("acp.result")
    assert world.texts() == ["early 0", "early 1", "early 2", "behind", "turn"]


@pytest.mark.parametrize("where", ["sessionId", "_meta", "unread"])
async def test_what_is_kept_before_the_session_is_known_is_bounded_whatever_it_holds(where: str) -> None:
    noted: list[str] = []
    logs = SimpleNamespace(note=lambda _level, message: noted.append(message))
    state = SimpleNamespace(row=None, replaying=False, voice=None)
    intake = Intake(SimpleNamespace(logs=logs, wire=Wire("a")), state, fault=anyio.sleep)  # type: ignore[arg-type]
    params = {"sessionId": "s", "update": 1, where: "x" * (1 << 20)}
    tracemalloc.start()
    try:
        for _ in range(30):
            message = Message(method="session/update", params=Raw(msgspec.json.encode(params)))
            await intake.on_notifications([message])
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 12 << 20


async def test_another_sessions_updates_are_told_and_change_nothing_here(world: Any) -> None:
    other = {"sessionUpdate": "current_mode_update", "currentModeId": "yolo"}
    await world.start(prompt=[{"update": other, "session": "sub"}, {"text": "x"}])
    await world.until("acp.result")
    assert [p["session_id"] for p in world.payloads("acp.status") if "update" in p] == ["sub"]
    assert (await world.session()).modes is None


async def test_another_sessions_calls_are_not_ours(world: Any) -> None:
    """Else it could say of a call that is asked for, or left open, what our session never said."""
    foreign = {"sessionUpdate": "tool_call_update", "toolCallId": "1", "title": "Nothing", "status": "completed"}
    steps = [{"tool": {"toolCallId": "1", "title": "Delete"}}, {"update": foreign, "session": "sub"}, {"text": "x"}]
    await world.start(prompt=steps)
    await world.until("acp.result")
    closed = [log for log in world.payloads("acp.log") if log["metadata"].get("by_host")]
    assert [log["metadata"]["title"] for log in closed] == ["Delete"]


async def test_commands_modes_and_options_reach_the_sessions_row(world: Any) -> None:
    option = {"id": "m", "name": "Model", "category": "model", "type": "select", "currentValue": "big", "options": []}
    commands = [{"name": "init", "description": "d"}]
    steps = [
        {"update": {"sessionUpdate": "available_commands_update", "availableCommands": commands}},
        {"update": {"sessionUpdate": "config_option_update", "configOptions": [option]}},
        {"update": {"sessionUpdate": "current_mode_update", "currentModeId": "code"}},
        {"text": "x"},
    ]
    await world.start(prompt=steps)
    await world.until("acp.result")
    row = await world.session()
    assert (row.commands, row.config_options, row.modes) == (commands, [option], {"currentModeId": "code"})


async def test_everything_is_stored_as_it_was_published(world: Any) -> None:
    await world.start(prompt=[{"text": "word {n}", "repeat": 20}, {"tool": {"toolCallId": "1", "title": "t"}}])
    await world.until("acp.result")
    stored = await world.store.events(0, topics=[f"task:{world.task.id}"], limit=500)
    seen = [event for event in world.published if event.task_id == world.task.id and event.seq is not None]
    assert [(e.seq, e.id, bytes(e.payload)) for e in stored][: len(seen)] == [
        (e.seq, e.id, bytes(e.payload)) for e in seen
    ]
