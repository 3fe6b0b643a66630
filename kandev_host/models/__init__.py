"""The rows of the house: immutable structs, one per table of the store, fields as in the Kandev plan (section 7).

Unknown is `None`, never 0 or "". Times are aware UTC datetimes. Ids are UUID strings (version 7, so that they
sort by creation). To change a row, `msgspec.structs.replace` it and hand the new one to the journal.
"""

from __future__ import annotations

from kandev_host.models.audit import AUDIT_KINDS, AuditKind, AuditRow, chained, key_id_of, mac_of
from kandev_host.models.base import (
    Limits,
    Row,
    new_id,
    now,
)
from kandev_host.models.boards import (
    LOCAL_USER_ID,
    Board,
    Column,
    Task,
    TaskEvent,
    TaskState,
    User,
)
from kandev_host.models.queue import (
    HostState,
    QueueEntry,
    QueueState,
    Receipt,
)
from kandev_host.models.runs import (
    LIVE_STATUSES,
    Activity,
    AgentInstance,
    AgentLog,
    AgentStatus,
    AgentTypeRow,
    Failure,
    LogLevel,
    Setup,
    UsageReading,
    Workspace,
)
from kandev_host.models.sessions import (
    Effect,
    Elicitation,
    ElicitationMode,
    ElicitationState,
    Opened,
    PermissionRequest,
    PermissionRule,
    PermissionState,
    Session,
    Turn,
    TurnState,
    Usage,
    UsageSource,
)
from kandev_host.models.shells import (
    Command,
    CommandState,
    ShellNetwork,
    ShellRow,
    ShellState,
)
from kandev_host.models.snapshots import SkippedPath, Snapshot, SnapshotKind

__all__ = [
    "AUDIT_KINDS",
    "LIVE_STATUSES",
    "LOCAL_USER_ID",
    "ROWS",
    "Activity",
    "AgentInstance",
    "AgentLog",
    "AgentStatus",
    "AgentTypeRow",
    "AuditKind",
    "AuditRow",
    "Board",
    "Column",
    "Command",
    "CommandState",
    "Effect",
    "Elicitation",
    "ElicitationMode",
    "ElicitationState",
    "Failure",
    "HostState",
    "Limits",
    "LogLevel",
    "Opened",
    "PermissionRequest",
    "PermissionRule",
    "PermissionState",
    "QueueEntry",
    "QueueState",
    "Receipt",
    "Row",
    "Session",
    "Setup",
    "ShellNetwork",
    "ShellRow",
    "ShellState",
    "SkippedPath",
    "Snapshot",
    "SnapshotKind",
    "Task",
    "TaskEvent",
    "TaskState",
    "Turn",
    "TurnState",
    "Usage",
    "UsageReading",
    "UsageSource",
    "User",
    "Workspace",
    "chained",
    "key_id_of",
    "mac_of",
    "new_id",
    "now",
]

ROWS: tuple[type[Row], ...] = (
    User, Board, Column, Task, TaskEvent, AgentTypeRow, AgentInstance, AgentLog, Session, Turn,
    PermissionRequest, PermissionRule, Elicitation, Usage, Workspace, QueueEntry, ShellRow, Command, Receipt, HostState,
    Snapshot, AuditRow,
)  # fmt: skip
