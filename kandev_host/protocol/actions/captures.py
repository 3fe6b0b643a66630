"""agent.capture"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from kandev_host.protocol.actions.fields import Id, Request, Response


class AgentCapture(Request, frozen=True, kw_only=True):
    """From the line that begins at `offset` or after it, lines of together `limit_bytes`; one at least, however long.

    To read on, ask with the `next_offset` of the answer; to begin, with 0.
    """

    agent_id: Id
    offset: Annotated[int, Meta(ge=0, le=1 << 53)] = 0
    limit_bytes: Annotated[int, Meta(ge=1, le=262_144)] = 65_536


class CaptureReply(Response, frozen=True, kw_only=True):
    """Oldest first; no lines if there are no more yet. Each is JSON text: {"at", "dir": "in" | "out" | "err", "line"}.

    `line` is what went over the pipe: JSON as it came, or a string. Secrets that the host knows are replaced by
    "[redacted]". `cut_bytes` beside it says how much of a line was left out; `dropped_bytes` in its place, that so much
    was not captured. `dropped_bytes` of the answer were captured, and are not kept any more.
    """

    lines: list[str]
    next_offset: int
    dropped_bytes: int
