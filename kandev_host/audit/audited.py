"""What of a commit is audited: one table, by the names of events and the kinds of rows.

Whatever records such a change is audited by that, in the same transaction, whoever it is. What agents say is posted to
the journal, and never comes here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from kandev_host.audit.acting import text
from kandev_host.events import Event
from kandev_host.interfaces import Change, Put
from kandev_host.models import (
    LIVE_STATUSES,
    AgentInstance,
    AuditKind,
    AuditRow,
    Elicitation,
    PermissionRequest,
    PermissionRule,
    Row,
    ShellRow,
)
from kandev_host.protocol.notifications import CredentialNotice

R = TypeVar("R", bound=Row)
Changes = Sequence[Change]
ENDED = "ended"  # the end of a transfer whose beginning is audited

_credential = msgspec.json.Decoder(CredentialNotice)
_object = msgspec.json.Decoder(dict[str, Any])


def audited(changes: Changes) -> list[AuditRow]:
    """The rows that these changes are worth; hardly ever any."""
    rows: list[AuditRow] = []
    for change in changes:
        if isinstance(change, Event):
            tell = AUDITED.get(change.action)
            row = None if tell is None else tell(change, changes)
        elif isinstance(change, Put) and type(change.row) is PermissionRule:
            row = _rule(change.row)
        else:
            continue
        if row is not None:
            rows.append(row)
    return rows


def _launch(event: Event, changes: Changes) -> AuditRow | None:
    """An agent as it is launched, and as it ends; not what it does in between."""
    agent = _of(changes, AgentInstance)
    if agent is None or agent.id != event.agent_id or agent.status in LIVE_STATUSES[1:]:
        return None
    details: dict[str, Any] = {"agent_type": agent.agent_type, "runtime": agent.runtime}
    if agent.status == "PENDING":
        details |= {"network": agent.network, "preset": agent.preset, "orchestrated": agent.orchestrated}
        details |= {"attempt": agent.attempt, "resumed_from": agent.resumed_from}
        resumed = agent.resumed_from is not None
        return _row(event, "launch", "agent.resumed" if resumed else "agent.launched", details=details)
    details |= {"failure": agent.failure, "exit_code": agent.exit_code}
    return _row(event, "launch", "agent.ended", outcome=agent.status.lower(), details=details)


def _permission(event: Event, changes: Changes) -> AuditRow | None:
    asked = _of(changes, PermissionRequest)
    if asked is None:
        return None
    details = {
        "permission_id": asked.id,
        "tool": text(asked.tool_call.get("title")),
        "tool_kind": text(asked.tool_call.get("kind")),
        "option_id": text(asked.option_id),
        "reason": text(asked.reason),
        "digest": asked.digest,
    }
    return _row(event, "approval", event.action, outcome=asked.state, details=details)


def _elicitation(event: Event, changes: Changes) -> AuditRow | None:
    asked = _of(changes, Elicitation)
    if asked is None:
        return None
    details = {"elicitation_id": asked.id, "mode": asked.mode, "reason": text(asked.reason)}
    return _row(event, "approval", event.action, outcome=asked.state, details=details)


def _credential_used(event: Event, _changes: Changes) -> AuditRow | None:
    notice = _credential.decode(event.payload)
    if notice.reason == ENDED:
        return None
    details = {"name": text(notice.name), "way": notice.way, "what": text(notice.what), "verb": notice.verb}
    outcome = "ok" if notice.allowed else "refused"
    return _row(event, "credential", event.action, outcome=outcome, details={**details, "reason": text(notice.reason)})


def _shell(event: Event, changes: Changes) -> AuditRow | None:
    shell = _of(changes, ShellRow)
    if shell is None:
        return None
    details = {"shell_id": shell.id, "runtime": shell.runtime, "network": shell.network, "pty": shell.pty}
    return _row(event, "launch", event.action, details={**details, "allow": list(shell.allow)[:20]})


def _deleted(event: Event, changes: Changes) -> AuditRow | None:
    """Of a board with all its tasks one row: they are counted in it."""
    others = [change.action for change in changes if isinstance(change, Event) and change is not event]
    if event.action == "task.deleted" and "board.deleted" in others:
        return None
    details = {name: text(row.get("name") or row.get("title")) for name, row in _object.decode(event.payload).items()}
    tasks = others.count("task.deleted")
    return _row(event, "deletion", event.action, details={**details, **({"tasks": tasks} if tasks else {})})


def _workspace(event: Event, _changes: Changes) -> AuditRow | None:
    if not _object.decode(event.payload).get("deleted"):
        return None
    return _row(event, "deletion", "workspace.deleted")


def _rule(rule: PermissionRule) -> AuditRow:
    details = {
        "rule_id": rule.id,
        "agent_type": rule.agent_type,
        "tool_kind": text(rule.kind),
        "path": text(rule.path),
        "command": text(" ".join(rule.command)) if rule.command is not None else None,
    }
    return AuditRow(
        kind="policy",
        action="permission.rule_made",
        outcome=rule.effect,
        actor=rule.created_by,
        task_id=rule.task_id,
        details=details,
    )


AUDITED: Mapping[str, Callable[[Event, Changes], AuditRow | None]] = {
    "agent.updated": _launch,
    "permission.resolved": _permission,
    "elicitation.resolved": _elicitation,
    "credential.used": _credential_used,
    "shell.opened": _shell,
    "board.deleted": _deleted,
    "column.deleted": _deleted,
    "task.deleted": _deleted,
    "workspace.updated": _workspace,
}


def _row(
    event: Event, kind: AuditKind, action: str, *, outcome: str = "ok", details: Mapping[str, Any] | None = None
) -> AuditRow:
    return AuditRow(
        kind=kind,
        action=action,
        outcome=outcome,
        actor=event.actor,
        board_id=event.board_id,
        task_id=event.task_id,
        agent_id=event.agent_id,
        details=dict(details or {}),
    )


def _of(changes: Changes, kind: type[R]) -> R | None:
    """The row of this kind in the same commit."""
    for change in changes:
        if isinstance(change, Put) and isinstance(change.row, kind):
            return change.row
    return None
