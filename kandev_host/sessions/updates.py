"""From official updates to the six acp notifications: exactly one each, the update itself unchanged under `update`.

The flat fields are the Kandev plan's; they repeat what is useful of the update, and never more than 32 Ki characters.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from msgspec import UNSET, Raw

from kandev_host.events import Event
from kandev_host.models import AgentInstance, new_id, now
from kandev_host.protocol import acp
from kandev_host.protocol.notifications import (
    ErrorPayload,
    LogMetadata,
    LogPayload,
    Payload,
    ProgressPayload,
    StatusPayload,
)
from kandev_host.secrets import KnownOf, Redactor
from kandev_host.sessions.commands import clean, command_in
from kandev_host.sessions.policy import TRUNCATED

MESSAGE_CHARS = 32 << 10
HEADS_KEPT = 16
WORD_CHARS = 100  # of a kind, a status
# What is around the text in an update that has nothing else, also with a space behind each sign of JSON.
FRAME_BYTES = len('{"sessionUpdate": "", "content": {"type": "text", "text": }}')
CHUNKS: dict[type, str] = {
    acp.AgentMessageChunk: "agent_message_chunk",
    acp.AgentThoughtChunk: "agent_thought_chunk",
    acp.UserMessageChunk: "user_message_chunk",
}
_tag = msgspec.json.Decoder(acp.Tag)
_encode = msgspec.json.Encoder().encode
_NOTHING = Raw(b"[]")
_HeadKey = tuple[str, str, str | None, Redactor]


class Voice:
    """Makes the acp events of one agent."""

    def __init__(self, agent: AgentInstance) -> None:
        self._agent_id = agent.id
        self._task_id = agent.task_id
        self._heads: dict[_HeadKey, tuple[bytes, int]] = {}
        self.secrets = KnownOf(agent.id, agent.task_id)

    def event(self, action: str, payload: Payload, at: datetime | None = None, *, by_agent: bool = True) -> Event:
        return Event(
            action=action,
            payload=Raw(_encode(payload)),
            actor=self._agent_id if by_agent else "host",
            task_id=self._task_id,
            agent_id=self._agent_id,
            turn_id=payload.turn_id,
            created_at=at or now(),
        )

    def ids(self, turn_id: str | None, session_id: str | None) -> dict[str, Any]:
        return {"agent_id": self._agent_id, "task_id": self._task_id, "turn_id": turn_id, "session_id": session_id}

    def chunk(self, params: acp.SessionUpdate, chunk: acp.Chunk, kind: str, turn_id: str | None, at: datetime) -> Event:
        """A piece of a message. Its payload is a LogPayload joined from parts that seldom change: twice as fast."""
        text = chunk.content.text
        if chunk.message_id is not None or len(text) > MESSAGE_CHARS or params.meta is not UNSET:
            return self.event("acp.log", self._long_chunk(params, chunk, kind, turn_id), at)
        key = (params.session_id, kind, turn_id, self.secrets.now)
        found = self._heads.get(key)
        if found is None:
            found = self._new_head(key)
        head, frame_bytes = found
        quoted = _encode(text)
        # Nothing is in such an update but its text: then that is all in which a secret can be.
        bare = len(params.update) - len(quoted) <= frame_bytes and chunk.content.type == "text"
        return Event(
            action="acp.log",
            payload=Raw(b"".join((head, quoted, b',"update":', params.update, b"}"))),
            id=new_id(),
            actor=self._agent_id,
            task_id=self._task_id,
            agent_id=self._agent_id,
            turn_id=turn_id,
            created_at=at,
            text=text if bare else None,
        )

    def _new_head(self, key: _HeadKey) -> tuple[bytes, int]:
        """And how much is around the text of an update that has nothing else; 0 if a secret is in the session's id."""
        session_id, kind, turn_id, redactor = key
        flat = {**self.ids(turn_id, session_id), "level": "info", "metadata": {"type": kind}}
        if len(self._heads) >= HEADS_KEPT:
            self._heads.clear()
        encoded = _encode(flat)
        found = self._heads[key] = (
            encoded[:-1] + b',"message":',
            0 if redactor.found_json(encoded) else FRAME_BYTES + len(kind),
        )
        return found

    def _long_chunk(self, params: acp.SessionUpdate, chunk: acp.Chunk, kind: str, turn_id: str | None) -> LogPayload:
        text = chunk.content.text
        return LogPayload(
            **self.ids(turn_id, params.session_id),
            message=text[:MESSAGE_CHARS],
            metadata=LogMetadata(type=kind, message_id=chunk.message_id, truncated=len(text) > MESSAGE_CHARS),
            update=params.update,
            meta=params.meta,
        )

    def tool(
        self, params: acp.SessionUpdate, call: acp.ToolVariant, known: ToolState, turn_id: str | None, at: datetime
    ) -> Event:
        """A tool call or its update, with what was known of the call before."""
        return self.event(
            "acp.log",
            LogPayload(
                **self.ids(turn_id, params.session_id),
                level="warning" if call.status == "failed" else "info",
                message=known.title or "",
                metadata=known.metadata(variant_of(call), call.tool_call_id),
                update=params.update,
                meta=params.meta,
            ),
            at,
        )

    def closed_tool(self, session_id: str, call_id: str, known: ToolState, turn_id: str | None) -> Event:
        """The host's own end of a call that its agent left open when the turn ended."""
        update = {"sessionUpdate": "tool_call_update", "toolCallId": call_id, "status": "failed"}
        metadata = msgspec.structs.replace(known.metadata("tool_call_update", call_id), status="failed", by_host=True)
        payload = LogPayload(
            **self.ids(turn_id, session_id),
            level="warning",
            message=f"{known.title or call_id}: left open when the turn ended",
            metadata=metadata,
            update=Raw(_encode(update)),
        )
        return self.event("acp.log", payload, by_agent=False)

    def plan(self, params: acp.SessionUpdate, plan: acp.Plan, turn_id: str | None, at: datetime) -> Event:
        entries = plan.entries
        done = sum(entry.status == "completed" for entry in entries)
        current = next((entry.content for entry in entries if entry.status == "in_progress"), None)
        payload = ProgressPayload(
            **self.ids(turn_id, params.session_id),
            progress=100 * done // len(entries) if entries else 0,
            message=(current or f"{done} of {len(entries)} steps done")[:MESSAGE_CHARS],
            update=params.update,
            meta=params.meta,
        )
        return self.event("acp.progress", payload, at)

    def other(self, params: acp.SessionUpdate, kind: str, turn_id: str | None, at: datetime) -> Event:
        """Commands, and every variant that the host does not know (or cannot read)."""
        payload = LogPayload(
            **self.ids(turn_id, params.session_id),
            metadata=LogMetadata(type=kind),
            update=params.update,
            meta=params.meta,
        )
        return self.event("acp.log", payload, at)

    def status(self, agent: AgentInstance, turn_id: str | None, *, session_id: str | None) -> Event:
        """What the agent is and does now, as the host sees it."""
        payload = StatusPayload(
            **self.ids(turn_id, session_id),
            status=agent.status,
            activity=agent.activity,
            stalled_at=agent.stalled_at,
        )
        return self.event("acp.status", payload, by_agent=False)

    def session_state(
        self, params: acp.SessionUpdate, agent: AgentInstance, turn_id: str | None, at: datetime
    ) -> Event:
        """A mode, option, title or usage update."""
        payload = StatusPayload(
            **self.ids(turn_id, params.session_id),
            status=agent.status,
            activity=agent.activity,
            stalled_at=agent.stalled_at,
            update=params.update,
            meta=params.meta,
        )
        return self.event("acp.status", payload, at)

    def error(self, code: str, message: str, turn_id: str | None, session_id: str | None) -> Event:
        payload = ErrorPayload(**self.ids(turn_id, session_id), code=code, message=message[:MESSAGE_CHARS])
        return self.event("acp.error", payload, by_agent=False)


class ToolState(msgspec.Struct, kw_only=True):
    """What is known of a tool call: both variants are upserts, in any order."""

    title: str | None = None
    kind: str | None = None
    status: str | None = None
    raw_input: Raw | None = None
    locations: Raw | None = None
    content: Raw | None = None
    too_large: frozenset[str] = frozenset()
    command_known: bool = False

    def merge(self, call: acp.ToolVariant) -> None:
        self.title = self.title if call.title is None else call.title[:MESSAGE_CHARS]
        self.kind = self.kind if call.kind is None else call.kind[:WORD_CHARS]
        self.status = self.status if call.status is None else call.status[:WORD_CHARS]
        if call.locations is not None:
            self.locations = self._kept("locations", Raw(_encode(call.locations)))
        if call.raw_input is not UNSET:
            self.raw_input = self._kept("rawInput", call.raw_input)
        if call.content is not UNSET and bytes(call.content) != b"null":
            # Only what a diff may be in: contents are mostly output, and then nobody decides by them.
            self.content = self._kept("content", call.content if b'"diff"' in bytes(call.content) else _NOTHING)

    def _kept(self, field: str, value: Raw) -> Raw | None:
        """What is bounded is kept. Of anything else it is known that it is too large: never what was there before."""
        if len(bytes(value)) <= MESSAGE_CHARS:
            self.too_large -= {field}
            return value.copy()
        self.too_large |= {field}
        return None

    def new_command(self, call: acp.ToolVariant) -> str | None:
        """What an `execute` call runs, as soon as that is known (at its end at the latest), and only once."""
        if self.kind != "execute" or self.command_known:
            return None
        raw = self.raw_input if call.raw_input is UNSET else call.raw_input
        found = command_in(raw) if raw is not None else None
        if found is None and not self.open:
            found = clean((self.title or "").partition(" [current working directory ")[0])
        self.command_known = found is not None
        return found

    def metadata(self, variant: str, call_id: str) -> LogMetadata:
        return LogMetadata(type=variant, tool_call_id=call_id, title=self.title, kind=self.kind, status=self.status)

    def shown(self) -> dict[str, Any]:
        """What is known, as ACP spells it: for a permission request that holds hardly more than the call's id."""
        known: dict[str, Any] = {"title": self.title, "kind": self.kind, "status": self.status}
        known |= _decoded(locations=self.locations, rawInput=self.raw_input, content=self.content)
        return {key: value for key, value in known.items() if value is not None}

    def asked(self, call: dict[str, Any], before: ToolState) -> dict[str, Any]:
        """What a permission request is about: its own words, over what was known of the call when it came (`before`),
        under what the agent has said since."""
        known, then = self.shown(), before.shown()
        said = {key: value for key, value in call.items() if value is not None}
        since = {key: value for key, value in known.items() if then.get(key) != value}
        unseen = self.too_large - (said.keys() if self.too_large == before.too_large else set())
        return {**known, **said, **since, **({TRUNCATED: True} if unseen else {})}

    @property
    def open(self) -> bool:
        return self.status not in {"completed", "failed"}


def effects_told(call: acp.ToolVariant) -> dict[str, Any] | None:
    """What an update of a call says of what the call does, as ACP spells it; None if it says nothing of that."""
    sent = {"rawInput": call.raw_input, "content": call.content}
    told = _decoded(**{key: value for key, value in sent.items() if value is not UNSET})
    if call.locations is not None:
        told["locations"] = call.locations
    return told or None


def _decoded(**values: Raw | None) -> dict[str, Any]:
    return {key: msgspec.json.decode(value) for key, value in values.items() if value is not None}


def name_of(update: Raw) -> str:
    """What an update that cannot be read calls itself; "" if not even that can be read."""
    try:
        return _tag.decode(update).session_update[:MESSAGE_CHARS]
    except (msgspec.DecodeError, RecursionError):
        return ""


def variant_of(update: acp.Variant) -> str:
    """The official name of a variant."""
    return str(update.__struct_config__.tag)
