"""When a model service said that it would work again, out of an agent's error. Hostile input: bounded, never raises.

What is told is believed for at most a day; what lies in the past is now; what says no time is None.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

LONGEST_S = 86_400.0
EPOCH_S = 1e8  # a smaller number counts seconds from now
EPOCH_MS = 1e11
VALUE_CHARS = 60
READ_NODES = 200
READ_DEPTH = 5

# Fields of an error's data, folded: HTTP's Retry-After, Google's retryDelay, OpenAI's resets_at and others.
FIELDS = frozenset(
    {"retryafter", "retryafters", "retryafterseconds", "retryafterms", "retrydelay", "retryat", "resetat", "resetsat"}
    | {"resettime", "resetsin", "resetsinseconds", "resetafter", "resetafterseconds"}
)
_FOLD = re.compile(r"[^a-z]")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_PART = r"\d{1,9}(?:\.\d{1,9})?\s?(?:ms|milliseconds?|d(?:ays?)?|h(?:ours?|rs?)?|m(?:in(?:ute)?s?)?|s(?:ec(?:ond)?s?)?)"
_PARTS = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s?(ms|milli|d|h|m|s)", re.I)
_DURATION = re.compile(rf"{_PART}(?:,? (?:and )?{_PART}|{_PART}){{0,3}}", re.I)
_AGAIN = r"(?:try(?:ing)? again|retry|retrying|resets?|available(?: again)?|wait)"
_STAMP = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?"
_IN = re.compile(rf"\b{_AGAIN}(?: in| after| for)?:? (?:about )?({_DURATION.pattern})\b", re.I)
_AFTER = re.compile(
    r"\bretry[-_ ]?after(?:[-_ ]?seconds)?[\"']?\s{0,2}[:=]?\s{0,2}[\"']?(\d{1,12}(?:\.\d{1,6})?)\b(?!\s?[a-z])", re.I
)
_FIELD = re.compile(
    r"[\"'](retryDelay|retry_after|resets?_at|resets?_in_seconds)[\"']\s{0,2}:\s{0,2}[\"']?([\w.:+-]{1,40})", re.I
)
_AT = re.compile(rf"\b{_AGAIN}(?: at| on)?:? ({_STAMP})", re.I)
_EPOCH = re.compile(r"limit reached\|(\d{10,13})\b", re.I)
_CLOCK = re.compile(
    r"\bresets?(?: at)? (\d{1,2})(?::(\d\d))? ?(am|pm) \(([A-Za-z_]{2,20}(?:/[A-Za-z_+-]{2,30}){0,2})\)", re.I
)


def reset_time(text: str, data: Any, at: datetime) -> datetime | None:
    """When to come back, not before `at` and not a day later than that. `text` should be short already."""
    seconds = _of_data(data, at)
    if seconds is None:
        seconds = _of_text(text, at)
    if seconds is None or math.isnan(seconds):
        return None
    return at + timedelta(seconds=min(max(seconds, 0.0), LONGEST_S))


def _of_data(data: Any, at: datetime) -> float | None:
    """Seconds from `at`, of the first field that tells a time."""
    for name, value in fields(data):
        folded = _FOLD.sub("", name[:VALUE_CHARS].lower())
        if folded in FIELDS:
            seconds = _of_value(value, at, milliseconds=folded.endswith("ms"))
            if seconds is not None:
                return seconds
    return None


def fields(data: Any) -> Iterator[tuple[str, Any]]:
    """The fields of nested objects (elements of lists have no name), breadth first, a bounded number of them."""
    level, nodes = [data] if isinstance(data, dict | list) else [], 0
    for _ in range(READ_DEPTH):
        deeper: list[Any] = []
        for item in level:
            pairs = item.items() if isinstance(item, dict) else [("", each) for each in item[:READ_NODES]]
            for name, value in pairs:
                nodes += 1
                if nodes > READ_NODES:
                    return
                yield name, value
                if isinstance(value, dict | list):
                    deeper.append(value)
        level = deeper


def _of_value(value: Any, at: datetime, *, milliseconds: bool = False) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return _of_number(value, at, milliseconds=milliseconds)
    if not isinstance(value, str) or len(value) > VALUE_CHARS:
        return None
    text = value.strip()
    if re.fullmatch(r"\d{1,15}(?:\.\d{1,9})?", text):
        return _of_number(float(text), at, milliseconds=milliseconds)
    if _DURATION.fullmatch(text):
        return _of_duration(text)
    return _of_stamp(text, at)


def _of_number(number: float, at: datetime, *, milliseconds: bool = False) -> float | None:
    """Seconds from now, or a time of the epoch in seconds or milliseconds, told apart by its size."""
    if not abs(number) < 1e15:  # and so no NaN
        return None
    if number >= EPOCH_MS:
        return number / 1000 - at.timestamp()
    if number >= EPOCH_S and not milliseconds:
        return number - at.timestamp()
    return number / 1000 if milliseconds else float(number)


def _of_duration(text: str) -> float:
    parts = _PARTS.findall(text)
    return sum(float(number) * _UNITS["ms" if unit.lower() == "milli" else unit.lower()] for number, unit in parts)


def _of_stamp(text: str, at: datetime) -> float | None:
    """RFC 3339, or the date of an HTTP header."""
    for parse in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            moment = parse(text)
            return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - at).total_seconds()
        except (ValueError, OverflowError):
            continue
    return None


def _of_text(text: str, at: datetime) -> float | None:
    """What the sentences of known agents and services say."""
    if found := _EPOCH.search(text):
        return _of_number(float(found[1]), at)
    if found := _FIELD.search(text):
        return _of_value(found[2], at)
    if found := _AT.search(text):
        return _of_stamp(found[1], at)
    if found := _IN.search(text):
        return _of_duration(found[1])
    if found := _AFTER.search(text):
        return _of_number(float(found[1]), at)
    if found := _CLOCK.search(text):
        return _of_clock(found, at)
    return None


def _of_clock(found: re.Match[str], at: datetime) -> float | None:
    """The next time that this clock, of a named zone, shows that hour."""
    hour, minute = int(found[1]), int(found[2] or 0)
    if not 1 <= hour <= 12 or minute > 59:
        return None
    from zoneinfo import ZoneInfo  # seldom needed, and not small

    try:
        here = at.astimezone(ZoneInfo(found[4]))
    except (ValueError, OSError, KeyError):
        return None
    moment = here.replace(hour=hour % 12 + 12 * (found[3].lower() == "pm"), minute=minute, second=0, microsecond=0)
    if moment <= here:
        moment += timedelta(days=1)
    return (moment - here).total_seconds()
