"""Every example of docs/protocol.md, sent to a real host in order: it answers as the documentation and schema say."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from kandev_host.protocol.notifications import NOTIFICATIONS
from kandev_host.protocol.schema import OFFERS

STORY: list[dict[str, Any]] = json.loads((Path(__file__).parents[2] / "docs/examples/story.json").read_text())
NAMES = [step.get("request") or step["notification"] for step in STORY]
STEPS = pytest.mark.parametrize("number", range(len(STORY)), ids=[f"{n:02}-{name}" for n, name in enumerate(NAMES)])


def documented(step: dict[str, Any]) -> Any:
    return next(step[key] for key in ("response", "error", "payload") if key in step)


def kind(step: dict[str, Any]) -> str:
    """The name of the message in the schema."""
    if "error" in step:
        return "error"
    return f"{step['request']}.response" if "request" in step else str(step["notification"])


@pytest.fixture(scope="session")
def closed(telling: Any) -> dict[str, Any]:
    """The schema that the host serves, refusing every field that it does not name."""
    schema = copy.deepcopy(telling.schema)
    parts = [*schema["components"]["schemas"].values()]
    parts += [message["payload"] for message in schema["components"]["messages"].values()]
    for part in parts:
        if "properties" in part:
            part["additionalProperties"] = False
    return schema  # type: ignore[no-any-return]


def faults(schema: dict[str, Any], reference: str, value: Any) -> list[str]:
    validator = jsonschema.Draft7Validator({"allOf": [{"$ref": reference}], "components": schema["components"]})
    return [f"{error.json_path}: {error.message}"[:400] for error in validator.iter_errors(value)]


def test_every_action_has_an_example() -> None:
    shown = {step.get("request") for step in STORY if "response" in step}
    # The host of the story has no users (docs/users.md shows it, tests/e2e/test_users.py asks it).
    assert OFFERS.keys() - shown == {"auth.refresh"}


def test_every_notification_has_an_example() -> None:
    assert NOTIFICATIONS.keys() - {step.get("notification") for step in STORY} == set()


def test_no_example_names_a_folder_of_whoever_recorded_it() -> None:
    texts = json.dumps(STORY)
    assert [folder for folder in ("/home/", "/root/", "/tmp/") if folder in texts] == []


@STEPS
def test_the_host_answers_as_documented(telling: Any, number: int) -> None:
    found = telling.message(number)["payload"]
    lines = telling.play.differences(documented(STORY[number]), found, telling.known)
    assert lines == [], "run: python docs/play.py; python docs/generate.py"


@STEPS
def test_the_hosts_message_meets_the_schema_and_has_no_other_field(
    telling: Any, closed: dict[str, Any], number: int
) -> None:
    reference = f"#/components/messages/{kind(STORY[number])}/payload"
    assert faults(closed, reference, telling.message(number)) == []


@STEPS
def test_the_documented_answer_meets_the_schema_and_has_no_other_field(
    telling: Any, closed: dict[str, Any], number: int
) -> None:
    reference = f"#/components/messages/{kind(STORY[number])}/payload/properties/payload"
    assert faults(closed, reference, documented(STORY[number])) == []


@pytest.mark.parametrize(
    "step", [pytest.param(step, id=step["request"]) for step in STORY if "request" in step and "error" not in step]
)
def test_the_documented_request_meets_the_schema(telling: Any, step: dict[str, Any]) -> None:
    request = {"id": "1", "type": "request", "action": step["request"], "payload": step["payload"]}
    assert faults(telling.schema, f"#/components/messages/{step['request']}.request/payload", request) == []


def test_every_event_of_the_host_is_described_and_meets_its_schema(telling: Any, closed: dict[str, Any]) -> None:
    assert telling.heard
    wrong = {
        (message["action"], fault)
        for message in telling.heard
        for fault in (
            faults(closed, f"#/components/messages/{message['action']}/payload", message)
            if message["action"] in NOTIFICATIONS
            else ["is not in the table"]
        )
    }
    assert wrong == set()


@pytest.mark.parametrize("topic", ["task", "board", "agent"])
def test_events_are_kept_under_the_topics_that_the_table_names(telling: Any, topic: str) -> None:
    assert telling.promised[topic].keys() - telling.replayed[topic] == set()


def test_only_transient_events_come_without_a_number(telling: Any) -> None:
    bare = {message["action"] for message in telling.heard if "seq" not in message}
    assert bare == {each.name for each in NOTIFICATIONS.values() if each.transient}
