"""The message, as bytes."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kandev_host.errors import ValidationFailed
from kandev_host.events import event
from kandev_host.protocol.envelope import (
    BadEnvelope,
    decode_request,
    deeper_than,
    encode_error,
    encode_notification,
    encode_response,
)

KEYS = st.text(alphabet='[{"\\', max_size=3)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='[]{}"\\a\u00e9', max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=30,
)


def depth(value: Any) -> int:
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 0


@given(JSON)
def test_depth_is_that_of_the_value_whatever_its_strings_hold(value: Any) -> None:
    frame = json.dumps(value).encode()
    limit = depth(value)
    assert not deeper_than(frame, limit)
    assert limit == 0 or deeper_than(frame, limit - 1)


@given(st.binary(max_size=200))
def test_random_bytes_are_a_bad_envelope(frame: bytes) -> None:
    with pytest.raises(BadEnvelope):
        decode_request(frame)


@pytest.mark.parametrize(
    "bomb",
    [
        b"[" * (1 << 20),
        b'{"a":' * 200_000,
        b"[" * (1 << 19) + b"]" * (1 << 19),
        b"[" + b"[],[" * 250_000,
        b'"' + b"\\" * (1 << 20),
        b'{"id":"a","type":"request","action":"x","payload":' + b"[" * 500_000 + b"]" * 500_000 + b"}",
        (b"[" * 60 + b"]" * 60) * 8000,
        b'[["' * 300_000,
    ],
    ids=range(8),
)
def test_a_bomb_of_a_megabyte_is_refused_quickly(bomb: bytes) -> None:
    start = time.process_time()
    with pytest.raises(BadEnvelope):
        decode_request(bomb)
    assert time.process_time() - start < 0.5


TEXTS = st.text(
    st.sampled_from(["a", "\\", '"', "\ud800", "\udbff", "\udc00", "\udfff", "\U0001f600", "u", "d", "8", "3"])
)


@given(TEXTS, TEXTS)
def test_half_a_surrogate_pair_hides_no_id_but_its_own(id: str, text: str) -> None:
    request = {"payload": {text: text}, "id": id, "type": "request", "action": "x", "more": text}
    id = id.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")  # its pairs as one
    readable = id != "" and not any("\ud800" <= char <= "\udfff" for char in id)
    try:
        found: str | None = decode_request(json.dumps(request).encode()).id
    except BadEnvelope as error:
        found = error.id
    assert found == (id if readable else None)


@pytest.mark.parametrize("torn", [rb"\ud800", rb"\\\ud800", rb"\ud800\u"])
def test_a_megabyte_of_half_surrogate_pairs_is_refused_quickly(torn: bytes) -> None:
    frame = b'{"id":"a","type":"request","action":"x","payload":"' + torn * ((1 << 20) // len(torn)) + b'"}'
    start = time.process_time()
    with pytest.raises(BadEnvelope):
        decode_request(frame)
    assert time.process_time() - start < 0.5


def test_the_payload_stays_undecoded() -> None:
    request = decode_request(b'{"id":"1","type":"request","action":"a","payload":{"x": 1.50}}')
    assert bytes(request.payload) == b'{"x": 1.50}'


def test_a_missing_payload_is_empty() -> None:
    assert bytes(decode_request(b'{"id":"1","type":"request","action":"a"}').payload) == b"{}"


def test_a_notification_embeds_its_payload_and_keeps_its_time() -> None:
    item = event("acp.log", {"level": "info"}, task_id="t", created_at=datetime(2026, 1, 10, 10, 30, tzinfo=UTC))
    item.seq = 7
    assert json.loads(encode_notification(item)) == {
        "id": item.id,
        "type": "notification",
        "action": "acp.log",
        "payload": {"level": "info"},
        "timestamp": "2026-01-10T10:30:00Z",
        "seq": 7,
    }


def test_an_error_holds_code_message_and_details() -> None:
    message = json.loads(encode_error(None, None, ValidationFailed("a[0]", "a[0]: no")))
    assert (message["id"], message["type"]) == (None, "error")
    assert message["payload"] == {"code": "VALIDATION_ERROR", "message": "a[0]: no", "details": {"field": "a[0]"}}


def test_a_response_has_a_seq_only_when_given() -> None:
    assert "seq" not in json.loads(encode_response("1", "a", {}))
    assert json.loads(encode_response("1", "a", {}, 0))["seq"] == 0
