"""The schema: what comes in as it is checked, what goes out as it is promised."""

from __future__ import annotations

import inspect
from datetime import datetime
from typing import Any

import msgspec
import pytest

from kandev_host import errors
from kandev_host.protocol.notifications import NOTIFICATIONS
from kandev_host.protocol.reference import CLOSE_CODES, ERRORS, LIMITS
from kandev_host.protocol.schema import OFFERS, Offer, document, encoded
from kandev_host.settings import GatewaySettings

DOCUMENT = document(OFFERS)
SCHEMAS = DOCUMENT["components"]["schemas"]
MESSAGES = DOCUMENT["components"]["messages"]


class Inner(msgspec.Struct, tag="inner"):
    value: int


class Other(msgspec.Struct, tag="other"):
    at: datetime


class Strange:
    """A type that no schema can describe."""


class StrangeDefault(msgspec.Struct):
    strange: Strange = Strange()


class PluginRequest(msgspec.Struct):
    choice: Inner | Other
    strange: Strange | None = None


class TaskCreate(msgspec.Struct):
    """A plugin's type with the name of one of the host's."""

    text: str


def with_plugin(request: type) -> dict[str, Any]:
    return document({**OFFERS, "deploy.start": Offer(request, None, "deploy:write", "Deploy it")})


def references(value: Any) -> set[str]:
    if isinstance(value, list):
        return {found for part in value for found in references(part)}
    if not isinstance(value, dict):
        return set()
    own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
    return own.union(*(references(part) for part in value.values()))


def resolves(root: dict[str, Any], reference: str) -> bool:
    place: Any = root
    for key in reference.removeprefix("#/").split("/"):
        if not isinstance(place, dict) or key not in place:
            return False
        place = place[key]
    return True


@pytest.mark.parametrize("made", [DOCUMENT, with_plugin(PluginRequest), with_plugin(TaskCreate)])
def test_every_reference_leads_somewhere(made: dict[str, Any]) -> None:
    assert {reference for reference in references(made) if not resolves(made, reference)} == set()


def test_the_same_types_give_the_same_bytes() -> None:
    assert encoded(OFFERS) == encoded(dict(OFFERS))


def test_a_plugins_action_is_described() -> None:
    made = with_plugin(PluginRequest)
    assert made["operations"]["deploy.start"]["x-scope"] == "deploy:write"
    assert "choice" in made["components"]["schemas"]["PluginRequest"]["properties"]
    assert {"name": "deploy"} in made["info"]["tags"]


@pytest.mark.parametrize("request_type", [Strange, StrangeDefault])
def test_a_plugins_type_that_cannot_be_described_harms_nothing(request_type: type) -> None:
    made = with_plugin(request_type)
    payload = made["components"]["messages"]["deploy.start.request"]["payload"]["properties"]["payload"]
    assert "description" in payload
    assert made["components"]["schemas"] == SCHEMAS


def test_no_discriminator_is_left_for_it_means_another_thing_here() -> None:
    choice = with_plugin(PluginRequest)["components"]["schemas"]["PluginRequest"]["properties"]["choice"]
    assert choice.keys() == {"anyOf"}


@pytest.mark.parametrize("name", OFFERS)
def test_a_request_refuses_unknown_fields(name: str) -> None:
    assert SCHEMAS[OFFERS[name].request.__name__]["additionalProperties"] is False


OUTGOING = {offer.response for offer in OFFERS.values() if offer.response} | {e.payload for e in NOTIFICATIONS.values()}


@pytest.mark.parametrize("struct", sorted(OUTGOING, key=lambda each: each.__name__), ids=lambda each: each.__name__)
def test_of_what_is_sent_every_field_is_promised_and_more_may_come(struct: type[msgspec.Struct]) -> None:
    schema = SCHEMAS[struct.__name__]
    optional = {field.encode_name for field in msgspec.structs.fields(struct) if field.default is msgspec.UNSET}
    assert set(schema["required"]) == set(schema["properties"]) - optional
    assert "additionalProperties" not in schema


def test_rows_are_promised_too_and_their_times_are_times() -> None:
    task = SCHEMAS["Task"]
    assert set(task["required"]) == set(task["properties"])
    assert task["properties"]["created_at"]["format"] == "date-time"
    assert {"type": "null"} in task["properties"]["completed_at"]["anyOf"]


def test_what_goes_both_ways_has_a_schema_for_each() -> None:
    assert SCHEMAS["LimitsInput"]["additionalProperties"] is False
    assert "additionalProperties" not in SCHEMAS["Limits"]


@pytest.mark.parametrize("name", OFFERS)
def test_a_response_says_whether_it_carries_the_seq_of_its_reading(name: str) -> None:
    assert ("seq" in MESSAGES[f"{name}.response"]["payload"]["properties"]) is OFFERS[name].reads


@pytest.mark.parametrize("name", NOTIFICATIONS)
def test_only_kept_notifications_carry_a_seq(name: str) -> None:
    assert ("seq" in MESSAGES[name]["payload"]["properties"]) is not NOTIFICATIONS[name].transient


def test_every_error_code_is_in_the_table() -> None:
    codes = {value.code for _, value in inspect.getmembers(errors, inspect.isclass) if hasattr(value, "code")}
    assert codes == ERRORS.keys()


def test_the_limits_are_settings() -> None:
    assert set(LIMITS) <= {field.name for field in msgspec.structs.fields(GatewaySettings)}


def test_limits_and_close_codes_stand_in_the_document() -> None:
    made = document(OFFERS, limits={"message_limit_bytes": 7})
    assert made["x-limits"] == {"message_limit_bytes": 7}
    assert made["x-close-codes"].keys() == {str(code) for code in CLOSE_CODES}
