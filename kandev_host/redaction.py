"""No known secret is written or published: what the journal is given goes through here first (docs/security.md).

What a person's client sends to be kept (the words of tasks and boards, prompts) is theirs, and agents must get it
whole: those fields stay as they are. Of what they are asked to allow only known values are taken out (ASKED).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from kandev_host.events import Event
from kandev_host.interfaces import Append, Change, Commit, Put
from kandev_host.models import (
    AgentInstance,
    AgentTypeRow,
    AuditRow,
    Board,
    Column,
    HostState,
    PermissionRequest,
    PermissionRule,
    Receipt,
    Row,
    Task,
    Turn,
    Workspace,
)
from kandev_host.secrets import Redactor, known

R = TypeVar("R", bound=Row)
Fields = frozenset[str] | None
_encode = msgspec.json.Encoder().encode

_TASK = frozenset({"title", "description", "metadata", "repository_url", "branch"})
_BOARD = frozenset({"name", "description"})
# Fields of rows that a person's client wrote, or that decide what the host does.
PEOPLES: Mapping[type[Row], frozenset[str]] = {
    Task: _TASK,
    Board: _BOARD,
    Column: frozenset({"name"}),
    Turn: frozenset({"prompt"}),
    AgentTypeRow: frozenset({"description", "environment_vars", "default_options"}),
    Workspace: frozenset({"repository_url", "branch", "base_branch"}),
    HostState: frozenset({"value"}),
    # Who did what to what: only what is told besides may hold words of others.
    AuditRow: frozenset(AuditRow.__struct_fields__) - {"details"},
}
# What the host itself names rows by, where it stands: nobody's secret that has the same letters takes them away.
_IDS = frozenset({"id", "agent_id", "agent_instance_id", "board_id", "shell_id", "task_id", "turn_id"})
_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
# The same in what tells of them: in the objects, and lists of objects, at the top of a payload.
_TOLD: Mapping[str, frozenset[str]] = {
    "task": _TASK,
    "board": _BOARD,
    "column": frozenset({"name"}),
    "prompt": frozenset({"text", "prompt"}),
    "turn": frozenset({"prompt"}),
    "agent_type": frozenset({"description", "environment_vars", "default_options"}),
    "workspace": PEOPLES[Workspace],
}
PEOPLES_TOLD = {**_TOLD, **{f"{name}s": fields for name, fields in _TOLD.items()}}
# What was refused for good stays refused; a rule that allows, and holds a secret, matches nothing after a restart.
_REFUSED = frozenset({"path", "command"})
# Fields that show what is to be allowed: see `Redactor.of_values`.
_SHOWN = frozenset({"tool_call", "options"})
ASKED: Mapping[type[Row], frozenset[str]] = {PermissionRequest: _SHOWN}
ASKED_TOLD = {"permission": _SHOWN, "permissions": _SHOWN}
# Bytes that are no text of an agent's: pieces of shells' output, which went through a stream's own redactor before.
BEFORE = frozenset({"shell.output"})
_ROWS = (Put, Append)


def clean_commits(commits: Sequence[Commit]) -> Sequence[Commit]:
    """The same without secrets; what holds none is handed on as it is. Events are changed in place.

    All is searched at once: what holds nothing, which is nearly everything, costs a few passes over its bytes.
    """
    redactor = known.now
    texts: list[str] = []
    raws: list[bytes] = []
    own = known.any_own and any(_of_its_own(change) for commit in commits for change in commit.changes)
    for commit in commits:
        for change in commit.changes:
            if isinstance(change, Event):
                if change.text is None:
                    raws.append(change.payload)
                else:
                    texts.append(change.text)
            elif isinstance(change, _ROWS):
                raws.append(_encode(change.row))
    said = "\n".join(texts).encode("utf-8", "surrogatepass")
    if not own and not redactor.found(said) and not redactor.found_json(b"\n".join(raws)):
        return commits
    return [Commit([_clean(change) for change in commit.changes], commit.preconditions) for commit in commits]


def clean_event(event: Event) -> None:
    """The same of one event, in place."""
    if event.action not in BEFORE:
        _clean_event(event, known.of(event.agent_id, event.task_id))


def clean_payload(action: str, payload: bytes, *owners: str | None) -> bytes:
    """The JSON of a notification or an answer without secrets, also those of one agent; as it is if it holds none."""
    return _clean_payload(action, payload, known.of(*owners))


def _redactor_of(change: Change) -> Redactor:
    """With what was typed for the agent or the task that it is of."""
    if isinstance(change, Event):
        return known.of(change.agent_id, change.task_id)
    if not isinstance(change, _ROWS) or isinstance(change.row, AuditRow):
        return known.now
    row: Any = change.row
    agent = row.id if isinstance(row, AgentInstance) else getattr(row, "agent_id", None)
    task = row.id if isinstance(row, Task) else getattr(row, "task_id", None)
    return known.of(agent or getattr(row, "agent_instance_id", None), task)


def _of_its_own(change: Change) -> bool:
    redactor = _redactor_of(change)
    if redactor is known.now:
        return False
    if isinstance(change, Event):
        return redactor.found_json(bytes(change.payload))
    return isinstance(change, _ROWS) and redactor.found_json(_encode(change.row))


def _clean(change: Change) -> Change:
    redactor = _redactor_of(change)
    if isinstance(change, Event):
        _clean_event(change, redactor)
    elif isinstance(change, Put) and redactor.found_json(_encode(change.row)):
        return Put(_clean_row(change.row, redactor))
    elif isinstance(change, Append) and redactor.found_json(_encode(change.row)):
        return Append(_clean_row(change.row, redactor), change.key)
    return change


def _clean_event(event: Event, redactor: Redactor) -> None:
    payload = bytes(event.payload)
    clean = _clean_payload(event.action, payload, redactor)
    if clean is not payload:
        event.payload = Raw(clean)


def _clean_payload(action: str, payload: bytes, redactor: Redactor) -> bytes:
    if not redactor.found_json(payload):
        return payload
    try:
        before = msgspec.json.decode(payload)
        # Only the host writes the top of a payload. What an agent says is below it, and has no fields of people.
        acp = action.startswith("acp.")
        told, asked = ({}, {}) if acp else (PEOPLES_TOLD, ASKED_TOLD)
        if not isinstance(before, dict):
            return redactor.clean_json(payload)
        after = {
            key: value if _is_id(key, value) else _below(value, told.get(key), asked.get(key), redactor)
            for key, value in before.items()
        }
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return redactor.clean_json(payload)
    return payload if after == before else _encode(after)


def _below(value: Any, peoples: Fields, asked: Fields, redactor: Redactor) -> Any:
    if peoples is None and asked is None:
        return _cleaned(redactor, value)
    if isinstance(value, list):
        return [_below(item, peoples, asked, redactor) for item in value]
    if not isinstance(value, dict):
        return _cleaned(redactor, value)
    return _fields(value, peoples or frozenset(), asked or frozenset(), redactor)


def _fields(
    value: Mapping[str, Any], peoples: frozenset[str], asked: frozenset[str], redactor: Redactor
) -> dict[str, Any]:
    return {
        key: item
        if key in peoples or _is_id(key, item)
        else _cleaned(redactor.of_values if key in asked else redactor, item)
        for key, item in value.items()
    }


def _is_id(key: str, value: Any) -> bool:
    return key in _IDS and isinstance(value, str) and _UUID.fullmatch(value) is not None


def _clean_row(row: R, redactor: Redactor) -> R:
    """What no longer fits a field (a word of the host's own that is somebody's password too) stays in it."""
    if isinstance(row, Receipt):
        reply = row.reply
        clean = None if reply is None else _clean_payload(row.action, reply.encode(), redactor).decode()
        return row if clean == reply else msgspec.structs.replace(row, reply=clean)
    peoples = PEOPLES.get(type(row), frozenset())
    if isinstance(row, PermissionRule) and row.effect == "deny":
        peoples = _REFUSED
    before = msgspec.to_builtins(row)
    after = _fields(before, peoples, ASKED.get(type(row), frozenset()), redactor)
    for key, value in before.items():
        if after[key] != value and not _fits(type(row), {**before, key: after[key]}):
            after[key] = value
    return row if after == before else msgspec.convert(after, type(row))


def _cleaned(redactor: Redactor, value: Any) -> Any:
    """JSON without secrets; what is nested too deeply to look through is left out."""
    try:
        return redactor.clean_value(value)
    except RecursionError:
        return [] if isinstance(value, list) else {}


def _fits(kind: type[Row], fields: Mapping[str, Any]) -> bool:
    try:
        msgspec.convert(fields, kind)
    except msgspec.ValidationError:
        return False
    return True
