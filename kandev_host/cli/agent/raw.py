"""What went over an agent's pipes, line by line."""

from __future__ import annotations

import re

import anyio
import click

from kandev_host.cli.asking import Remote
from kandev_host.cli.output import emit

LIVE = ("PENDING", "STARTING", "RUNNING")
PAGE_BYTES = 262_144
LOOK_AGAIN_S = 0.5
_NOT_PLAIN = re.compile(r"[^ -~]")


async def show_capture(remote: Remote, agent_id: str, *, follow: bool) -> None:
    """All that is kept; with `follow`, also what comes, until the agent has ended. Ctrl-C ends it."""
    offset = 0
    while True:
        live = follow and (await remote.call("agent.status", agent_id=agent_id))["status"] in LIVE
        while True:
            reply = await remote.call("agent.capture", agent_id=agent_id, offset=offset, limit_bytes=PAGE_BYTES)
            if reply["dropped_bytes"]:
                emit({"dropped_bytes": reply["dropped_bytes"], "reason": "not kept any more"})
            for line in reply["lines"]:
                click.echo(ascii_json(line))
            offset = reply["next_offset"]
            if not reply["lines"]:
                break
        if not live:
            return
        await anyio.sleep(LOOK_AGAIN_S)


def ascii_json(text: str) -> str:
    """The same JSON in ASCII: a terminal obeys some of what JSON leaves unescaped, such as U+009B."""
    return text if text.isascii() and text.isprintable() else _NOT_PLAIN.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:  # JSON has these between its values only
        return " "
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
