"""elicitation.list and elicitation.respond."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from kandev_host.models import Elicitation, ElicitationState
from kandev_host.protocol.actions.fields import Id, PageRequest, Request, Response

FieldName = Annotated[str, Meta(max_length=255)]
Value = (
    Annotated[str, Meta(max_length=65_536)]
    | int
    | float
    | bool
    | Annotated[list[Annotated[str, Meta(max_length=65_536)]], Meta(max_length=1000)]
)


class ElicitationList(PageRequest, frozen=True, kw_only=True):
    agent_id: Id | None = None
    task_id: Id | None = None
    state: ElicitationState | None = None


class ElicitationRespond(Request, frozen=True, kw_only=True):
    """`content`, by the names of the form's fields, goes with `accept` of a form; the host does not keep it."""

    elicitation_id: Id
    outcome: Literal["accept", "decline", "cancel"]
    content: Annotated[dict[FieldName, Value], Meta(max_length=64)] | None = None


class ElicitationsReply(Response, frozen=True, kw_only=True):
    """Oldest first."""

    elicitations: list[Elicitation]
    next_cursor: str | None = None


class ElicitationReply(Response, frozen=True, kw_only=True):
    elicitation: Elicitation
