"""How a permission request is shown: what it does in plain lines, all of it bounded, with its style. Pure.

The lines hold what the agent wrote as it came: whoever prints them makes it `printable` first.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kandev_host.sessions.commands import command_told

Line = tuple[str, str]

INPUT_CHARS = 4000
LINE_CHARS = 500
DIFF_LINES = 200
COMPARED_LINES = 2000
COMPARED_CHARS = 200_000
LASTS = "  [lasts beyond this time]"
_STYLES = {"+": "green", "-": "red", "@": "cyan"}


def lines_of(permission: Mapping[str, Any], options: Sequence[Mapping[str, Any]]) -> Iterator[Line]:
    """What the agent wants to do, and the options, numbered from 1."""
    call = permission.get("tool_call") or {}
    yield f"? The agent asks: {call.get('title') or call.get('toolCallId')}", "bold yellow"
    yield f"  kind (as the agent says): {call.get('kind') or 'not said'}", ""
    yield from _input(call.get("rawInput"))
    content = call.get("content")
    for item in content if isinstance(content, list) else []:
        if isinstance(item, dict) and item.get("type") == "diff":
            yield from _diff(item)
    for location in call.get("locations") or []:
        if isinstance(location, dict):
            yield f"  at {location.get('path')}", ""
    if permission.get("reason"):
        yield f"  asked because: {permission['reason']}", ""
    for number, option in enumerate(options, start=1):
        lasts = LASTS if str(option.get("kind")).endswith("_always") else ""
        yield f"  {number}) {option.get('name')}  [{option.get('kind')}]{lasts}", ""


def _input(value: Any) -> Iterator[Line]:
    """A command as it would be typed, in one line; whatever else there is, as it was sent."""
    told = command_told(value)
    if told is not None:
        name, command = told
        yield _cut(f"  $ {command}"), "bold"
        value = {key: part for key, part in value.items() if key != name}
        if not value:
            return
    text = _pretty(value)
    for line in text[:INPUT_CHARS].splitlines():
        yield f"  | {line}", "dim"
    if len(text) > INPUT_CHARS:
        yield f"  | … {len(text) - INPUT_CHARS} more characters", "yellow"


def _diff(item: Mapping[str, Any]) -> Iterator[Line]:
    old, new = item.get("oldText"), item.get("newText")
    yield f"  {'change' if isinstance(old, str) else 'write'} {item.get('path')}", "bold"
    before, after = _split(old), _split(new)
    if (before and max(len(before), len(after)) > COMPARED_LINES) or _chars(old, new) > COMPARED_CHARS:
        yield f"  | too large to be compared: {len(before)} lines become {len(after)}, of which the first are", "yellow"
        before = []
    changed = [*difflib.unified_diff(before, after, lineterm="", n=2)][2:] if before else [f"+{line}" for line in after]
    for line in changed[:DIFF_LINES]:
        yield _cut(f"  | {line}"), _STYLES.get(line[:1], "dim")
    if len(changed) > DIFF_LINES:
        yield f"  | … {len(changed) - DIFF_LINES} more lines", "yellow"


def _split(text: Any) -> list[str]:
    """Its lines. What ends one begins no other, which would be shown as an empty line that is added."""
    return text.removesuffix("\n").split("\n") if isinstance(text, str) and text else []


def _chars(*texts: Any) -> int:
    return sum(len(text) for text in texts if isinstance(text, str))


def _cut(line: str) -> str:
    bound = INPUT_CHARS if line.startswith("  $") else LINE_CHARS
    return line if len(line) <= bound else f"{line[:bound]} … {len(line) - bound} more characters"


def _pretty(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "(none given)" if value is None else json.dumps(value, indent=2, ensure_ascii=False)
