"""queue.*: the prompts that wait for an agent"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kandev_host.protocol.actions.fields import Id, Position, Prompt, Request, Response


class QueueList(Request, frozen=True, kw_only=True):
    agent_id: Id


class QueueUpdate(Request, frozen=True, kw_only=True):
    """Other words, another place, or both, for a prompt that waits; a `position` beyond the end is the last."""

    prompt_id: Id
    prompt: Prompt | None = None
    position: Position | None = None


class QueueRemove(Request, frozen=True, kw_only=True):
    prompt_id: Id


class QueuedPrompt(Response, frozen=True, kw_only=True):
    """`prompt_id` is the id of its turn; `prompt` holds ACP content blocks."""

    prompt_id: str
    position: int
    prompt: list[dict[str, Any]]
    created_by: str
    created_at: datetime


class PromptsReply(Response, frozen=True, kw_only=True):
    """All that wait for the agent, the next one first."""

    prompts: list[QueuedPrompt]
