"""What compares the documented answers with the host's: it sees what differs."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PLAY = Path(__file__).parents[2] / "docs/play.py"


@pytest.fixture(scope="module")
def play() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_play", PLAY)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ({"task": {"id": "$task"}}, {"task": {}}),
        ({"task": {"id": "$task"}}, {"task": {"id": "another"}}),
        ({"version": 1}, {"version": "1"}),
        ({"version": 1}, {"version": True}),
        ({"tasks": [{"id": "x"}]}, {"tasks": []}),
        ({"tasks": [{"id": "x"}]}, {"tasks": [{"id": 3}]}),
        ({"task": {"id": "x"}}, {"task": ["x"]}),
    ],
)
def test_another_shape_is_seen(play: ModuleType, told: Any, found: Any) -> None:
    assert play.differences(told, found, {"task": "t1"}) != []


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ({"task": {"id": "$task"}}, {"task": {"id": "t1"}}),
        ({"seq": 3, "age_s": 1}, {"seq": 900, "age_s": 0.25}),
        ({"tasks": [{"title": "A"}]}, {"tasks": [{"title": "B"}, {"title": "C"}]}),
        ({"exit_code": None}, {"exit_code": 3}),
    ],
)
def test_other_values_of_the_same_shape_are_the_same(play: ModuleType, told: Any, found: Any) -> None:
    assert play.differences(told, found, {"task": "t1"}) == []


def test_ids_times_and_long_texts_are_written_down_without_noise(play: ModuleType) -> None:
    player = play.Player(None, {"task": "01a1fd01-fd81-76a4-89a6-2e27a617f682"})
    found = {
        "id": "01a1fd01-fd81-76a4-89a6-2e27a617f682",
        "message": "Task 01a1fd01-fd81-76a4-89a6-2e27a617f682",
        "at": "2031-05-06T07:08:09.123Z",
        "diff": "x" * 5000,
        "items": [1, 2, 3],
    }
    shown = player.shown(found, lists=1)
    assert shown["id"] == "$task"
    assert shown["message"] == "Task $task"
    assert shown["at"] == play.SHOWN_TIME
    assert len(shown["diff"]) == play.TEXT_CHARS
    assert shown["items"] == [1]
