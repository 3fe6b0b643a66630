"""Every action's request type: bounds, unknown fields, and "absent" told from null."""

from __future__ import annotations

import msgspec
import pytest

from kandev_host.protocol.actions import ACTIONS, Shape
from kandev_host.protocol.actions.tasks import EventsSubscribe, TaskCreate, TaskUpdate

ALL = pytest.mark.parametrize("shape", ACTIONS.values(), ids=ACTIONS.keys())


@ALL
def test_an_unknown_field_is_refused(shape: Shape) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"no_such_field":1}', type=shape.request)


@ALL
def test_every_string_number_and_list_of_a_request_is_bounded(shape: Shape) -> None:
    _, parts = msgspec.json.schema_components([shape.request])
    loose = [path for name, part in parts.items() if name != "Limits" for path in unbounded(part, name)]
    assert loose == []


def unbounded(part: object, path: str) -> list[str]:
    """Paths of the schema's values that have no bound; free JSON (metadata, content blocks) has none.

    A time is bounded by its form.
    """
    if not isinstance(part, dict):
        return []
    if part.get("type") == "string" and not part.keys() & {"maxLength", "enum", "format"}:
        return [path]
    if part.get("type") == "integer" and "maximum" not in part and "version" not in path:
        return [path]
    if part.get("type") == "array" and "maxItems" not in part:
        return [path]
    inner = [*part.get("properties", {}).items(), *enumerate(part.get("anyOf", [])), ("items", part.get("items"))]
    return [found for key, value in inner for found in unbounded(value, f"{path}.{key}")]


@ALL
def test_the_response_has_a_schema(shape: Shape) -> None:
    assert msgspec.json.schema(shape.response)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"title": ""}, "$.title"),
        ({"title": "x" * 501}, "$.title"),
        ({"title": 3}, "$.title"),
        ({"priority": 11}, "$.priority"),
        ({"priority": -1}, "$.priority"),
        ({"priority": 1.5}, "$.priority"),
        ({"blocked_by": ["a", ""]}, "$.blocked_by[1]"),
        ({"metadata": []}, "$.metadata"),
    ],
)
def test_a_wrong_field_is_named_by_path(change: dict[str, object], message: str) -> None:
    payload = {"board_id": "b", "title": "t", "description": "", **change}
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(msgspec.json.encode(payload), type=TaskCreate)
    assert f"`{message}`" in str(caught.value)


def test_null_and_absent_are_not_the_same() -> None:
    request = msgspec.json.decode(b'{"task_id":"t","branch":null}', type=TaskUpdate)
    assert (request.branch, request.repository_url) == (None, msgspec.UNSET)


@pytest.mark.parametrize("topic", ["task:1", "board:1", "agent:1", "shell:1", "*"])
def test_the_topics_of_the_protocol_are_accepted(topic: str) -> None:
    assert msgspec.json.decode(msgspec.json.encode({"topics": [topic]}), type=EventsSubscribe).topics == [topic]


@pytest.mark.parametrize("topic", ["", "task:", "users:1", "task:a b", "**"])
def test_other_topics_are_refused(topic: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode({"topics": [topic]}), type=EventsSubscribe)
