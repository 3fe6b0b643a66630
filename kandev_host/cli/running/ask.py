"""What agents ask, at the terminal: shown in full and escaped. Enter alone gives nothing."""

from __future__ import annotations

import contextlib
import os
import sys
import termios
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import anyio

from kandev_host.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

REJECTS = ("reject_once", "reject_always")
DISMISSED = {"outcome": "cancel"}
DECLINED = {"outcome": "decline"}


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

    # --- permissions --------------------------------------------------------------------------------------------------

    async def ask(self, permission: Mapping[str, Any]) -> dict[str, Any]:
        """The payload of permission.respond, without the id. Waits for a line; cancelling it leaves nothing behind.

        It is bound to what was shown by the request's digest.
        """
        from kandev_host.cli.running.asked import lines_of

        options = [option for option in permission.get("options") or [] if isinstance(option, dict)]
        for text, style in lines_of(permission, options):
            self._say(text, style)
        seen = {"digest": permission["digest"]} if permission.get("digest") else {}
        while True:
            line = await self._line("Choose a number; r and a number remembers it for this task [Enter rejects]: ")
            if line is None or not line.strip():
                return seen | rejecting(options)
            answer = _chosen(line.strip(), options)
            if answer is not None:
                return seen | answer
            self._say(
                f"  There is no {line.strip()[:40]}; 1 to {len(options)}, r1 to r{len(options)}, or Enter.", "yellow"
            )

    # --- elicitations -------------------------------------------------------------------------------------------------

    async def fill(self, elicitation: Mapping[str, Any]) -> dict[str, Any]:
        """The payload of elicitation.respond, without the id. What was filled in is sent only after a last yes."""
        self._say(f"? The agent asks: {elicitation.get('message')}", "bold yellow")
        if elicitation.get("mode") == "url":
            return await self._address(elicitation)
        schema = elicitation.get("requested_schema") or {}
        content: dict[str, Any] = {}
        self._say("  What you fill in goes to the agent. /decline says no, /cancel leaves it.", "dim")
        for name, field in (schema.get("properties") or {}).items():
            ended = await self._field(name, field, name in (schema.get("required") or []), content)
            if ended is not None:
                return ended
        line = await self._line("Send this to the agent? y sends, n declines [Enter cancels]: ")
        return _yes_or_no(line) | ({"content": content} if _yes_or_no(line)["outcome"] == "accept" else {})

    async def _address(self, elicitation: Mapping[str, Any]) -> dict[str, Any]:
        self._say("  It wants you to open this address in a browser. Nothing opens it for you:")
        self._say(f"  {elicitation.get('url')}", "bold")
        return _yes_or_no(await self._line("Will you? y agrees, n declines [Enter cancels]: "))

    async def _field(
        self, name: str, field: Mapping[str, Any], required: bool, content: dict[str, Any]
    ) -> dict[str, Any] | None:
        """Fill in one field of `content`; the answer, if there is to be none."""
        from kandev_host.cli.running.form import NotUnderstood, described, value_of

        for text, style in described(name, field, required=required):
            self._say(text, style)
        default = field.get("default")
        shown = (
            f" [Enter: {str(default)[:80]}]" if default is not None else "" if required else " [Enter leaves it out]"
        )
        while True:
            line = await self._line(f"{name}{shown}: ")
            if line is None or line.strip() == "/cancel":
                return dict(DISMISSED)
            if line.strip() == "/decline":
                return dict(DECLINED)
            if not line.strip():
                if default is None and required:
                    self._say("  This field is required; /decline says no, /cancel leaves it.", "yellow")
                    continue
                if default is not None:
                    content[name] = default
                return None
            try:
                content[name] = value_of(field, line)
            except NotUnderstood as error:
                self._say(f"  {error}.", "yellow")
            else:
                return None

    # --- the terminal -------------------------------------------------------------------------------------------------

    def _say(self, text: str, style: str = "") -> None:
        from rich.text import Text

        self._console.print(Text(printable(text), style=style), soft_wrap=True)

    async def _line(self, question: str) -> str | None:
        from rich.text import Text

        descriptor = sys.stdin.fileno()
        # What was typed before the question was seen must not answer it.
        with contextlib.suppress(termios.error):
            termios.tcflush(descriptor, termios.TCIFLUSH)
        self._console.print(Text(printable(question), style="bold"), end="", soft_wrap=True)
        # No thread: a thread blocked in a read could be neither cancelled nor joined.
        await anyio.wait_readable(descriptor)
        read = os.read(descriptor, 4096)
        return read.decode("utf-8", "replace") if read else None


def _chosen(line: str, options: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """What a line such as `2` or `r2` answers; None if it is no such line."""
    remembers = line[:1].casefold() == "r"
    number = line[remembers:].strip()
    if not (number.isascii() and number.isdecimal() and 1 <= int(number[:9]) <= len(options)):
        return None
    answer = {"option_id": options[int(number[:9]) - 1]["optionId"]}
    return answer | {"remember": "task"} if remembers else answer


def _yes_or_no(line: str | None) -> dict[str, Any]:
    said = (line or "").strip().casefold()
    if said in ("y", "yes"):
        return {"outcome": "accept"}
    return dict(DECLINED if said in ("n", "no") else DISMISSED)
