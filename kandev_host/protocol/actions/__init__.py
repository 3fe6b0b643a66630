"""Request and response types of every action, one table: the wire's contract, from which its schema is made.

Requests refuse unknown fields and bound every value; `msgspec.UNSET` is "absent", None is JSON's null. Responses
wrap one thing as `{"task": …}` and lists as `{"tasks": […], "next_cursor": …}`.
"""

from __future__ import annotations

from dataclasses import dataclass

from kandev_host.protocol.actions import agents, boards, host, orchestrator, search, tasks
from kandev_host.protocol.actions.fields import PageRequest, Request, Response

__all__ = [
    "ACTIONS",
    "PageRequest",
    "Request",
    "Response",
    "Shape",
    "agents",
    "boards",
    "host",
    "orchestrator",
    "tasks",
]


@dataclass(frozen=True, slots=True)
class Shape:
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
    "agent.launch": Shape(agents.AgentLaunch, agents.AgentReply, "agents:write", "Start an agent for a task"),
    "agent.list": Shape(agents.AgentList, agents.AgentsReply, "agents:read", "Agent instances, newest first"),
    "agent.status": Shape(agents.AgentStatusGet, agents.AgentStatusReply, "agents:read", "How an agent does"),
    "agent.logs": Shape(agents.AgentLogs, agents.LogsReply, "agents:read", "What an agent wrote to stderr"),
    "agent.prompt": Shape(agents.AgentPrompt, agents.TurnReply, "agents:write", "Give an agent a prompt"),
    "agent.cancel": Shape(agents.AgentCancel, agents.AgentReply, "agents:write", "Cancel the turn, keep the agent"),
    "agent.stop": Shape(agents.AgentStop, agents.AgentReply, "agents:write", "End an agent"),
    "agent.transcript": Shape(agents.AgentTranscript, agents.TranscriptReply, "agents:read", "Stored ACP updates"),
    "permission.list": Shape(agents.PermissionList, agents.PermissionsReply, "agents:read", "Permission requests"),
    "permission.respond": Shape(agents.PermissionRespond, agents.PermissionReply, "permissions:write", "Answer one"),
    "orchestrator.status": Shape(
        orchestrator.OrchestratorStatus, orchestrator.OrchestratorStatusReply, "agents:read", "How the queue does"
    ),
    "orchestrator.queue": Shape(
        orchestrator.OrchestratorQueue, orchestrator.QueueReply, "agents:read", "The tasks that wait, in order"
    ),
    "orchestrator.trigger": Shape(
        orchestrator.OrchestratorTrigger, orchestrator.TriggerReply, "agents:write", "Queue a task now"
    ),
    "orchestrator.start": Shape(
        orchestrator.OrchestratorStart, orchestrator.RunReply, "agents:write", "Run a task to its end"
    ),
    "orchestrator.stop": Shape(
        orchestrator.OrchestratorStop, orchestrator.StoppedReply, "agents:write", "Cancel a task's run"
    ),
    "orchestrator.prompt": Shape(orchestrator.OrchestratorPrompt, agents.TurnReply, "agents:write", "Prompt its agent"),
    "orchestrator.complete": Shape(
        orchestrator.OrchestratorComplete, orchestrator.StoppedReply, "agents:write", "Call it done"
    ),
    "orchestrator.pause": Shape(
        orchestrator.OrchestratorPause, orchestrator.OrchestratorStatusReply, "agents:write", "Start nothing more"
    ),
    "orchestrator.resume": Shape(
        orchestrator.OrchestratorResume, orchestrator.OrchestratorStatusReply, "agents:write", "Go on"
    ),
    "search.query": Shape(search.SearchQuery, search.SearchReply, "tasks:read", "Full-text search, best hits first"),
    "workspace.diff": Shape(agents.WorkspaceDiff, agents.DiffReply, "agents:read", "What changed since the base"),
}
