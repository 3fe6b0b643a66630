"""The prompts that wait for an agent, on the command line."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest


@pytest.fixture
def agent(ask: Any) -> str:
    """One that works on its first prompt."""
    _, board = ask("board", "create", "Queue", "--json")
    board_id = json.loads(board)["board"]["id"]
    _, task = ask("task", "create", "A task", "--board", board_id, "--json")
    task_id = json.loads(task)["task"]["id"]
    status, launched = ask("agent", "launch", task_id, "--agent", "demo", "--prompt", "sleep 600", "--json")
    assert status == 0, launched
    identity = str(json.loads(launched)["agent"]["id"])
    deadline = time.monotonic() + 60
    while json.loads(ask("agent", "queue", identity, "--json")[1])["prompts"]:
        assert time.monotonic() < deadline, "its first prompt does not begin"
    return identity


def test_what_waits_is_shown_moved_changed_and_taken_out(ask: Any, agent: str) -> None:
    ids = [json.loads(ask("agent", "prompt", agent, f"say: {word}", "--json")[1])["turn_id"] for word in ("one", "two")]
    _, shown = ask("agent", "queue", agent)
    assert shown.index(ids[0][-8:]) < shown.index("say: one") < shown.index(ids[1][-8:])
    _, shown = ask("agent", "queue-edit", ids[1][-8:], "say: 2", "--position", "0")
    assert shown.index("say: 2") < shown.index("say: one")
    assert ask("agent", "queue-remove", ids[1])[0] == 0
    status, shown = ask("agent", "queue-remove", ids[1])
    assert (status, "This prompt waits no more" in shown) == (1, True)
    prompts = json.loads(ask("agent", "queue", agent, "--json")[1])["prompts"]
    assert [prompt["prompt_id"] for prompt in prompts] == [ids[0]]
    ask("agent", "stop", agent)
    assert "No prompt waits." in ask("agent", "queue", agent)[1]


def test_a_prompt_is_named_by_its_id_and_something_is_changed(ask: Any) -> None:
    status, shown = ask("agent", "queue-remove", "7b1d20f3")
    assert (status, "agent queue AGENT" in shown) == (2, True)
    status, shown = ask("agent", "queue-remove", "the first")
    assert (status, "is no prompt id" in shown) == (2, True)
    status, shown = ask("agent", "queue-edit", "7b1d20f3")
    assert (status, "--position" in shown) == (2, True)
