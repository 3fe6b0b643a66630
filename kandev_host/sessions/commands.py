"""The command that a tool call runs, as agents tell it, for people who search for it. Pure; the input is hostile.

Seen: rawInput.command as a text (codex, claude, opencode) or as a list (codex-acp of Zed: ["/bin/bash", "-lc", "…"]),
rawInput.cmd; and agents that send no input but the command as the title (gemini).
"""

from __future__ import annotations

import shlex
from typing import Any

import msgspec
from msgspec import Raw

COMMAND_CHARS = 8 << 10
ARGUMENTS = 1000
_SHELL_FLAGS = frozenset({"-c", "-lc", "-ic", "-ec"})


class _Input(msgspec.Struct):
    command: Any = None
    cmd: Any = None


_decoder = msgspec.json.Decoder(_Input)


def command_in(raw_input: Raw) -> str | None:
    """The command of an input; None if it holds none (yet). Cut at 8 Ki characters."""
    try:
        found = _decoder.decode(raw_input)
    except (msgspec.DecodeError, RecursionError):
        return None
    return _said(found.command) or _said(found.cmd)


def _said(value: Any) -> str | None:
    if isinstance(value, list):
        words = [word for word in value[:ARGUMENTS] if isinstance(word, str)]
        in_shell = len(words) == 3 and words[1] in _SHELL_FLAGS
        value = words[2] if in_shell else shlex.join(words)
    return clean(value) if isinstance(value, str) else None


def clean(text: str) -> str | None:
    """Without what a store cannot hold, and bounded; None if nothing is left."""
    return text[:COMMAND_CHARS].replace("\0", "").strip() or None
