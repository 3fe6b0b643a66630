"""Of what kind a failure is, read from what an agent answered or said: its JSON-RPC error, or a text that is one.

Codes and named kinds are trusted before words. What is read is hostile: only the first `READ_CHARS` of a text and a
bounded number of an error's fields are looked at. What nobody knows is "turn", which is not tried again.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import msgspec

from kandev_host.errors import AgentError, Busy, KandevError, StorageFull, TimedOut, Unavailable
from kandev_host.models import Failure, now
from kandev_host.protocol import jsonrpc
from kandev_host.protocol.jsonrpc import RpcError
from kandev_host.sessions.resets import fields, reset_time

READ_CHARS = 8 << 10
DETAIL_CHARS = 500


class Cause(msgspec.Struct, frozen=True):
    """What kind of failure; `retry_at` is when the model service said that it would work again, if it said so."""

    failure: Failure
    retry_at: datetime | None = None


class AgentFailed(AgentError):
    """An agent that cannot go on, and of what kind that is."""

    def __init__(self, message: str, cause: Cause) -> None:
        super().__init__(message)
        self.cause = cause


class NeedsLogin(AgentFailed):
    """An agent that wants a log-in first; `fix` is what a person is to do."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(f"{message}. {fix}", Cause("login"))
        self.fix = fix


# HTTP status of the model service. Others of 5xx are "unavailable", others of 4xx "turn".
STATUS: dict[int, Failure] = {
    400: "config",
    401: "config",
    402: "config",
    403: "config",
    404: "config",
    408: "unavailable",
    429: "rate_limit",
}

# Kinds by name, folded: values of `type`, `code`, `status` and the like. From: Anthropic (rate_limit_error…), OpenAI
# (rate_limit_exceeded, insufficient_quota…), Google (RESOURCE_EXHAUSTED…), codex-acp (codexErrorInfo),
# claude-agent-acp (errorKind), Node (ECONNREFUSED…).
KINDS: dict[str, Failure] = {
    "ratelimit": "rate_limit",
    "ratelimited": "rate_limit",
    "ratelimiterror": "rate_limit",
    "ratelimitexceeded": "rate_limit",
    "toomanyrequests": "rate_limit",
    "resourceexhausted": "rate_limit",
    "usagelimitreached": "rate_limit",
    "usagelimitexceeded": "rate_limit",
    "quotaexhausted": "rate_limit",
    "authenticationerror": "config",
    "authenticationfailed": "config",
    "authrequired": "config",
    "badrequest": "config",
    "billingerror": "config",
    "insufficientquota": "config",
    "invalidapikey": "config",
    "invalidargument": "config",
    "invalidrequest": "config",
    "invalidrequesterror": "config",
    "modelnotfound": "config",
    "notfounderror": "config",
    "oauthorgnotallowed": "config",
    "permissiondenied": "config",
    "permissionerror": "config",
    "unauthenticated": "config",
    "unauthorized": "config",
    "apiconnectionerror": "unavailable",
    "apierror": "unavailable",  # Anthropic's name for its status 500
    "connectionerror": "unavailable",
    "deadlineexceeded": "unavailable",
    "econnrefused": "unavailable",
    "econnreset": "unavailable",
    "eaiagain": "unavailable",
    "enotfound": "unavailable",
    "etimedout": "unavailable",
    "flexunavailable": "unavailable",
    "httpconnectionfailed": "unavailable",
    "internalservererror": "unavailable",
    "overloaded": "unavailable",
    "overloadederror": "unavailable",
    "responsestreamconnectionfailed": "unavailable",
    "responsestreamdisconnected": "unavailable",
    "servererror": "unavailable",
    "serveroverloaded": "unavailable",
    "serviceunavailable": "unavailable",
    "timeouterror": "unavailable",
    "transportlost": "unavailable",
    "unavailable": "unavailable",
}

# Words, for agents that pass on nothing but a sentence; the first that matches counts.
PHRASES: tuple[tuple[Failure, re.Pattern[str]], ...] = (
    ("config", re.compile(r"insufficient_quota|credit balance is too low|payment required", re.I)),
    (
        "rate_limit",
        re.compile(
            r"rate.?limit|too many requests|resource.?exhausted|(?:usage|quota|hour|weekly|daily|session) limit"
            r"|quota (?:was |is )?(?:exceeded|exhausted)|exceeded your (?:current )?quota|hit your (?:\w{1,20} )?limit",
            re.I,
        ),
    ),
    (
        "config",
        re.compile(
            r"auth\w{0,30} (?:is )?required|not (?:logged|signed) in|(?:log|sign) ?in (?:again|first|required|to )"
            r"|please (?:run|log|sign)|run [`'\"]?/?login|(?:invalid|incorrect|missing|no|expired) (?:\w{1,40} )?"
            r"(?:api.?key|(?:access|auth) token|credentials?)"
            r"|\bunauthori[sz]ed\b|\bforbidden\b|unknown model|invalid model|model\b[^.]{0,120}?"
            r"\b(?:not found|not exist|not supported|not available|no access)|no (?:such )?model\b",
            re.I,
        ),
    ),
    (
        "unavailable",
        re.compile(
            r"overload|econnrefused|econnreset|etimedout|eai_again|enotfound|connection (?:was )?(?:refused|reset|error"
            r"|closed|lost)|cannot connect|unable to connect|failed to connect|network error|fetch failed"
            r"|unavailable|bad gateway|gateway time-?out|internal server error|server error|had an error"
            r"|timed? ?out\b|at capacity|high demand|stream disconnected|failed to get response from the ai model"
            r"|too many failed attempts",
            re.I,
        ),
    ),
)

_FOLD = re.compile(r"[^a-z]")
_STATUS_KEYS = frozenset({"code", "status", "statuscode", "httpstatus", "httpstatuscode"})
_KIND_KEYS = _STATUS_KEYS | {"type", "kind", "errorkind", "errortype", "reason", "codexerrorinfo"}
_TEXT_KEYS = frozenset({"message", "details", "detail", "error", "reason"})
_KIND_TEXT = re.compile(r"\"(?:type|code|status)\"\s{0,2}:\s{0,2}\"(\w{2,60})\"")
_STATUS_TEXT = re.compile(
    r"(?:\bHTTP(?:/\d(?:\.\d)?)?|\bstatus(?:[ _]?code)?|\bC?API ?Error|\bRepeated|\berror(?: code)?|\bcode)"
    r"[\"']?\W{0,3}([45]\d\d)\b|^\W?([45]\d\d)\b",
    re.I,
)


def classify(error: RpcError, unknown: Failure = "turn") -> Cause:
    """Of what kind an error answer is; `unknown` if nothing tells.

    ACP: -32000 is "authentication required". Some agents use it as a server error like any other, and say which.
    """
    text = f"{error.message[:READ_CHARS]} {detail(error.data)}".strip()
    status = of_status(error.code)  # Gemini's; its 500 stands for whatever it does not know either
    found = (None if error.code == 500 else status) or _of_data(error.data) or of_text(text) or status
    if error.code == jsonrpc.AUTH_REQUIRED and found in {None, "config"} and not of_billing(text):
        found = "login"
    found = found or unknown
    return Cause(found, _reset(found, text, error.data))


def classify_text(text: str) -> Cause:
    """The same of an error that came as nothing but a text."""
    text = text[:READ_CHARS]
    found = of_text(text) or "turn"
    return Cause(found, _reset(found, text, None))


def cause_of(error: KandevError) -> Cause:
    """Why a run could not go on: its agent, or what the host needed for it."""
    if isinstance(error, AgentFailed):
        return error.cause
    if isinstance(error, AgentError | TimedOut):
        return Cause("crash")
    return Cause("unavailable" if isinstance(error, Unavailable | Busy | StorageFull) else "turn")


def detail(data: Any) -> str:
    """The sentence that says more than the error's own message, if its data has one."""
    for name, value in fields(data):
        if _fold(name) in _TEXT_KEYS and isinstance(value, str) and value.strip():
            return value.strip()[:DETAIL_CHARS]
    return data.strip()[:DETAIL_CHARS] if isinstance(data, str) else ""


def describe(error: RpcError) -> str:
    """What an error answer says to people, with the sentence of its data where its message is only a heading."""
    more = detail(error.data)
    return str(error) if not more or more in error.message else f"{error.message}: {more} ({error.code})"


def of_status(status: Any) -> Failure | None:
    """What an HTTP status means; None for a number that is none of an error."""
    if isinstance(status, str) and len(status) == 3 and status.isascii() and status.isdigit():
        status = int(status)
    if type(status) is not int or not 400 <= status <= 599:
        return None
    return STATUS.get(status, "unavailable" if status >= 500 else "turn")


def of_text(text: str) -> Failure | None:
    """What a text that is known to tell of an error says of its kind."""
    for found in _KIND_TEXT.finditer(text):
        if (kind := KINDS.get(_fold(found[1]))) is not None and not of_billing(text):
            return kind
    if of_billing(text):
        return "config"
    if (status := _STATUS_TEXT.search(text)) is not None:
        return of_status(status[1] or status[2])
    return next((kind for kind, phrase in PHRASES if phrase.search(text)), None)


def of_billing(text: str) -> bool:
    """Money is missing, which some services tell with the status of a rate limit."""
    return PHRASES[0][1].search(text) is not None


def _of_data(data: Any) -> Failure | None:
    """A status first, but for a quota that was used up for good; then the first kind that is known by name."""
    status: Failure | None = None
    kinds: list[str] = []
    for name, value in fields(data):
        key = _fold(name)
        if key in _STATUS_KEYS and status is None:
            status = of_status(value)
        if key in _KIND_KEYS and isinstance(value, str):
            kinds.append(_fold(value))
    if "insufficientquota" in kinds:
        return "config"
    return status or next((KINDS[kind] for kind in kinds if kind in KINDS), None)


def _reset(failure: Failure, text: str, data: Any) -> datetime | None:
    return reset_time(text, data, now()) if failure in {"rate_limit", "unavailable"} else None


def _fold(name: str) -> str:
    return _FOLD.sub("", name[:DETAIL_CHARS].lower())
