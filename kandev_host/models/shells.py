"""Shells in workspaces, and the commands that ran in workspaces, whoever ran them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from kandev_host.models.base import Row

ShellState = Literal["open", "closed"]
ShellNetwork = Literal["none", "allowlist", "host"]
# killed: by its time-out, a signal of ours or the end of its shell; lost: its host died while it ran.
CommandState = Literal["running", "finished", "killed", "lost"]


class ShellRow(Row, frozen=True, kw_only=True):
    """A shell that a person opened in a workspace: the one of a task, or (without a task) a scratch one.

    With `pty` it is a terminal that people type at; else it runs commands. `cwd` is where it stands now, `exit_code`
    how a terminal's program ended, and `reason` why it was closed.
    """

    task_id: str | None = None
    workspace_id: str
    runtime: str
    network: ShellNetwork = "none"
    allow: tuple[str, ...] = ()
    pty: bool = False
    state: ShellState = "open"
    cwd: str = "/workspace"
    opened_by: str
    closed_at: datetime | None = None
    exit_code: int | None = None
    reason: str | None = None


class Command(Row, frozen=True, kw_only=True):
    """A command that an agent or a shell ran in a workspace: searched for, and the audit.

    Of one that an agent runs by itself, only its text is known. Of a shell's, and of one that the host runs for an
    agent (ACP: terminal/create): where it ran, how it ended, what it wrote (`stdout_bytes` and `stderr_bytes` are all
    of it, `output_head` and `output_tail` the first and last part of both, as they came), and which files of the
    workspace were changed meanwhile (None is unknown, and in the list at most 1,000). A person's terminal is one
    command: what is typed there is not taken apart. `created_by` is a principal's id.
    """

    task_id: str | None = None
    shell_id: str | None = None
    agent_id: str | None = None
    turn_id: str | None = None
    command: str
    cwd: str | None = None
    state: CommandState | None = None
    exit_code: int | None = None
    duration_ms: int | None = None
    stdout_bytes: int | None = None
    stderr_bytes: int | None = None
    truncated: bool = False
    timed_out: bool = False
    reason: str | None = None
    output_head: str | None = None
    output_tail: str | None = None
    changed_files: list[str] | None = msgspec.field(default=None)
    created_by: str | None = None
