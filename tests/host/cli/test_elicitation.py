"""Elicitations by commands alone; what is filled in is in no file of the host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

CANARY = "correct-horse-battery-staple"


@pytest.fixture
def ask(kandev: Any, home: Path) -> Any:
    return lambda *arguments, **how: kandev(*arguments, KANDEV_HOME=str(home), **how)


@pytest.fixture
def asked(ask: Any, repository: Path) -> dict[str, Any]:
    """A form that waits."""
    boards = ask("board", "list", "--json").json["boards"]
    board = boards[0] if boards else ask("board", "create", "Work", "--json").json["board"]
    task = ask("task", "create", "Ask", "--board", board["id"], "--repo", str(repository), "--json").json["task"]
    ask("agent", "launch", task["id"], "--agent", "demo", "--prompt", "ask: Who are you?")
    for _ in range(100):
        rows: list[dict[str, Any]] = ask("elicitation", "list", "--task", task["id"], "--json").json["elicitations"]
        if rows:
            return rows[0]
    raise AssertionError("nothing was asked")


def test_a_form_is_listed_refused_and_answered(ask: Any, asked: dict[str, Any], home: Path, holding: Any) -> None:
    id = asked["id"][-8:]
    assert "Who are you?" in ask("elicitation", "list").out
    wrong = ask("elicitation", "answer", id, "--content", "-", stdin='{"name": "x"}')
    assert (wrong.status, "The form has no such field" in wrong.err) == (1, True)
    done = ask("elicitation", "answer", id, "--content", "-", "--json", stdin=f'{{"answer": "{CANARY}"}}')
    assert done.json["elicitation"]["answered"] == ["answer"]
    again = ask("elicitation", "answer", id, "--decline")
    assert (again.status, "accepted" in again.err) == (1, True)
    assert holding(home, CANARY.encode()) == []


def test_a_form_is_declined(ask: Any, asked: dict[str, Any]) -> None:
    assert "declined" in ask("elicitation", "answer", asked["id"], "--decline").out


def test_without_an_option_and_a_terminal_it_is_wrong_usage(ask: Any, asked: dict[str, Any]) -> None:
    done = ask("elicitation", "answer", asked["id"])
    assert (done.status, "--content" in done.err) == (2, True)
    both = ask("elicitation", "answer", asked["id"], "--decline", "--content", "{}")
    assert (both.status, "exclude each other" in both.err) == (2, True)
