"""What a wrong request is told: the field, and what it must be, in words."""

from __future__ import annotations

import json
import re

import msgspec
import pytest

from kandev_host.protocol.actions import ACTIONS
from kandev_host.protocol.complaints import complaint, words

TASK = {"board_id": "b", "title": "t", "description": ""}


def said(kind: type, value: object) -> tuple[str, str]:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(json.dumps(value), type=kind)
    error = complaint(kind, str(caught.value))
    return error.details["field"], error.message


@pytest.mark.parametrize(
    ("action", "payload", "field", "message"),
    [
        ("task.create", TASK | {"title": ""}, "title", "title must be text of 1 to 500 characters, and not blank"),
        ("task.create", TASK | {"title": " "}, "title", "title must be text of 1 to 500 characters, and not blank"),
        ("task.create", TASK | {"title": 7}, "title", "title must be text of 1 to 500 characters, and not blank"),
        ("task.create", TASK | {"priority": 11}, "priority", "priority must be a whole number from 0 to 10"),
        (
            "task.create", TASK | {"blocked_by": ["a", 1]}, "blocked_by[1]",
            "blocked_by[1] must be text of 1 to 128 characters",
        ),
        ("task.create", TASK | {"metadata": []}, "metadata", "metadata must be an object"),
        (
            "task.create", TASK | {"metadata": {"": 1}}, "metadata",
            "Each key of metadata must be text of 1 to 255 characters",
        ),
        ("task.create", TASK | {"command": 1}, "command", "command is not a field of this action"),
        ("task.create", {}, "board_id", "board_id is missing"),
        ("task.create", [], "payload", "payload must be an object"),
        ("task.update", {"task_id": "t", "priority": None}, "priority", "priority must be a whole number from 0 to 10"),
        (
            "task.update", {"task_id": "t", "expected_version": 0}, "expected_version",
            "expected_version must be a whole number, at least 1, or null",
        ),
        (
            "task.state", {"task_id": "t", "state": "DONE"}, "state",
            "state must be one of BLOCKED, CANCELLED, COMPLETED, FAILED, IN_PROGRESS, TODO",
        ),
        (
            "agent.launch", {"task_id": "t", "resources": {"cpu": 1}}, "resources.cpu",
            "resources.cpu is not a field of resources",
        ),
        ("agent.launch", {"task_id": "t", "prompt": ["x"]}, "prompt[0]", "prompt[0] must be an object"),
        (
            "task.state", {"task_id": "t", "state": " - at `$.task_id`"}, "state",
            "state must be one of BLOCKED, CANCELLED, COMPLETED, FAILED, IN_PROGRESS, TODO",
        ),
    ],
)  # fmt: skip
def test_the_message_says_what_is_wanted(action: str, payload: object, field: str, message: str) -> None:
    assert said(ACTIONS[action].request, payload) == (field, message)


@pytest.mark.parametrize("action", ACTIONS)
def test_every_field_has_words_without_types_of_python_or_patterns(action: str) -> None:
    """What may be anything has none: nothing is wrong with it."""
    info = msgspec.inspect.type_info(ACTIONS[action].request)
    assert isinstance(info, msgspec.inspect.StructType)
    for field in info.fields:
        told = words(field.type)
        assert told is not None, field.encode_name
        assert not re.search(r"\bstr\b|\bint\b|\bbool\b|another form|[\\^$`]", told), told
