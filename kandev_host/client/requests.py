"""Typed requests: the type of a request tells its action, and the type of its response."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cache
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack, overload

import msgspec

from kandev_host.client.errors import ClientError

if TYPE_CHECKING:
    from kandev_host.protocol import actions as wire
    from kandev_host.protocol.actions import Request

T = TypeVar("T")
DEADLINE_S = 60.0


class How(TypedDict, total=False):
    """`timeout_s` is in seconds; with the same `request_id` (a UUID) a request is asked again, and done once."""

    timeout_s: float
    request_id: str | None


class Requests(ABC):
    """What every client can ask. All deadlines are in seconds."""

    @abstractmethod
    async def _ask(self, action: str, payload: object, timeout_s: float, request_id: str | None) -> msgspec.Raw: ...

    async def call(
        self, action: str, payload: object = None, timeout_s: float = DEADLINE_S, *, request_id: str | None = None
    ) -> Any:
        """The payload of the response, as JSON. Raises `ClientError` with the host's code, UNAVAILABLE or TIMEOUT.

        After a TIMEOUT the outcome is unknown: ask with the same `request_id` (a UUID) again, or look.
        """
        return msgspec.json.decode(await self._ask(action, payload, timeout_s, request_id))

    # The overloads are made of ACTIONS: python docs/generate_client.py

    # <overloads>
    @overload
    async def request(self, request: wire.host.HealthCheck, **how: Unpack[How]) -> wire.host.HealthReply: ...
    @overload
    async def request(self, request: wire.host.HostInfo, **how: Unpack[How]) -> wire.host.HostInfoReply: ...
    @overload
    async def request(self, request: wire.backups.BackupCreate, **how: Unpack[How]) -> wire.backups.BackupReply: ...
    @overload
    async def request(self, request: wire.backups.BackupList, **how: Unpack[How]) -> wire.backups.BackupsReply: ...
    @overload
    async def request(self, request: wire.boards.BoardList, **how: Unpack[How]) -> wire.boards.BoardsReply: ...
    @overload
    async def request(self, request: wire.boards.BoardCreate, **how: Unpack[How]) -> wire.boards.BoardWithColumns: ...
    @overload
    async def request(self, request: wire.boards.BoardGet, **how: Unpack[How]) -> wire.boards.BoardWithColumns: ...
    @overload
    async def request(self, request: wire.boards.BoardUpdate, **how: Unpack[How]) -> wire.boards.BoardReply: ...
    @overload
    async def request(self, request: wire.boards.BoardDelete, **how: Unpack[How]) -> wire.boards.BoardDeleted: ...
    @overload
    async def request(self, request: wire.boards.ColumnList, **how: Unpack[How]) -> wire.boards.ColumnsReply: ...
    @overload
    async def request(self, request: wire.boards.ColumnCreate, **how: Unpack[How]) -> wire.boards.ColumnReply: ...
    @overload
    async def request(self, request: wire.boards.ColumnUpdate, **how: Unpack[How]) -> wire.boards.ColumnReply: ...
    @overload
    async def request(self, request: wire.boards.ColumnMove, **how: Unpack[How]) -> wire.boards.ColumnsReply: ...
    @overload
    async def request(self, request: wire.boards.ColumnDelete, **how: Unpack[How]) -> wire.boards.ColumnDeleted: ...
    @overload
    async def request(self, request: wire.tasks.TaskList, **how: Unpack[How]) -> wire.tasks.TasksReply: ...
    @overload
    async def request(self, request: wire.tasks.TaskCreate, **how: Unpack[How]) -> wire.tasks.TaskReply: ...
    @overload
    async def request(self, request: wire.tasks.TaskGet, **how: Unpack[How]) -> wire.tasks.TaskReply: ...
    @overload
    async def request(self, request: wire.tasks.TaskUpdate, **how: Unpack[How]) -> wire.tasks.TaskReply: ...
    @overload
    async def request(self, request: wire.tasks.TaskDelete, **how: Unpack[How]) -> wire.tasks.TaskDeleted: ...
    @overload
    async def request(self, request: wire.tasks.TaskStateChange, **how: Unpack[How]) -> wire.tasks.TaskReply: ...
    @overload
    async def request(self, request: wire.tasks.TaskMove, **how: Unpack[How]) -> wire.tasks.TaskReply: ...
    @overload
    async def request(self, request: wire.tasks.TaskEvents, **how: Unpack[How]) -> wire.tasks.TaskEventsReply: ...
    @overload
    async def request(self, request: wire.tasks.TaskSubscribe, **how: Unpack[How]) -> wire.tasks.Subscribed: ...
    @overload
    async def request(self, request: wire.tasks.TaskUnsubscribe, **how: Unpack[How]) -> wire.tasks.Unsubscribed: ...
    @overload
    async def request(self, request: wire.tasks.EventsSubscribe, **how: Unpack[How]) -> wire.tasks.Subscribed: ...
    @overload
    async def request(self, request: wire.tasks.EventsUnsubscribe, **how: Unpack[How]) -> wire.tasks.Unsubscribed: ...
    @overload
    async def request(self, request: wire.agents.AgentTypes, **how: Unpack[How]) -> wire.agents.AgentTypesReply: ...
    @overload
    async def request(self, request: wire.agents.AgentTypeUpdate, **how: Unpack[How]) -> wire.agents.AgentTypeReply: ...
    @overload
    async def request(self, request: wire.agents.AgentLaunch, **how: Unpack[How]) -> wire.agents.AgentReply: ...
    @overload
    async def request(self, request: wire.agents.AgentList, **how: Unpack[How]) -> wire.agents.AgentsReply: ...
    @overload
    async def request(
        self, request: wire.agents.AgentStatusGet, **how: Unpack[How]
    ) -> wire.agents.AgentStatusReply: ...
    @overload
    async def request(self, request: wire.agents.AgentLogs, **how: Unpack[How]) -> wire.agents.LogsReply: ...
    @overload
    async def request(self, request: wire.agents.AgentPrompt, **how: Unpack[How]) -> wire.agents.TurnReply: ...
    @overload
    async def request(self, request: wire.agents.AgentCancel, **how: Unpack[How]) -> wire.agents.AgentReply: ...
    @overload
    async def request(self, request: wire.agents.AgentResume, **how: Unpack[How]) -> wire.agents.AgentReply: ...
    @overload
    async def request(self, request: wire.agents.AgentStop, **how: Unpack[How]) -> wire.agents.AgentReply: ...
    @overload
    async def request(
        self, request: wire.agents.AgentTranscript, **how: Unpack[How]
    ) -> wire.agents.TranscriptReply: ...
    @overload
    async def request(self, request: wire.queue.QueueList, **how: Unpack[How]) -> wire.queue.PromptsReply: ...
    @overload
    async def request(self, request: wire.queue.QueueUpdate, **how: Unpack[How]) -> wire.queue.PromptsReply: ...
    @overload
    async def request(self, request: wire.queue.QueueRemove, **how: Unpack[How]) -> wire.queue.PromptsReply: ...
    @overload
    async def request(self, request: wire.captures.AgentCapture, **how: Unpack[How]) -> wire.captures.CaptureReply: ...
    @overload
    async def request(
        self, request: wire.session_list.AgentSessions, **how: Unpack[How]
    ) -> wire.session_list.AgentSessionsReply: ...
    @overload
    async def request(
        self, request: wire.session_list.AgentSessionDelete, **how: Unpack[How]
    ) -> wire.session_list.AgentSessionDeleted: ...
    @overload
    async def request(
        self, request: wire.sessions.AgentSession, **how: Unpack[How]
    ) -> wire.sessions.AgentSessionReply: ...
    @overload
    async def request(
        self, request: wire.sessions.AgentSetOption, **how: Unpack[How]
    ) -> wire.sessions.OptionsReply: ...
    @overload
    async def request(self, request: wire.sessions.AgentAuthenticate, **how: Unpack[How]) -> wire.agents.AgentReply: ...
    @overload
    async def request(self, request: wire.sessions.AgentLogout, **how: Unpack[How]) -> wire.agents.AgentReply: ...
    @overload
    async def request(
        self, request: wire.agents.PermissionList, **how: Unpack[How]
    ) -> wire.agents.PermissionsReply: ...
    @overload
    async def request(
        self, request: wire.agents.PermissionRespond, **how: Unpack[How]
    ) -> wire.agents.PermissionReply: ...
    @overload
    async def request(
        self, request: wire.permissions.PermissionRules, **how: Unpack[How]
    ) -> wire.permissions.PermissionRulesReply: ...
    @overload
    async def request(
        self, request: wire.permissions.PermissionRuleDelete, **how: Unpack[How]
    ) -> wire.permissions.PermissionRuleReply: ...
    @overload
    async def request(
        self, request: wire.elicitations.ElicitationList, **how: Unpack[How]
    ) -> wire.elicitations.ElicitationsReply: ...
    @overload
    async def request(
        self, request: wire.elicitations.ElicitationRespond, **how: Unpack[How]
    ) -> wire.elicitations.ElicitationReply: ...
    @overload
    async def request(
        self, request: wire.orchestrator.OrchestratorStatus, **how: Unpack[How]
    ) -> wire.orchestrator.OrchestratorStatusReply: ...
    @overload
    async def request(
        self, request: wire.orchestrator.OrchestratorQueue, **how: Unpack[How]
    ) -> wire.orchestrator.QueueReply: ...
    @overload
    async def request(
        self, request: wire.orchestrator.OrchestratorTrigger, **how: Unpack[How]
    ) -> wire.orchestrator.TriggerReply: ...
    @overload
    async def request(
        self, request: wire.orchestrator.OrchestratorStart, **how: Unpack[How]
    ) -> wire.orchestrator.RunReply: ...
    @overload
    async def request(
        self, request: wire.orchestrator.OrchestratorStop, **how: Unpack[How]
    ) -> wire.orchestrator.StoppedReply: ...
    @overload
    async def request(
        self, request: wire.orchestrator.OrchestratorPrompt, **how: Unpack[How]
    ) -> wire.agents.TurnReply: ...
    @overload
    async def request(
        self, request: wire.orchestrator.OrchestratorComplete, **how: Unpack[How]
    ) -> wire.orchestrator.StoppedReply: ...
    @overload
    async def request(
        self, request: wire.orchestrator.OrchestratorPause, **how: Unpack[How]
    ) -> wire.orchestrator.OrchestratorStatusReply: ...
    @overload
    async def request(
        self, request: wire.orchestrator.OrchestratorResume, **how: Unpack[How]
    ) -> wire.orchestrator.OrchestratorStatusReply: ...
    @overload
    async def request(self, request: wire.search.SearchQuery, **how: Unpack[How]) -> wire.search.SearchReply: ...
    @overload
    async def request(self, request: wire.audit.AuditList, **how: Unpack[How]) -> wire.audit.AuditReply: ...
    @overload
    async def request(self, request: wire.usage.UsageSummary, **how: Unpack[How]) -> wire.usage.UsageSummaryReply: ...
    @overload
    async def request(
        self, request: wire.snapshots.WorkspaceCommits, **how: Unpack[How]
    ) -> wire.snapshots.CommitsReply: ...
    @overload
    async def request(self, request: wire.agents.WorkspaceDiff, **how: Unpack[How]) -> wire.agents.DiffReply: ...
    @overload
    async def request(
        self, request: wire.snapshots.WorkspaceRestore, **how: Unpack[How]
    ) -> wire.snapshots.RestoreReply: ...
    @overload
    async def request(
        self, request: wire.snapshots.WorkspaceSnapshot, **how: Unpack[How]
    ) -> wire.snapshots.SnapshotReply: ...
    @overload
    async def request(
        self, request: wire.snapshots.WorkspaceSnapshots, **how: Unpack[How]
    ) -> wire.snapshots.SnapshotsReply: ...
    @overload
    async def request(
        self, request: wire.workspaces.WorkspaceDelete, **how: Unpack[How]
    ) -> wire.workspaces.WorkspaceDeleted: ...
    @overload
    async def request(
        self, request: wire.workspaces.WorkspaceGet, **how: Unpack[How]
    ) -> wire.workspaces.WorkspaceReply: ...
    @overload
    async def request(
        self, request: wire.workspaces.WorkspaceFiles, **how: Unpack[How]
    ) -> wire.workspaces.FilesReply: ...
    @overload
    async def request(
        self, request: wire.workspaces.WorkspaceRead, **how: Unpack[How]
    ) -> wire.workspaces.ReadReply: ...
    @overload
    async def request(self, request: wire.shells.ShellOpen, **how: Unpack[How]) -> wire.shells.ShellReply: ...
    @overload
    async def request(self, request: wire.shells.ShellRun, **how: Unpack[How]) -> wire.shells.ShellRunReply: ...
    @overload
    async def request(self, request: wire.shells.ShellInput, **how: Unpack[How]) -> wire.shells.ShellInputReply: ...
    @overload
    async def request(self, request: wire.shells.ShellResize, **how: Unpack[How]) -> wire.shells.ShellReply: ...
    @overload
    async def request(self, request: wire.shells.ShellSignal, **how: Unpack[How]) -> wire.shells.ShellSignalReply: ...
    @overload
    async def request(self, request: wire.shells.ShellClose, **how: Unpack[How]) -> wire.shells.ShellReply: ...
    @overload
    async def request(self, request: wire.shells.ShellList, **how: Unpack[How]) -> wire.shells.ShellsReply: ...
    @overload
    async def request(self, request: wire.shells.ShellJobs, **how: Unpack[How]) -> wire.shells.ShellJobsReply: ...
    @overload
    async def request(self, request: wire.shells.ShellRead, **how: Unpack[How]) -> wire.shells.ShellReadReply: ...
    @overload
    async def request(
        self, request: wire.shells.ShellCommands, **how: Unpack[How]
    ) -> wire.shells.ShellCommandsReply: ...

    # </overloads>

    async def request(
        self, request: Request, *, timeout_s: float = DEADLINE_S, request_id: str | None = None
    ) -> object:
        """The typed response to `request`, as in `request(TaskGet(task_id=…)).task.title`. Raises as `call` does.

        A newer host may answer with words that these types do not know, which is UNAVAILABLE: `call` takes them as
        they are.
        """
        action, response = _answers()[type(request)]
        return decoded(await self._ask(action, request, timeout_s, request_id), response)


def decoded(payload: msgspec.Raw, response: type[T]) -> T:
    """The payload as this type. Raises `ClientError` when the host speaks another protocol."""
    try:
        return msgspec.json.decode(payload, type=response)
    except ValueError as error:
        raise ClientError("UNAVAILABLE", f"The host answered with what is no {response.__name__}: {error}") from None


@cache
def _answers() -> dict[type[Request], tuple[str, type[Any]]]:
    from kandev_host.protocol.actions import ACTIONS

    return {shape.request: (action, shape.response) for action, shape in ACTIONS.items()}
