"""Envelope and error codes, over a real socket."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

import pytest

pytestmark = pytest.mark.anyio


async def test_a_response_carries_id_action_payload_and_a_utc_time(wire: Any) -> None:
    reply = await wire.ask("echo.text", {"text": "hi"}, id="my-id")
    assert (reply["id"], reply["type"], reply["action"]) == ("my-id", "response", "echo.text")
    assert reply["payload"] == {"text": "hi"}
    assert reply["timestamp"].endswith("Z")
    assert datetime.fromisoformat(reply["timestamp"]).tzinfo is not None


async def test_a_read_says_at_which_seq_it_was_read(house: Any, wire: Any) -> None:
    await house.record(3)
    assert (await wire.ask("health.check"))["seq"] == house.journal.published_seq == 4


async def test_a_write_has_no_seq(house: Any, wire: Any) -> None:
    house.gate.set()
    assert "seq" not in await wire.ask("echo.write", {"text": "x"})


@pytest.mark.parametrize(
    ("frame", "id"),
    [
        ("", None),
        ("not json", None),
        ("[]", None),
        ("null", None),
        ("{}", None),
        ('{"id": "a"}', "a"),
        ('{"id": "", "type": "request", "action": "health.check"}', None),
        ('{"id": 7, "type": "request", "action": "health.check"}', None),
        ('{"id": "%s", "type": "request", "action": "health.check"}' % ("i" * 129), None),
        ('{"id": "a", "type": "response", "action": "health.check"}', "a"),
        ('{"id": "a", "type": "request", "action": 5}', "a"),
        ('{"id": "a", "type": "request", "action": "health.check"} more', None),
        ('{"id": "a", "type": "request", "action": "health.check", "payload": {"x": nul}}', None),
        ('{"id": "\\ud800", "type": "request", "action": "health.check"}', None),
        ('{"id": "a", "type": "request", "action": "health.check", "payload": {"x": "\\ud800"}}', "a"),
        (
            '{"payload": ["\\uDFFF\\ud83d\\ude00"], "id": "\\ud83d\\ude00", "action": "x", "type": "request"}',
            "\U0001f600",
        ),
        ("[" * 100_000, None),
        ('{"id": "a", "type": "request", "action": "x", "payload": ' + "[" * 64 + "]" * 64 + "}", None),
    ],
)
async def test_what_is_no_request_is_a_bad_request(wire: Any, frame: str, id: str | None) -> None:
    await wire.send(frame)
    reply = await wire.message()
    assert (reply["type"], reply["payload"]["code"], reply["id"]) == ("error", "BAD_REQUEST", id)
    assert (await wire.ask("health.check"))["type"] == "response"


async def test_deep_nesting_within_strings_is_no_nesting(wire: Any) -> None:
    assert (await wire.ask("echo.text", {"text": '[{"' * 1000}))["payload"] == {"text": '[{"' * 1000}


async def test_unknown_envelope_fields_are_ignored(wire: Any) -> None:
    await wire.send('{"id": "a", "type": "request", "action": "health.check", "timestamp": 5, "trace": {"x": [1]}}')
    assert (await wire.message())["type"] == "response"


async def test_an_unknown_action_names_the_nearest(wire: Any) -> None:
    payload = (await wire.ask("health.chek"))["payload"]
    assert payload["code"] == "UNKNOWN_ACTION"
    assert payload["details"] == {"did_you_mean": "health.check"}


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        ({}, "text"),
        ({"text": ""}, "text"),
        ({"text": 1}, "text"),
        ({"text": None}, "text"),
        ({"text": "a", "x": 1}, "x"),
        ({"text": "a", "numbers": [1, 11]}, "numbers[1]"),
        ({"text": "a", "numbers": "1"}, "numbers"),
        ({"text": "a", "inner": {"k": [1]}}, "inner[...][0]"),
    ],
)
async def test_a_wrong_field_is_named_by_its_path(wire: Any, payload: dict[str, Any], field: str) -> None:
    error = (await wire.ask("echo.text", payload))["payload"]
    assert (error["code"], error["details"]) == ("VALIDATION_ERROR", {"field": field})
    assert field in error["message"]


@pytest.mark.parametrize("payload", ["[]", "7", "null", '"text"'])
async def test_a_payload_that_is_no_object_is_named(wire: Any, payload: str) -> None:
    await wire.send('{"id": "a", "type": "request", "action": "echo.text", "payload": ' + payload + "}")
    assert (await wire.message())["payload"]["details"] == {"field": "payload"}


async def test_a_handlers_error_keeps_its_code_and_details(wire: Any) -> None:
    error = (await wire.ask("echo.missing"))["payload"]
    assert (error["code"], error["details"]) == ("NOT_FOUND", {"kind": "task", "id": "t9"})


@pytest.mark.parametrize("action", ["echo.fail", "echo.fail_later", "echo.unencodable"])
async def test_the_unforeseen_shows_a_correlation_id_only(
    wire: Any, caplog: pytest.LogCaptureFixture, action: str
) -> None:
    with caplog.at_level(logging.ERROR):
        error = (await wire.ask(action))["payload"]
    assert error["code"] == "INTERNAL_ERROR"
    assert list(error["details"]) == ["correlation_id"]
    assert "secret" not in str(error)
    assert [error["details"]["correlation_id"] in record.getMessage() for record in caplog.records] == [True]


async def test_a_missing_scope_is_forbidden(open_house: Any, open_wire: Any, people: Any) -> None:
    from kandev_host import Principal

    reader = Principal("r", "user", "reader", frozenset({"host:read"}))
    async with open_house(authenticator=people(lambda _token: reader)) as house, open_wire(house) as wire:
        assert (await wire.ask("health.check"))["type"] == "response"
        error = (await wire.ask("echo.write", {"text": "x"}))["payload"]
        assert (error["code"], error["details"]) == ("FORBIDDEN", {"scope": "host:write"})


async def test_a_slow_handler_does_not_hold_up_the_next_request(house: Any, wire: Any) -> None:
    await wire.request("echo.wait", {"text": "slow"}, id="slow")
    assert (await wire.ask("health.check", id="quick"))["id"] == "quick"
    house.gate.set()
    assert (await wire.message())["id"] == "slow"


async def test_two_actions_of_one_name_are_a_startup_error(house: Any) -> None:
    from kandev_host.errors import StartupError
    from kandev_host.gateway.access import Access
    from kandev_host.gateway.dispatch import Dispatcher
    from kandev_host.gateway.receipts import Receipts
    from kandev_host.interfaces import Action
    from kandev_host.protocol.actions.host import HealthCheck

    action = Action("health.check", HealthCheck, lambda _call, _request: None, "host:read")
    with pytest.raises(StartupError, match="registered twice"):
        Dispatcher([action, action], lambda: 0, Receipts(house.store, house.journal), Access(house.ownership))
