"""A permission request at the terminal: shown in full and escaped; Enter alone rejects."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import termios
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import anyio

from kandev_host.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

INPUT_SHOWN_CHARS = 4000
REJECTS = ("reject_once", "reject_always")


def rejecting(options: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The answer that refuses: an option by its kind, never by its place; if none refuses, the outcome `cancelled`."""
    for kind in REJECTS:
        for option in options:
            if option.get("kind") == kind:
                return {"option_id": option["optionId"]}
    return {"outcome": "cancelled"}


class Asker:
    """Asks on a terminal. `interactive` is False where nobody can answer: every request is then rejected."""

    def __init__(self, console: Console, *, interactive: bool) -> None:
        self._console = console
        self.interactive = interactive

    async def ask(self, permission: Mapping[str, Any]) -> dict[str, Any]:
        """The payload of permission.respond, without the id. Waits for a line; cancelling it leaves nothing behind."""
        options = [option for option in permission.get("options") or [] if isinstance(option, dict)]
        self._show(permission, options)
        while True:
            line = await self._line("Choose a number [Enter rejects]: ")
            if line is None or not line.strip():
                return rejecting(options)
            if line.strip().isdecimal() and 1 <= int(line) <= len(options):
                return {"option_id": options[int(line) - 1]["optionId"]}
            self._say(f"  There is no {line.strip()[:40]}; 1 to {len(options)}, or Enter.", "yellow")

    def _show(self, permission: Mapping[str, Any], options: Sequence[Mapping[str, Any]]) -> None:
        call = permission.get("tool_call") or {}
        self._say(f"? The agent asks: {call.get('title') or call.get('toolCallId')}", "bold yellow")
        self._say(f"  kind (as the agent says): {call.get('kind') or 'not said'}")
        shown = _pretty(call.get("rawInput"))
        for line in shown[:INPUT_SHOWN_CHARS].splitlines():
            self._say(f"  | {line}", "dim")
        if len(shown) > INPUT_SHOWN_CHARS:
            self._say(f"  | … {len(shown) - INPUT_SHOWN_CHARS} more characters", "yellow")
        for location in call.get("locations") or []:
            if isinstance(location, dict):
                self._say(f"  at {location.get('path')}")
        for number, option in enumerate(options, start=1):
            self._say(f"  {number}) {option.get('name')}  [{option.get('kind')}]")

    def _say(self, text: str, style: str = "") -> None:
        from rich.text import Text

        self._console.print(Text(printable(text), style=style), soft_wrap=True)

    async def _line(self, question: str) -> str | None:
        from rich.text import Text

        descriptor = sys.stdin.fileno()
        # What was typed before the question was seen must not answer it.
        with contextlib.suppress(termios.error):
            termios.tcflush(descriptor, termios.TCIFLUSH)
        self._console.print(Text(question, style="bold"), end="")
        # No thread: a thread blocked in a read could be neither cancelled nor joined.
        await anyio.wait_readable(descriptor)
        read = os.read(descriptor, 4096)
        return read.decode("utf-8", "replace") if read else None


def _pretty(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "(none given)" if value is None else json.dumps(value, indent=2, ensure_ascii=False)
