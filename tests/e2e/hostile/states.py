"""Requests that are well formed and come at the wrong moment, or are about the wrong thing, with the code of each.

`<name>` stands for what the world has under that name: see test_hostile_states.py.
"""

from __future__ import annotations

from typing import Any

CONFLICT, INVALID, MISSING, UNAVAILABLE = "CONFLICT", "VALIDATION_ERROR", "NOT_FOUND", "UNAVAILABLE"

STATES: dict[str, tuple[str, dict[str, Any], str]] = {
    # An agent that has ended, one that waits for a prompt, and one that asks.
    "prompt-the-ended": ("agent.prompt", {"agent_id": "<ended>", "prompt": "hi"}, CONFLICT),
    "cancel-the-ended": ("agent.cancel", {"agent_id": "<ended>"}, CONFLICT),
    "option-of-the-ended": ("agent.set_option", {"agent_id": "<ended>", "option_id": "x", "value": "y"}, CONFLICT),
    "log-in-of-the-ended": ("agent.authenticate", {"agent_id": "<ended>", "method_id": "demo"}, CONFLICT),
    "log-out-of-the-ended": ("agent.logout", {"agent_id": "<ended>"}, CONFLICT),
    "resume-the-live": ("agent.resume", {"agent_id": "<asking>"}, CONFLICT),
    "launch-beside-the-live": ("agent.launch", {"task_id": "<at-work>", "agent_type": "demo"}, CONFLICT),
    "queue-beside-the-live": ("orchestrator.start", {"task_id": "<at-work>", "agent_type": "demo"}, CONFLICT),
    "delete-the-task-at-work": ("task.delete", {"task_id": "<at-work>"}, CONFLICT),
    "delete-the-board-at-work": ("board.delete", {"board_id": "<board>"}, CONFLICT),
    "delete-the-workspace-at-work": ("workspace.delete", {"task_id": "<at-work>"}, CONFLICT),
    "restore-at-work": ("workspace.restore", {"task_id": "<at-work>", "snapshot_id": "x"}, MISSING),
    "session-of-nobody": ("agent.session_delete", {"session_id": "../x"}, MISSING),
    "prompt-of-the-queue-of-nobody": ("queue.remove", {"prompt_id": "<task>"}, MISSING),
    # What was asked and answered.
    "answer-again": ("permission.respond", {"permission_id": "<answered>", "outcome": "cancelled"}, CONFLICT),
    "allow-what-was-refused": ("permission.respond", {"permission_id": "<answered>", "option_id": "allow"}, CONFLICT),
    "option-not-offered": ("permission.respond", {"permission_id": "<asked>", "option_id": "allow-all"}, INVALID),
    "answer-and-outcome": (
        "permission.respond", {"permission_id": "<asked>", "option_id": "allow", "outcome": "cancelled"}, INVALID,
    ),
    "answer-without-one": ("permission.respond", {"permission_id": "<asked>"}, INVALID),
    "answer-to-something-else": (
        "permission.respond", {"permission_id": "<asked>", "option_id": "allow", "digest": "0" * 64}, INVALID,
    ),
    "rule-of-nobody": ("permission.rule_delete", {"rule_id": "<asked>"}, MISSING),
    "form-of-nobody": ("elicitation.respond", {"elicitation_id": "<asked>", "outcome": "cancel"}, MISSING),
    # One id where another belongs.
    "a-board-for-a-task": ("task.get", {"task_id": "<board>"}, MISSING),
    "a-task-for-a-board": ("board.get", {"board_id": "<task>"}, MISSING),
    "a-task-for-an-agent": ("agent.prompt", {"agent_id": "<task>", "prompt": "hi"}, MISSING),
    "an-agent-for-a-shell": ("shell.run", {"shell_id": "<asking>", "command": "id"}, MISSING),
    "a-shell-for-an-agent": ("agent.stop", {"agent_id": "<closed>"}, MISSING),
    "an-agent-for-a-permission": (
        "permission.respond", {"permission_id": "<asking>", "outcome": "cancelled"}, MISSING,
    ),
    # Shells.
    "run-in-the-closed": ("shell.run", {"shell_id": "<closed>", "command": "id"}, CONFLICT),
    "type-into-the-closed": ("shell.input", {"shell_id": "<closed>", "data": "id\r"}, CONFLICT),
    "signal-the-closed": ("shell.signal", {"shell_id": "<closed>", "signal": "KILL"}, CONFLICT),
    "jobs-of-the-closed": ("shell.jobs", {"shell_id": "<closed>"}, CONFLICT),
    "size-of-no-terminal": ("shell.resize", {"shell_id": "<shell>", "cols": 80, "rows": 24}, CONFLICT),
    "signal-to-init": ("shell.signal", {"shell_id": "<shell>", "signal": "KILL", "pid": 1}, INVALID),
    "shell-on-the-host": ("shell.open", {"runtime": "host"}, UNAVAILABLE),
    "shell-in-no-task": ("shell.open", {"task_id": "<gone>"}, MISSING),
    # Workspaces.
    "diff-without-one": ("workspace.diff", {"task_id": "<task>"}, MISSING),
    "read-without-one": ("workspace.read", {"task_id": "<task>", "path": "README.md"}, MISSING),
    "read-outside": ("workspace.read", {"task_id": "<at-work>", "path": "../../../token"}, INVALID),
    "read-the-absolute": ("workspace.read", {"task_id": "<at-work>", "path": "/etc/passwd"}, INVALID),
    "read-the-inner-outside": ("workspace.read", {"task_id": "<at-work>", "path": "a/../../b"}, INVALID),
    "read-a-nul": ("workspace.read", {"task_id": "<at-work>", "path": "a\0b"}, INVALID),
    "read-no-base64": ("workspace.read", {"task_id": "<at-work>", "path": "?", "path_encoding": "base64"}, INVALID),
    "list-outside": ("workspace.files", {"task_id": "<at-work>", "path": ".."}, INVALID),
    "diff-from-an-option": ("workspace.diff", {"task_id": "<at-work>", "from": "--output=x"}, MISSING),
    # Boards, columns and tasks.
    "change-the-gone": ("task.update", {"task_id": "<gone>", "title": "x"}, MISSING),
    "finish-the-gone": ("task.state", {"task_id": "<gone>", "state": "COMPLETED"}, MISSING),
    "launch-the-gone": ("agent.launch", {"task_id": "<gone>", "agent_type": "demo"}, MISSING),
    "follow-the-gone": ("task.subscribe", {"task_id": "<gone>"}, MISSING),
    "work-on-a-board-that-is-gone": (
        "task.create", {"board_id": "<gone-board>", "title": "t", "description": ""}, MISSING,
    ),
    "version-of-before": ("task.update", {"task_id": "<task>", "title": "x", "expected_version": 1}, CONFLICT),
    "version-to-come": ("board.update", {"board_id": "<board>", "name": "x", "expected_version": 99}, CONFLICT),
    "blocked-by-itself": ("task.update", {"task_id": "<task>", "blocked_by": ["<task>"]}, INVALID),
    "blocked-in-a-circle": ("task.update", {"task_id": "<blocker>", "blocked_by": ["<task>"]}, CONFLICT),
    "blocked-by-nobody": ("task.update", {"task_id": "<task>", "blocked_by": ["<gone>"]}, MISSING),
    "column-of-another-board": ("task.move", {"task_id": "<task>", "column_id": "<other>", "position": 0}, INVALID),
    # Streams.
    "after-what-never-was": ("events.subscribe", {"after_seq": 10**15}, CONFLICT),
    "of-another-journal": ("events.subscribe", {"after_seq": 0, "journal_id": "<task>"}, CONFLICT),
    "log-in-as-nobody": ("auth.login", {"token": "wrong"}, "UNAUTHORIZED"),
    "another-runtime": ("agent.launch", {"task_id": "<task>", "agent_type": "demo", "runtime": "../host"}, UNAVAILABLE),
}  # fmt: skip
