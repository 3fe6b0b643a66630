"""The sessions that an agent itself tells of (ACP: session/list), as far as they can be used."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Raw

from kandev_host.errors import AgentError
from kandev_host.protocol.acp import Camel, Json

CURSOR_CHARS = 1900
TEXT_CHARS = 500


class ListedSession(Camel):
    session_id: Annotated[str, Meta(min_length=1, max_length=1024)]
    cwd: str | None = None
    title: str | None = None
    updated_at: str | None = None


class ListResult(Camel):
    sessions: list[ListedSession]
    next_cursor: Annotated[str, Meta(max_length=CURSOR_CHARS)] | None = None


def read_list(raw: Raw) -> ListResult:
    """Raises `AgentError`."""
    try:
        return msgspec.json.decode(raw, type=ListResult)
    except (msgspec.DecodeError, RecursionError) as error:
        raise AgentError(f"The agent's answer to session/list cannot be used: {error}") from error


def offers(capabilities: Json | None, what: str) -> bool:
    """Does an agent with these capabilities offer session/WHAT?"""
    sessions = (capabilities or {}).get("sessionCapabilities")
    return isinstance(sessions, dict) and sessions.get(what) is not None
