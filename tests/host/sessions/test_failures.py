"""Of what kind an agent's error answer is. The answers are those of released agents, seen at a model that failed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kandev_host.errors import AgentError, Busy, Conflict, StorageFull, TimedOut, Unavailable
from kandev_host.protocol.jsonrpc import RpcError
from kandev_host.sessions.failures import AgentFailed, Cause, cause_of, classify, describe

GEMINI = '{"error":{"code":%d,"message":"no","status":"%s"}}'

ANSWERS: list[tuple[str, int, str, Any, str]] = [
    ("claude 400", -32603, "Internal error: API Error: 400 The prompt is no good", {"errorKind": "unknown"}, "config"),
    (
        "claude 404",
        -32603,
        "Internal error: There's an issue with the selected model (claude-opus-4-8[1m]). It may not exist or you may "
        "not have access to it.",
        {"errorKind": "model_not_found"},
        "config",
    ),
    (
        "claude 529",
        -32603,
        "Internal error: API Error: Repeated 529 Overloaded errors. The API is at capacity — this is usually "
        "temporary. Try again in a moment.",
        {"errorKind": "server_error"},
        "unavailable",
    ),
    ("claude 429", -32603, "Internal error: You've hit your limit", {"errorKind": "rate_limit"}, "rate_limit"),
    ("claude without a log-in", -32000, "Authentication required", None, "login"),
    (
        "codex of Zed 400",
        -32603,
        "Internal error",
        {
            "message": '{"error": {"message": "no", "type": "invalid_request_error", "param": null, "code": null}}',
            "codex_error_info": "other",
        },
        "config",
    ),
    (
        "codex of Zed 401",
        -32603,
        "Internal error",
        {
            "message": "unexpected status 401 Unauthorized: Incorrect API key provided, url: http://127.0.0.1/v1",
            "codex_error_info": "other",
        },
        "config",
    ),
    (
        "codex of Zed 404",
        -32603,
        "Internal error",
        {
            "message": "unexpected status 404 Not Found: The model fake-model does not exist, url: http://127.0.0.1/v1",
            "codex_error_info": "other",
        },
        "config",
    ),
    (
        "codex of Zed 429",
        -32603,
        "Internal error",
        {
            "message": "exceeded retry limit, last status: 429 Too Many Requests",
            "codex_error_info": {"response_too_many_failed_attempts": {"http_status_code": 429}},
        },
        "rate_limit",
    ),
    (
        "codex of Zed 500",
        -32603,
        "Internal error",
        {
            "message": "We're currently experiencing high demand, which may cause temporary errors.",
            "codex_error_info": "internal_server_error",
        },
        "unavailable",
    ),
    ("codex 401", -32000, "Authentication required", None, "login"),
    ("codex, its limit", -32603, "Internal error", {"codexErrorInfo": "usageLimitExceeded"}, "rate_limit"),
    ("gemini 400", 400, GEMINI % (400, "INVALID_ARGUMENT"), None, "config"),
    ("gemini 401", 401, GEMINI % (401, "UNAUTHENTICATED"), None, "config"),
    ("gemini 429", 429, GEMINI % (429, "RESOURCE_EXHAUSTED"), None, "rate_limit"),
    ("gemini 404, which it calls 500", 500, "The model fake-model does not exist", None, "config"),
    ("gemini, whatever else", 500, "Something", None, "unavailable"),
    (
        "opencode 401",
        -32603,
        "Internal error: Incorrect API key provided",
        {"service": "session", "errorName": "APIError"},
        "config",
    ),
    (
        "opencode 404",
        -32603,
        "Internal error: The model fake-model does not exist",
        {"service": "session", "errorName": "APIError"},
        "config",
    ),
    ("qwen 400", -32603, "Internal error", {"details": "400 The prompt is no good"}, "config"),
    ("qwen 401", -32603, "Internal error", {"details": "401 Incorrect API key provided"}, "config"),
    ("deepagents 400", -32603, "Internal error", {"details": "Error code: 400 - The prompt is no good"}, "config"),
    ("vibe 401", -31002, "Invalid API key (from env var FAKE_KEY). Please check your API key", None, "config"),
    (
        "deepagents 429",
        -32603,
        "Internal error",
        {"details": "Error code: 429 - Rate limit reached for requests. Please try again in 20s."},
        "rate_limit",
    ),
    ("deepagents 500", -32603, "Internal error", {"details": "Error code: 500 - The server had it"}, "unavailable"),
    (
        "vibe 404",
        -32603,
        "Client error '404 Not Found' for url 'http://127.0.0.1:1/v1/chat/completions'\nFor more information check: "
        "https://developer.mozilla.org/en-US/docs/Web/HTTP/Status/404: The model fake-model does not exist",
        None,
        "config",
    ),
    ("a quota that is used up for good", -32603, "no", {"status": 429, "code": "insufficient_quota"}, "config"),
    ("a proxy", -32603, "upstream connect error or disconnect: connection refused", None, "unavailable"),
    ("Node", -32603, "fetch failed", {"cause": {"code": "ECONNREFUSED"}}, "unavailable"),
    ("a generic server error that says what", -32000, "Rate limit exceeded", None, "rate_limit"),
    ("a fault of the agent's own", -32603, "Cannot read properties of undefined (reading 'x')", None, "turn"),
    ("an invalid request of ours", -32602, "Invalid params", {"prompt": {"_errors": []}}, "turn"),
    ("a file of 500 lines", -32603, "the tool read 500 lines and lost its way", None, "turn"),
]  # fmt: skip


@pytest.mark.parametrize(("who", "code", "message", "data", "failure"), ANSWERS, ids=[row[0] for row in ANSWERS])
def test_an_error_answer_is_of_a_kind(who: str, code: int, message: str, data: Any, failure: str) -> None:
    del who
    assert classify(RpcError(code, message, data)).failure == failure


@pytest.mark.parametrize(
    "data", [None, [], {}, "x" * 10**6, {"a": {"b": [{}] * 10**5}}, {"code": 10**400}, {"status": ["429"]}, 7, True]
)
def test_no_data_of_an_error_breaks_the_host(data: Any) -> None:
    assert classify(RpcError(-32603, "x" * 10**6, data)).failure == "turn"


def test_hostile_text_is_read_in_no_time() -> None:
    """The suite's timeout is the deadline."""
    for text in ("auth" * 2500, "no " * 3000, "model " * 1500, "error " * 1500, '"type":' * 1500, "hit your " * 1000):
        assert classify(RpcError(-32603, text)).failure == "turn"


def test_what_nothing_is_known_of_is_what_the_caller_says() -> None:
    assert classify(RpcError(-32603, "Internal error"), "config").failure == "config"


def test_a_reset_time_comes_with_the_kinds_that_pass() -> None:
    before = datetime.now(UTC)
    cause = classify(RpcError(429, "no", {"retryAfter": 30}))
    assert cause.retry_at is not None
    assert timedelta(seconds=30) <= cause.retry_at - before < timedelta(seconds=40)
    assert classify(RpcError(400, "no", {"retryAfter": 30})).retry_at is None
    told = {"details": "Error code: 429 - Rate limit reached for requests. Please try again in 20s."}  # deepagents
    assert classify(RpcError(-32603, "Internal error", told)).retry_at is not None


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (AgentFailed("no", Cause("config")), "config"),
        (AgentError("The agent exited with code 1"), "crash"),
        (TimedOut("The agent did not answer initialize within 30 s"), "crash"),
        (Unavailable("no bubblewrap"), "unavailable"),
        (Busy("locked"), "unavailable"),
        (StorageFull("full"), "unavailable"),
        (Conflict("no"), "turn"),
    ],
)
def test_an_error_of_the_host_is_of_a_kind(error: Any, failure: str) -> None:
    assert cause_of(error).failure == failure


def test_people_are_told_the_sentence_and_not_only_its_heading() -> None:
    assert describe(RpcError(-32603, "Internal error", {"details": "400 no"})) == "Internal error: 400 no (-32603)"
    assert describe(RpcError(-32603, "Oh no", {"errorKind": "unknown"})) == "Oh no (-32603)"
