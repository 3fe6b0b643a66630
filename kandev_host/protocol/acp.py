"""The ACP messages and fields that the host reads (protocol version 1). Everything else survives untouched, as Raw.

All structs are tolerant: unknown fields are ignored, optional ones may be null. Enumerations stay open strings.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

VERSION = 1
STOP_REASONS = ("end_turn", "max_tokens", "max_turn_requests", "refusal", "cancelled")

Json = dict[str, Any]


class Camel(msgspec.Struct, rename="camel", kw_only=True):
    """Base: snake_case here, camelCase on the wire."""


class InitializeResult(Camel):
    protocol_version: int
    agent_capabilities: Json | None = None
    agent_info: Json | None = None
    auth_methods: list[Json] | None = None


class OpenedResult(Camel):
    """Of session/load and session/resume."""

    modes: Json | None = None
    config_options: list[Json] | None = None


class NewSessionResult(Camel):
    session_id: str
    modes: Json | None = None
    config_options: list[Json] | None = None


class PromptResult(Camel):
    """`stop_reason` is absent in an agent that breaks the specification; `usage` and `meta` stay as sent."""

    stop_reason: str | None = None
    usage: Json | None = None
    meta: Json | None = msgspec.field(default=None, name="_meta")


class SetConfigOptionResult(Camel):
    config_options: list[Json] | None = None


class SessionUpdate(Camel, gc=False):
    """Params of session/update. `update` is the official update, unread."""

    session_id: str
    update: Raw
    meta: Raw | UnsetType = msgspec.field(default=UNSET, name="_meta")


class CancelRequest(Camel):
    """Params of `$/cancel_request`."""

    request_id: int | str | None


class PermissionOption(Camel):
    """`kind` is allow_once, allow_always, reject_once or reject_always, or something newer."""

    option_id: str
    name: str = ""
    kind: str = ""


class PermissionParams(Camel):
    """Params of session/request_permission. `tool_call` is an update of the call: often only its id."""

    session_id: str
    tool_call: Json
    options: list[Json]


class ElicitationParams(Camel):
    """Params of elicitation/create. `elicitation_id` and `url` are of the mode url, `requested_schema` of form."""

    mode: str
    message: str
    tool_call_id: str | None = None
    requested_schema: Json | None = None
    elicitation_id: str | None = None
    url: str | None = None


class ElicitationComplete(Camel):
    """Params of elicitation/complete."""

    elicitation_id: str


class Text(msgspec.Struct, gc=False):
    """A content block as far as it is text."""

    type: str = ""
    text: str = ""


class Variant(Camel, tag_field="sessionUpdate"):
    """Base of the variants of an update, told apart by `sessionUpdate`."""


class Chunk(Variant, gc=False):
    """A piece of a message: one content block. `message_id` is opaque; a new one is a new message."""

    content: Text = msgspec.field(default_factory=Text)
    message_id: str | None = None
    meta: Raw | UnsetType = msgspec.field(default=UNSET, name="_meta")


class UserMessageChunk(Chunk, tag="user_message_chunk"):
    pass


class AgentMessageChunk(Chunk, tag="agent_message_chunk"):
    pass


class AgentThoughtChunk(Chunk, tag="agent_thought_chunk"):
    pass


class ToolVariant(Variant):
    """Both tool variants are upserts: an absent (or null) field leaves what was known."""

    tool_call_id: str
    title: str | None = None
    kind: str | None = None
    status: str | None = None
    raw_input: Raw | UnsetType = UNSET
    locations: list[Json] | None = None
    content: Raw | UnsetType = UNSET


class ToolCall(ToolVariant, tag="tool_call"):
    pass


class ToolCallUpdate(ToolVariant, tag="tool_call_update"):
    pass


class PlanEntry(Camel):
    content: str = ""
    status: str = "pending"


class Plan(Variant, tag="plan"):
    entries: list[PlanEntry]


class AvailableCommandsUpdate(Variant, tag="available_commands_update"):
    available_commands: list[Json]


class CurrentModeUpdate(Variant, tag="current_mode_update"):
    current_mode_id: str


class ConfigOptionUpdate(Variant, tag="config_option_update"):
    config_options: list[Json]


class SessionInfoUpdate(Variant, tag="session_info_update"):
    """An absent title leaves it, null clears it."""

    title: str | UnsetType | None = UNSET
    meta: Raw | UnsetType = msgspec.field(default=UNSET, name="_meta")


class Cost(Camel):
    """Cumulative for the session; ISO 4217 currency."""

    amount: Decimal
    currency: str


class UsageUpdate(Variant, tag="usage_update"):
    """Context tokens now, the size of the window, the session's cost so far."""

    used: int | None = None
    size: int | None = None
    cost: Cost | None = None


Known = (
    UserMessageChunk
    | AgentMessageChunk
    | AgentThoughtChunk
    | ToolCall
    | ToolCallUpdate
    | Plan
    | AvailableCommandsUpdate
    | CurrentModeUpdate
    | ConfigOptionUpdate
    | SessionInfoUpdate
    | UsageUpdate
)


class Tag(Camel):
    """An update of which only the variant's name can be read."""

    session_update: str = ""


def client_capabilities(*, files: bool = False, terminals: bool = False) -> Json:
    """What the host offers to an agent: what is not built is not offered.

    Terminal log-ins are shown to people, not run. Without files and terminals an agent uses its own, in its jail.
    """
    return {
        "fs": {"readTextFile": files, "writeTextFile": files},
        "terminal": terminals,
        "auth": {"terminal": True},
        "session": {"configOptions": {"boolean": {}}},
        "elicitation": {"form": {}, "url": {}},
    }


def initialize_params(version: str, capabilities: Json) -> Json:
    """What the host says of itself; `capabilities` is what it offers."""
    return {
        "protocolVersion": VERSION,
        "clientCapabilities": capabilities,
        "clientInfo": {"name": "kandev-host", "title": "kandev-host", "version": version},
    }


def text_block(text: str) -> Json:
    """A prompt's content block; text is always allowed."""
    return {"type": "text", "text": text}


def selected(option_id: str) -> Json:
    """The result of session/request_permission when an option was chosen."""
    return {"outcome": {"outcome": "selected", "optionId": option_id}}


def cancelled() -> Json:
    """The result of session/request_permission when none was chosen."""
    return {"outcome": {"outcome": "cancelled"}}
