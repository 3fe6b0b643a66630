"""The command that a tool call runs, as agents tell it, for people who search for it. Pure; the input is hostile.

Seen: rawInput.command as a text (codex, claude, opencode) or as a list (codex-acp of Zed: ["/bin/bash", "-lc", "…"]),
rawInput.cmd; and agents that send no input but the command as the title (gemini).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Raw

COMMAND_CHARS = 8 << 10
ARGUMENTS = 1000
LOOKED_THROUGH_CHARS = 16 << 10
NESTED = 3
_SHELL_FLAGS = frozenset({"-c", "-lc", "-ic", "-ec"})
_SHELLS = frozenset(
    f"{folder}{name}" for folder in ("", "/bin/", "/usr/bin/") for name in ("sh", "bash", "dash", "zsh")
)
_BETWEEN = re.compile(r"[;|&<>(){}`\n\r]|\$\(")
_BEFORE = frozenset(
    {"sudo", "env", "nohup", "time", "exec", "command", "builtin", "nice", "timeout", "xargs", "then", "do"}
)
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
_NOT_PLAIN = re.compile(r"[;|&$`()<>*?\[\]{}~!#\\]")
_ALTERING = frozenset({"env", "environment", "stdin", "input", "shell"})


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


def command_told(raw_input: Any) -> tuple[str, str] | None:
    """The field that holds the command, and the command as it would be typed, for a person who decides about it.

    None if no field does, or more than one. What would not be shown in full is not told: all else of the input is for
    the caller to show.
    """
    if not isinstance(raw_input, dict):
        return None
    names = [name for name in ("command", "cmd") if raw_input.get(name)]
    if len(names) != 1:
        return None
    value = raw_input[names[0]]
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        in_shell = len(value) == 3 and value[0] in _SHELLS and value[1] in _SHELL_FLAGS
        value = value[2] if in_shell else shlex.join(value)
    return (names[0], value) if isinstance(value, str) else None


def clean(text: str) -> str | None:
    """Without what a store cannot hold, and bounded; None if nothing is left."""
    return text[:COMMAND_CHARS].replace("\0", "").strip() or None


def simple_command(call: dict[str, Any]) -> tuple[str, ...] | None:
    """The words of a call that runs one plain command, and in which nothing else says what it does; None for others.

    Plain: no shell can make anything else of it (no lists, pipes, expansions or patterns, wherever they stand).
    """
    raw_input = call.get("rawInput")
    if not isinstance(raw_input, dict) or any(raw_input.get(name) for name in _ALTERING):
        return None
    said = [raw_input[name] for name in ("command", "cmd") if raw_input.get(name) is not None]
    if len(said) != 1:
        return None
    value = said[0]
    if isinstance(value, list):
        if not all(isinstance(word, str) for word in value):
            return None
        if len(value) != 3 or value[0] not in _SHELLS or value[1] not in _SHELL_FLAGS:
            return _one_program(value)
        value = value[2]
    if not isinstance(value, str) or len(value) > COMMAND_CHARS or not value.isprintable() or _NOT_PLAIN.search(value):
        return None
    try:
        return _one_program(shlex.split(value))
    except ValueError:
        return None


def _one_program(words: list[str]) -> tuple[str, ...] | None:
    return tuple(words) if words and "=" not in words[0] else None


def commands_in(call: dict[str, Any]) -> list[list[str]] | None:
    """Every command that may be in what a call runs, in words; None if that is too long to be looked through.

    For rules that restrict: it rather sees a command too many. No shell is imitated, and a script that is run by its
    name is not read: this is no wall.
    """
    texts = list(_texts(call))
    if sum(map(len, texts)) > LOOKED_THROUGH_CHARS:
        return None
    return [words for text in texts for words in _pieces(text, NESTED)]


def _texts(call: dict[str, Any]) -> Iterator[str]:
    raw_input = call.get("rawInput")
    fields = raw_input if isinstance(raw_input, dict) else {}
    for name in ("command", "cmd"):
        value = fields.get(name)
        if isinstance(value, list):
            yield shlex.join(word for word in value if isinstance(word, str))
        elif isinstance(value, str):
            yield value
    title = call.get("title")
    if call.get("kind") == "execute" and isinstance(title, str):
        yield title


def _pieces(text: str, depth: int) -> Iterator[list[str]]:
    """The simple commands of a text, and of the words that may be texts of commands themselves."""
    try:
        whole = shlex.split(text, comments=False)
    except ValueError:
        whole = []
    nested = [word for word in whole if depth and word != text and re.search(r"\s|[;|&]", word)]
    for piece in _BETWEEN.split(text):
        words = _split(piece)
        while words and (words[0] in _BEFORE or _ASSIGNMENT.match(words[0])):
            words = _without_options(words[1:]) if words[0] in _BEFORE else words[1:]
        if words:
            yield words
    for word in nested:
        yield from _pieces(word, depth - 1)


def _split(piece: str) -> list[str]:
    try:
        return shlex.split(piece)
    except ValueError:  # a quote that the cut left open
        return piece.replace('"', " ").replace("'", " ").split()


def _without_options(words: list[str]) -> list[str]:
    """What follows `sudo -E` or `timeout 5`."""
    while words and (words[0].startswith("-") or words[0][:1].isdigit()):
        words = words[1:]
    return words
