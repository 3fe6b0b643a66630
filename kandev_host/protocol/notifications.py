"""Every notification of the protocol: its name and its payload. The documentation's table is made of this."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Notification:
    """`payload` describes the fields; `transient` ones have no `seq` and are not replayed."""

    name: str
    payload: str
    transient: bool = False


_LIST = (
    Notification("board.created", "board, columns"),
    Notification("board.updated", "board"),
    Notification("board.deleted", "board_id"),
    Notification("column.created", "column"),
    Notification("column.updated", "column"),
    Notification("column.deleted", "column_id, board_id"),
    Notification("task.created", "task"),
    Notification("task.updated", "task"),
    Notification("task.state_changed", "task, old_state, new_state, reason"),
    Notification("task.deleted", "task_id, board_id"),
    Notification("agent.updated", "agent: the instance, with status, activity, exit_code and error_message"),
    Notification("queue.updated", "agent_id, task_id, prompts"),
    Notification("permission.requested", "permission: the request with its tool call and options"),
    Notification("permission.resolved", "permission: the request with its outcome"),
    Notification("elicitation.requested", "elicitation"),
    Notification("elicitation.resolved", "elicitation"),
    Notification("workspace.updated", "task_id, workspace"),
    Notification("shell.output", "shell_id, stream, offset, data; base64 when not UTF-8", transient=True),
    Notification("shell.exited", "shell_id, exit_code"),
    Notification(
        "acp.progress",
        "progress (0 to 100), message, current_file, files_processed, total_files; update: ACP's own, unchanged",
    ),
    Notification("acp.log", "level, message, metadata; update"),
    Notification("acp.result", "status (completed, cancelled, refused, …), stop_reason, summary, artifacts, usage"),
    Notification("acp.error", "code, message"),
    Notification("acp.status", "status, activity; update"),
    Notification("acp.heartbeat", "pid alive, cpu_s, rss_bytes, last_update_age_s, every 15 s", transient=True),
)

NOTIFICATIONS: dict[str, Notification] = {each.name: each for each in _LIST}
