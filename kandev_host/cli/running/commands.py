"""What a line means that is typed at an agent: a prompt, or a command that begins with a slash."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any, Literal

import msgspec

HELP = (
    "A line is a prompt. /cancel cancels the turn, /queue shows the prompts that wait, /option ID VALUE sets an option,"
    " /stop ends the agent, /detach leaves it running; //text is a prompt that begins with a slash."
)


class Typed(msgspec.Struct, frozen=True):
    """What is to be done: an `action` with its payload beside the agent's id, a word to the person, or to leave."""

    does: Literal["ask", "tell", "detach", "nothing"]
    action: str = ""
    payload: Any = None
    told: str = ""


def understood(line: str) -> Typed:
    """What the person wants."""
    text = line.strip()
    if not text:
        return Typed("nothing")
    if not text.startswith("/") or text.startswith("//"):
        return Typed("ask", "agent.prompt", {"prompt": line.replace("//", "/", 1) if text.startswith("//") else line})
    try:
        name, *words = shlex.split(text[1:]) or [""]
    except ValueError as error:
        return Typed("tell", told=f"Not understood: {error}. {HELP}")
    command = _COMMANDS.get(name)
    if command is None:
        return Typed("tell", told=f"There is no /{name}. {HELP}" if name != "help" else HELP)
    return command(words)


def _plain(action: str) -> Callable[[list[str]], Typed]:
    return lambda _words: Typed("ask", action, {})


def _option(words: list[str]) -> Typed:
    if len(words) < 2:
        return Typed("tell", told="Give an option and its value, as in: /option model opus")
    value: str | bool = " ".join(words[1:])
    return Typed("ask", "agent.set_option", {"option_id": words[0], "value": _BOOLEANS.get(str(value), value)})


_BOOLEANS = {"true": True, "false": False}
_COMMANDS: dict[str, Callable[[list[str]], Typed]] = {
    "cancel": _plain("agent.cancel"),
    "stop": _plain("agent.stop"),
    "queue": _plain("queue.list"),
    "option": _option,
    "detach": lambda _words: Typed("detach"),
}
