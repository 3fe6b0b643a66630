"""Commands that agents run, as rows that can be searched for: once each, in the forms that agents use."""

from __future__ import annotations

from typing import Any

import pytest

from kandev_host.models import Command

pytestmark = pytest.mark.anyio

CALL = {"toolCallId": "1", "title": "Run it", "kind": "execute"}


async def commands(world: Any, *steps: dict[str, Any]) -> list[str]:
    await world.start(prompt=[*steps, {"text": "done"}])
    await world.until("acp.result")
    return [row.command for row in await world.rows(Command)]


@pytest.mark.parametrize(
    ("raw_input", "command"),
    [
        ({"command": "make test", "cwd": "/workspace"}, "make test"),
        ({"cmd": "make test"}, "make test"),
        ({"command": ["/bin/bash", "-lc", "make test | tee log"]}, "make test | tee log"),
        ({"command": ["git", "commit", "-m", "a b"]}, "git commit -m 'a b'"),
        ({"command": "x" * 20_000}, "x" * 8192),
        ({"command": "nul\0led"}, "nulled"),
    ],
)
async def test_the_command_of_a_call_is_a_row(world: Any, raw_input: Any, command: str) -> None:
    assert await commands(world, {"tool": {**CALL, "rawInput": raw_input}}) == [command]


async def test_the_row_names_task_agent_and_turn(world: Any) -> None:
    await commands(world, {"tool": {**CALL, "rawInput": {"command": "ls"}}})
    (row,) = await world.rows(Command)
    turn = await world.turn()
    assert (row.task_id, row.agent_id, row.turn_id) == (world.task.id, turn.agent_id, turn.id)


async def test_each_call_is_one_row_however_often_it_is_updated(world: Any) -> None:
    again = {"tool_update": {"toolCallId": "1", "rawInput": {"command": "ls -l"}, "status": "completed"}}
    assert await commands(world, {"tool": {**CALL, "rawInput": {"command": "ls"}}}, again, again) == ["ls"]


async def test_the_input_may_come_with_an_update(world: Any) -> None:
    """opencode and claude: the call first, empty."""
    steps = [
        {"tool": {**CALL, "rawInput": {}, "status": "pending"}},
        {"tool_update": {"toolCallId": "1", "rawInput": {"command": "ls"}, "status": "in_progress"}},
    ]
    assert await commands(world, *steps) == ["ls"]


async def test_the_kind_may_come_after_the_input(world: Any) -> None:
    steps = [
        {"tool_update": {"toolCallId": "1", "rawInput": {"command": "ls"}}},
        {"tool_update": {"toolCallId": "1", "kind": "execute"}},
    ]
    assert await commands(world, *steps) == ["ls"]


async def test_without_any_input_the_title_is_the_command_once_the_call_ended(world: Any) -> None:
    """gemini."""
    title = "ls -l [current working directory /workspace] (Lists files)"
    steps = [
        {"tool": {**CALL, "title": title, "status": "in_progress"}},
        {"tool_update": {"toolCallId": "1", "status": "completed"}},
    ]
    assert await commands(world, *steps) == ["ls -l"]


@pytest.mark.parametrize("raw_input", [None, 7, "ls", [], {"command": 7}, {"command": [7]}, {"command": ""}])
async def test_an_input_that_holds_no_command_makes_no_row_and_no_harm(world: Any, raw_input: Any) -> None:
    assert await commands(world, {"tool": {**CALL, "rawInput": raw_input, "status": "in_progress"}}) == []


async def test_what_other_tools_get_is_no_command(world: Any) -> None:
    assert await commands(world, {"tool": {**CALL, "kind": "edit", "rawInput": {"command": "create"}}}) == []


async def test_a_command_is_found_by_search_as_soon_as_its_event_is_seen(world: Any) -> None:
    """Row and event are one commit."""
    seen: list[int] = []
    await world.start(prompt=[{"tool": {**CALL, "rawInput": {"command": "ls"}}}, {"sleep_s": 600}])
    await world.until("acp.log", lambda payload: payload["metadata"]["type"] == "tool_call")
    seen.append(await world.store.count(Command))
    assert seen == [1]
