"""When a model service says that it works again, out of what agents pass on."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from kandev_host.sessions.resets import reset_time

NOON = datetime(2026, 1, 10, 12, 0, tzinfo=UTC)
DAY_S = 86_400

TOLD: list[tuple[str, Any, float | None]] = [
    ("Please try again in 20s.", None, 20),
    ("Please try again in 1m30.5s. Visit https://example.org", None, 90.5),
    ("Please retry in 32.4s.", None, 32.4),
    ("try again in 45 minutes", None, 2700),
    ("Try again in 2 hours and 5 minutes.", None, 7500),
    ("You've hit your usage limit. Upgrade, or try again in 3 days 6 hours 57 minutes.", None, DAY_S),
    ("Retry after 30", None, 30),
    ("retry-after: 12", None, 12),
    ("Claude AI usage limit reached|1768050000", None, 3600),
    ("You've hit your limit · resets 3pm (Europe/Berlin)", None, 7200),
    ("5-hour limit reached ∙ resets 11:30am (UTC)", None, 23.5 * 3600),
    ("usage limit reached, resets at 2026-01-10T13:00:00Z", None, 3600),
    ('{"error":{"type":"usage_limit_reached","resets_at":1768046700}}', None, 300),
    ('{"error":{"details":[{"retryDelay":"34.5s"}]}}', None, 34.5),
    ("no", {"retry_after": 30}, 30),
    ("no", {"retryAfterMs": 1500}, 1.5),
    ("no", {"resetsAt": 1768046700}, 300),
    ("no", {"resetsAt": 1768046700000}, 300),
    ("no", {"error": {"details": [{"@type": "RetryInfo", "retryDelay": "34.5s"}]}}, 34.5),
    ("no", {"headers": {"Retry-After": "Sat, 10 Jan 2026 12:05:00 GMT"}}, 300),
    ("no", {"reset_at": "2026-01-10T12:10:00+00:00"}, 600),
    ("resets at 2020-01-01T00:00:00Z", None, 0),
    ("no", {"retryAfter": -5}, 0),
    ("no", {"retryAfter": 10**9 * 4}, DAY_S),
    ("no", {"retryAfter": "9" * 15}, DAY_S),
    ("Too many requests", None, None),
    ("Try again in a moment.", None, None),
    ("resets 3pm (../../etc/passwd)", None, None),
    ("resets 3pm (No/Where)", None, None),
    ("resets 77pm (UTC)", None, None),
    ("no", {"retryAfter": float("nan")}, None),
    ("no", {"retryAfter": float("inf")}, None),
    ("no", {"retryAfter": 10**400}, None),
    ("no", {"retryAfter": "9" * 500}, None),
    ("no", {"retryAfter": True}, None),
    ("no", {"resetAt": "9999-99-99T00:00:00Z"}, None),
    ("no", [[[[[[[{"retry_after": 3}]]]]]]], None),
    ("no", "retry", None),
]


@pytest.mark.parametrize(("text", "data", "seconds"), TOLD)
def test_a_reset_time_is_read_and_kept_within_a_day(text: str, data: Any, seconds: float | None) -> None:
    found = reset_time(text, data, NOON)
    assert (None if found is None else (found - NOON).total_seconds()) == seconds


def test_hostile_text_and_data_are_read_in_no_time() -> None:
    """The suite's timeout is the deadline."""
    for text in ("resets " * 1200, "1s" * 4000, "try again in " + "1 h " * 2000, "9" * 8192, '"resets_at":' * 600):
        reset_time(text, {"a": [{"b": [0] * 10**5}] * 10**4}, NOON)
