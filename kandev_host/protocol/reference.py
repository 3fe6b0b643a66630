"""What the wire promises besides actions and notifications: error codes, close codes, versions, and what may change."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

PROTOCOL_VERSION = 1
SUBPROTOCOL = "kandev.v1"


class ErrorCode(msgspec.Struct, frozen=True):
    """When the host answers so, and which `details` may come with it: name → meaning."""

    code: str
    summary: str
    details: Mapping[str, str] = msgspec.field(default_factory=dict)


_HALF_DONE = {"outcome_unknown": "something of the request was done before, and it will not be carried out again"}
_ERRORS = (
    ErrorCode("BAD_REQUEST", "Not JSON, or not an envelope"),
    ErrorCode("VALIDATION_ERROR", "A field is missing, unknown, wrong or out of bounds", {"field": "its path"}),
    ErrorCode("UNKNOWN_ACTION", "There is no such action", {"did_you_mean": "the nearest one"}),
    ErrorCode("UNAUTHORIZED", "No credentials, or bad ones"),
    ErrorCode(
        "FORBIDDEN",
        "The principal lacks a scope, or what is named is on somebody else's board",
        {"scope": "the one that is needed", "owner": "the id of the user whose it is", "board_id": "the board"},
    ),
    ErrorCode(
        "NOT_FOUND",
        "Nothing of this kind has this id",
        {"kind": "what was looked for", "id": "what was asked for", "known": "the names, where there are few"},
    ),
    ErrorCode(
        "CONFLICT",
        "The present state does not allow it; nothing was changed",
        {
            "state": "what stands in the way",
            "force": "of a deletion: what it does with force instead",
            "resync_required": "of a subscription: load everything anew, then subscribe without after_seq",
            "outcome_unknown": "of a repeated request: it was begun and not finished, look how far it came",
        },
    ),
    ErrorCode("RATE_LIMITED", "Too many requests", {"retry_after_s": "when to come back", **_HALF_DONE}),
    ErrorCode(
        "PAYLOAD_TOO_LARGE",
        "A field is too large; a frame over the limit closes the socket with 1009",
        {"limit_bytes": "the limit", "field": "its path"},
    ),
    ErrorCode(
        "UNAVAILABLE",
        "A runtime, an agent or the store cannot be used",
        {"reason": "why", "fix": "what a person can do about it", **_HALF_DONE},
    ),
    ErrorCode("TIMEOUT", "A deadline passed", _HALF_DONE),
    ErrorCode("STORAGE_FULL", "The disk is full: reads go on, nothing was written", _HALF_DONE),
    ErrorCode(
        "BUSY",
        "The database stayed locked by another process, or a queue stayed full; nothing was written",
        _HALF_DONE,
    ),
    ErrorCode(
        "INTERNAL_ERROR", "Anything unforeseen", {"correlation_id": "under which the host's log has the whole story"}
    ),
)
ERRORS: Mapping[str, ErrorCode] = {each.code: each for each in _ERRORS}

CLOSE_CODES: Mapping[int, str] = {
    1001: "The host is shutting down",
    1003: "A message was not text",
    1009: "A message was larger than the limit",
    1011: "The host failed, as in a replay whose store cannot be read; come back with after_seq",
    4401: "Not authenticated in time, or the credentials were revoked, have expired or logged out",
    4408: "Too slow: the reason ends with seq=N, the last event delivered; come back with after_seq",
}

# Settings of the gateway that are limits to its clients.
LIMITS = (
    "message_limit_bytes",
    "json_depth_limit",
    "requests_per_s",
    "request_burst",
    "concurrent_requests",
    "principal_rate_factor",
    "address_requests_per_s",
    "address_request_burst",
    "sockets_per_principal",
    "sockets_per_address",
    "sockets_total",
    "outbound_limit_messages",
    "outbound_limit_bytes",
    "login_timeout_s",
    "slow_client_timeout_s",
)

# What holds for as long as the subprotocol is called kandev.v1.
MAY_CHANGE = (
    "new actions and new notifications",
    "new fields in responses, notifications, error details and rows",
    "new optional fields in requests",
    "new error codes, new values of states and other words, where a client treats the unknown as it should: as unknown",
    "wider bounds, limits (they are settings) and the words of `message`",
)
MAY_NOT_CHANGE = (
    "names of actions, notifications, fields and error codes, and what they mean",
    "the type of a field, and that a response field once there is always there (unknown is null)",
    "which request fields are required, and the defaults of the others",
    "the envelope, the authentication, the topics, the order of events and their `seq`",
)
