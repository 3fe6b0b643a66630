"""Request and response types of every action, one table: the wire's contract, from which its schema is made.

Requests refuse unknown fields and bound every value; `msgspec.UNSET` is "absent", None is JSON's null. Responses
wrap one thing as `{"task": …}` and lists as `{"tasks": […], "next_cursor": …}`.
"""

from __future__ import annotations

from dataclasses import dataclass

from kandev_host.protocol.actions import agents, boards, host, tasks
from kandev_host.protocol.actions.fields import PageRequest, Request, Response

__all__ = ["ACTIONS", "PageRequest", "Request", "Response", "Shape", "agents", "boards", "host", "tasks"]


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
    "column.delete": Shape(boards.ColumnDelete, boards.ColumnDeleted, "boards:write", "Delete an empty column"),
    "task.list": Shape(tasks.TaskList, tasks.TasksReply, "tasks:read", "Tasks that meet every filter"),
    "task.create": Shape(tasks.TaskCreate, tasks.TaskReply, "tasks:write", "A new task"),
    "task.get": Shape(tasks.TaskGet, tasks.TaskReply, "tasks:read", "One task"),
    "task.update": Shape(tasks.TaskUpdate, tasks.TaskReply, "tasks:write", "Change a task's fields"),
    "task.delete": Shape(tasks.TaskDelete, tasks.TaskDeleted, "tasks:write", "Delete a task and its workspace"),
    "task.state": Shape(tasks.TaskStateChange, tasks.TaskReply, "tasks:write", "Change a task's state"),
    "task.move": Shape(tasks.TaskMove, tasks.TaskReply, "tasks:write", "Put a task into a column at a position"),
    "task.subscribe": Shape(tasks.TaskSubscribe, tasks.Subscribed, "tasks:read", "Follow a task's events"),
    "task.unsubscribe": Shape(tasks.TaskUnsubscribe, tasks.Unsubscribed, "tasks:read", "Follow it no more"),
    "events.subscribe": Shape(tasks.EventsSubscribe, tasks.Subscribed, "tasks:read", "Follow topics"),
    "events.unsubscribe": Shape(tasks.EventsUnsubscribe, tasks.Unsubscribed, "tasks:read", "Follow them no more"),
    "agent.types": Shape(agents.AgentTypes, agents.AgentTypesReply, "agents:read", "Agents that can be started"),
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
    "orchestrator.start": Shape(agents.OrchestratorStart, agents.RunReply, "agents:write", "Run a task to its end"),
    "orchestrator.stop": Shape(agents.OrchestratorStop, agents.StoppedReply, "agents:write", "Cancel a task's run"),
    "orchestrator.prompt": Shape(agents.OrchestratorPrompt, agents.TurnReply, "agents:write", "Prompt its agent"),
    "orchestrator.complete": Shape(agents.OrchestratorComplete, agents.StoppedReply, "agents:write", "Call it done"),
    "workspace.diff": Shape(agents.WorkspaceDiff, agents.DiffReply, "agents:read", "What changed since the base"),
}
