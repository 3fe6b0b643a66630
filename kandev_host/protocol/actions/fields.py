"""What the fields of requests share: bounded strings and numbers, pages, versions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from kandev_host.models import AgentStatus, LogLevel, PermissionState, TaskState

__all__ = [
    "AgentName", "AgentStatus", "AllowList", "Branch", "Cursor", "Description", "Id", "Limit", "LogLevel", "Metadata",
    "Name", "OptionId", "OptionValue", "OptionValues", "PageRequest", "PermissionState", "Position", "Priority",
    "Prompt", "Reason", "RepositoryUrl", "Request", "Response", "Seq", "SettingNames", "TaskState", "Title", "Topic",
    "Unset", "Version", "WipLimit",
]  # fmt: skip

PROMPT_LIMIT_CHARS = 512 << 10
DESCRIPTION_LIMIT_CHARS = 256 << 10

_NOT_BLANK = r"\S"
_ENTRY = r"^(@[a-z0-9-]+|(\*\.)?[^\s\x00-\x1f\x7f@*/:\[\]]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?)$"
_TOPIC = r"^(\*|(task|board|agent|shell):[^\s]{1,128})$"
FORMS = {
    _NOT_BLANK: "and not blank",
    _ENTRY: "a name, *.name, name:port, an address, 127.0.0.1:PORT or @preset",
    _TOPIC: "either * or one of task:ID, board:ID, agent:ID, shell:ID",
}
"""What a pattern asks for, in words: nobody should have to read it in an error."""

Unset = msgspec.UnsetType

Id = Annotated[str, Meta(min_length=1, max_length=128)]
Name = Annotated[str, Meta(min_length=1, max_length=255, pattern=_NOT_BLANK)]
Title = Annotated[str, Meta(min_length=1, max_length=500, pattern=_NOT_BLANK)]
Description = Annotated[str, Meta(max_length=DESCRIPTION_LIMIT_CHARS)]
AgentName = Annotated[str, Meta(min_length=1, max_length=100)]
RepositoryUrl = Annotated[str, Meta(min_length=1, max_length=2000)]
Branch = Annotated[str, Meta(min_length=1, max_length=255)]
Reason = Annotated[str, Meta(max_length=2000)]
Priority = Annotated[int, Meta(ge=0, le=10)]
Position = Annotated[int, Meta(ge=0, le=1_000_000)]
WipLimit = Annotated[int, Meta(ge=1, le=10_000)]
Version = Annotated[int, Meta(ge=1, le=(1 << 63) - 1)]
Seq = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Limit = Annotated[int, Meta(ge=1, le=500)]
Cursor = Annotated[str, Meta(min_length=1, max_length=2048)]
Metadata = dict[Annotated[str, Meta(min_length=1, max_length=255)], Any]
OptionId = Annotated[str, Meta(min_length=1, max_length=255)]
OptionValue = bool | Annotated[str, Meta(min_length=1, max_length=1000)]
OptionValues = Annotated[dict[OptionId, OptionValue], Meta(max_length=100)]
Topic = Annotated[str, Meta(pattern=_TOPIC, max_length=160)]
AllowList = Annotated[list[Annotated[str, Meta(min_length=1, max_length=300, pattern=_ENTRY)]], Meta(max_length=64)]
SettingNames = Annotated[list[AgentName], Meta(max_length=32)]
Prompt = (
    Annotated[str, Meta(min_length=1, max_length=PROMPT_LIMIT_CHARS)]
    | Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=100)]
)
Encoding = Literal["utf-8", "base64"]


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all requests: an unknown field is a VALIDATION_ERROR."""


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all responses; unknown is null."""


class PageRequest(Request, frozen=True, kw_only=True):
    """A list is asked for in pages: `cursor` is the `next_cursor` of the page before."""

    limit: Limit = 100
    cursor: Cursor | None = None
