"""search.query"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from kandev_host.protocol.actions.fields import Id, Request, Response

SearchKind = Literal["task", "message", "log", "command"]


class SearchQuery(Request, frozen=True, kw_only=True):
    """Words that must all occur; "several words" in quotes are a phrase; a trailing * is a prefix. Any text is valid.

    Without `kinds`, all of them. Messages are prompts and the last words of turns.
    """

    text: Annotated[str, Meta(min_length=1, max_length=2000)]
    kinds: Annotated[list[SearchKind], Meta(max_length=4)] = field(default_factory=list)
    task_id: Id | None = None
    limit: Annotated[int, Meta(ge=1, le=500)] = 20


class SearchHit(Response, frozen=True, kw_only=True):
    """`snippet` marks the matches with [ and ]; a higher `score` is a better match, among hits of its kind."""

    kind: SearchKind
    id: str
    task_id: str | None
    snippet: str
    score: float


class SearchReply(Response, frozen=True, kw_only=True):
    hits: list[SearchHit]
