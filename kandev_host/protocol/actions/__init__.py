"""Request and response types of every action, one table: the wire's contract, from which its schema is made.

Requests refuse unknown fields and bound every value; `msgspec.UNSET` is "absent", None is JSON's null. Responses
wrap one thing as `{"task": …}` and lists as `{"tasks": […], "next_cursor": …}`.
"""

from __future__ import annotations

import msgspec

from kandev_host.protocol.actions import (
    agents,
    audit,
    backups,
    boards,
    captures,
    elicitations,
    host,
    orchestrator,
    permissions,
    queue,
    search,
    session_list,
    sessions,
    shells,
    snapshots,
    tasks,
    usage,
    workspaces,
)
from kandev_host.protocol.actions.fields import PageRequest, Request, Response

__all__ = [
    "ACTIONS",
    "PageRequest",
    "Request",
    "Response",
    "Shape",
    "agents",
    "boards",
    "elicitations",
    "host",
    "orchestrator",
    "permissions",
    "sessions",
    "shells",
    "snapshots",
    "tasks",
]


class Shape(msgspec.Struct, frozen=True):
    """What goes in, what comes out, the scope it needs, and whether repeating it is harmless (`reads`)."""

    request: type[Request]
    response: type[Response]
    scope: str
    summary: str

    @property
    def reads(self) -> bool:
        return self.scope.endswith(":read")


ACTIONS: dict[str, Shape] = {
    "health.check": Shape(host.HealthCheck, host.HealthReply, "host:read", "Is the host well?"),
    "host.info": Shape(host.HostInfo, host.HostInfoReply, "host:read", "Version, plugins, runtimes, agents, limits"),
    "backup.create": Shape(backups.BackupCreate, backups.BackupReply, "backups:write", "Back the host's data up"),
    "backup.list": Shape(backups.BackupList, backups.BackupsReply, "backups:read", "The backups that there are"),
    "board.list": Shape(boards.BoardList, boards.BoardsReply, "boards:read", "All boards"),
    "board.create": Shape(boards.BoardCreate, boards.BoardWithColumns, "boards:write", "A board with its columns"),
    "board.get": Shape(boards.BoardGet, boards.BoardWithColumns, "boards:read", "One board and its columns"),
    "board.update": Shape(boards.BoardUpdate, boards.BoardReply, "boards:write", "Change a board"),
    "board.delete": Shape(boards.BoardDelete, boards.BoardDeleted, "boards:write", "Delete a board and its tasks"),
    "column.list": Shape(boards.ColumnList, boards.ColumnsReply, "boards:read", "The columns, by position"),
    "column.create": Shape(boards.ColumnCreate, boards.ColumnReply, "boards:write", "A new column"),
    "column.update": Shape(boards.ColumnUpdate, boards.ColumnReply, "boards:write", "Change a column"),
    "column.move": Shape(boards.ColumnMove, boards.ColumnsReply, "boards:write", "Put a column elsewhere"),
    "column.delete": Shape(boards.ColumnDelete, boards.ColumnDeleted, "boards:write", "Delete a column"),
    "task.list": Shape(tasks.TaskList, tasks.TasksReply, "tasks:read", "Tasks that meet every filter"),
    "task.create": Shape(tasks.TaskCreate, tasks.TaskReply, "tasks:write", "A new task"),
    "task.get": Shape(tasks.TaskGet, tasks.TaskReply, "tasks:read", "One task"),
    "task.update": Shape(tasks.TaskUpdate, tasks.TaskReply, "tasks:write", "Change a task's fields"),
    "task.delete": Shape(tasks.TaskDelete, tasks.TaskDeleted, "tasks:write", "Delete a task and its workspace"),
    "task.state": Shape(tasks.TaskStateChange, tasks.TaskReply, "tasks:write", "Change a task's state"),
    "task.move": Shape(tasks.TaskMove, tasks.TaskReply, "tasks:write", "Put a task into a column at a position"),
    "task.events": Shape(tasks.TaskEvents, tasks.TaskEventsReply, "tasks:read", "A task's history, oldest first"),
    "task.subscribe": Shape(tasks.TaskSubscribe, tasks.Subscribed, "tasks:read", "Follow a task's events"),
    "task.unsubscribe": Shape(tasks.TaskUnsubscribe, tasks.Unsubscribed, "tasks:read", "Follow it no more"),
    "events.subscribe": Shape(tasks.EventsSubscribe, tasks.Subscribed, "tasks:read", "Follow topics"),
    "events.unsubscribe": Shape(tasks.EventsUnsubscribe, tasks.Unsubscribed, "tasks:read", "Follow them no more"),
    "agent.types": Shape(agents.AgentTypes, agents.AgentTypesReply, "agents:read", "Agents that can be started"),
    "agent.type_update": Shape(
        agents.AgentTypeUpdate, agents.AgentTypeReply, "settings:write", "Enable, disable or limit an agent type"
    ),
    "agent.launch": Shape(agents.AgentLaunch, agents.AgentReply, "agents:run", "Start an agent for a task"),
    "agent.list": Shape(agents.AgentList, agents.AgentsReply, "agents:read", "Agent instances, newest first"),
    "agent.status": Shape(agents.AgentStatusGet, agents.AgentStatusReply, "agents:read", "How an agent does"),
    "agent.logs": Shape(agents.AgentLogs, agents.LogsReply, "agents:read", "What an agent wrote to stderr"),
    "agent.prompt": Shape(agents.AgentPrompt, agents.TurnReply, "agents:run", "Give an agent a prompt"),
    "agent.cancel": Shape(agents.AgentCancel, agents.AgentReply, "agents:run", "Cancel the turn, keep the agent"),
    "agent.resume": Shape(
        agents.AgentResume, agents.AgentReply, "agents:run", "Go on with the session of an agent that ended"
    ),
    "agent.stop": Shape(agents.AgentStop, agents.AgentReply, "agents:run", "End an agent"),
    "agent.transcript": Shape(agents.AgentTranscript, agents.TranscriptReply, "agents:read", "Stored ACP updates"),
    "queue.list": Shape(queue.QueueList, queue.PromptsReply, "agents:read", "The prompts that wait for an agent"),
    "queue.update": Shape(queue.QueueUpdate, queue.PromptsReply, "agents:run", "Change or move a prompt that waits"),
    "queue.remove": Shape(queue.QueueRemove, queue.PromptsReply, "agents:run", "Take out a prompt that waits"),
    "agent.capture": Shape(
        captures.AgentCapture, captures.CaptureReply, "captures:read", "What went over an agent's pipes"
    ),
    "agent.sessions": Shape(
        session_list.AgentSessions, session_list.AgentSessionsReply, "agents:read", "Sessions of agents"
    ),
    "agent.session_delete": Shape(
        session_list.AgentSessionDelete, session_list.AgentSessionDeleted, "agents:run", "Have a session forgotten"
    ),
    "agent.session": Shape(
        sessions.AgentSession, sessions.AgentSessionReply, "agents:read", "Its session, options and log-in"
    ),
    "agent.set_option": Shape(
        sessions.AgentSetOption, sessions.OptionsReply, "agents:run", "Set an option or the mode of a session"
    ),
    "agent.authenticate": Shape(
        sessions.AgentAuthenticate, agents.AgentReply, "agents:run", "Log an agent in, by a method of its own"
    ),
    "agent.logout": Shape(sessions.AgentLogout, agents.AgentReply, "agents:run", "Log an agent out"),
    "permission.list": Shape(agents.PermissionList, agents.PermissionsReply, "agents:read", "Permission requests"),
    "permission.respond": Shape(agents.PermissionRespond, agents.PermissionReply, "permissions:answer", "Answer one"),
    "permission.rules": Shape(
        permissions.PermissionRules, permissions.PermissionRulesReply, "agents:read", "The rules of permission"
    ),
    "permission.rule_delete": Shape(
        permissions.PermissionRuleDelete, permissions.PermissionRuleReply, "permissions:answer", "Forget a rule"
    ),
    "elicitation.list": Shape(
        elicitations.ElicitationList, elicitations.ElicitationsReply, "agents:read", "What agents ask people for"
    ),
    "elicitation.respond": Shape(
        elicitations.ElicitationRespond, elicitations.ElicitationReply, "permissions:answer", "Answer one"
    ),
    "orchestrator.status": Shape(
        orchestrator.OrchestratorStatus, orchestrator.OrchestratorStatusReply, "agents:read", "How the queue does"
    ),
    "orchestrator.queue": Shape(
        orchestrator.OrchestratorQueue, orchestrator.QueueReply, "agents:read", "The tasks that wait, in order"
    ),
    "orchestrator.trigger": Shape(
        orchestrator.OrchestratorTrigger, orchestrator.TriggerReply, "agents:run", "Queue a task now"
    ),
    "orchestrator.start": Shape(
        orchestrator.OrchestratorStart, orchestrator.RunReply, "agents:run", "Run a task to its end"
    ),
    "orchestrator.stop": Shape(
        orchestrator.OrchestratorStop, orchestrator.StoppedReply, "agents:run", "Cancel a task's run"
    ),
    "orchestrator.prompt": Shape(orchestrator.OrchestratorPrompt, agents.TurnReply, "agents:run", "Prompt its agent"),
    "orchestrator.complete": Shape(
        orchestrator.OrchestratorComplete, orchestrator.StoppedReply, "agents:run", "Call it done"
    ),
    "orchestrator.pause": Shape(
        orchestrator.OrchestratorPause, orchestrator.OrchestratorStatusReply, "settings:write", "Start nothing more"
    ),
    "orchestrator.resume": Shape(
        orchestrator.OrchestratorResume, orchestrator.OrchestratorStatusReply, "settings:write", "Go on"
    ),
    "search.query": Shape(search.SearchQuery, search.SearchReply, "tasks:read", "Full-text search, best hits first"),
    "audit.list": Shape(audit.AuditList, audit.AuditReply, "audit:read", "Who did what, and what was refused"),
    "usage.summary": Shape(usage.UsageSummary, usage.UsageSummaryReply, "agents:read", "What turns used and cost"),
    "workspace.commits": Shape(
        snapshots.WorkspaceCommits, snapshots.CommitsReply, "agents:run", "Its commits, and taking them home"
    ),
    "workspace.diff": Shape(
        agents.WorkspaceDiff, agents.DiffReply, "agents:read", "What changed since the base, or between two snapshots"
    ),
    "workspace.restore": Shape(
        snapshots.WorkspaceRestore, snapshots.RestoreReply, "agents:run", "Make it what a snapshot holds"
    ),
    "workspace.snapshot": Shape(
        snapshots.WorkspaceSnapshot, snapshots.SnapshotReply, "agents:run", "Keep what it holds now"
    ),
    "workspace.snapshots": Shape(
        snapshots.WorkspaceSnapshots, snapshots.SnapshotsReply, "agents:read", "Its snapshots, newest first"
    ),
    "workspace.delete": Shape(
        workspaces.WorkspaceDelete, workspaces.WorkspaceDeleted, "workspaces:write", "Delete a task's workspace"
    ),
    "workspace.get": Shape(
        workspaces.WorkspaceGet, workspaces.WorkspaceReply, "workspaces:read", "What a task's workspace takes"
    ),
    "workspace.files": Shape(
        workspaces.WorkspaceFiles, workspaces.FilesReply, "workspaces:read", "The files of a workspace"
    ),
    "workspace.read": Shape(
        workspaces.WorkspaceRead, workspaces.ReadReply, "workspaces:read", "What is in a file of a workspace"
    ),
    "shell.open": Shape(shells.ShellOpen, shells.ShellReply, "shell:open", "Open a shell in a workspace"),
    "shell.run": Shape(shells.ShellRun, shells.ShellRunReply, "shell:open", "Run a command to its end"),
    "shell.input": Shape(shells.ShellInput, shells.ShellInputReply, "shell:open", "Type at a terminal"),
    "shell.resize": Shape(shells.ShellResize, shells.ShellReply, "shell:open", "Give a terminal another size"),
    "shell.signal": Shape(shells.ShellSignal, shells.ShellSignalReply, "shell:open", "Signal what runs in a shell"),
    "shell.close": Shape(shells.ShellClose, shells.ShellReply, "shell:open", "Close a shell"),
    "shell.list": Shape(shells.ShellList, shells.ShellsReply, "shell:read", "Shells, newest first"),
    "shell.jobs": Shape(shells.ShellJobs, shells.ShellJobsReply, "shell:read", "What runs in a shell"),
    "shell.read": Shape(shells.ShellRead, shells.ShellReadReply, "shell:read", "The latest output of a shell"),
    "shell.commands": Shape(shells.ShellCommands, shells.ShellCommandsReply, "shell:read", "The commands that ran"),
}
