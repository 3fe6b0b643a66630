"""shell.*"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from kandev_host.models import Command, ShellNetwork, ShellRow, ShellState
from kandev_host.protocol.actions.fields import AgentName, Encoding, Id, PageRequest, Request, Response

COMMAND_LIMIT_CHARS = 128 << 10
INPUT_LIMIT_CHARS = 64 << 10
OUTPUT_LIMIT_BYTES = 1 << 20
TIMEOUT_LIMIT_S = 86_400.0

Size = Annotated[int, Meta(ge=1, le=1000)]
Allowed = Annotated[str, Meta(min_length=1, max_length=255)]
# As a shell says them, without SIG.
SignalName = Literal["HUP", "INT", "QUIT", "KILL", "USR1", "USR2", "TERM", "CONT", "STOP", "TSTP"]


class ShellOutput(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a shell's output, as it came; base64 when it is not UTF-8.

    `offset` counts all bytes that the shell has put out before: where it does not go on from the last one, `shell.read`
    has what is missing. `command_id` is the command that wrote it, and null in a terminal.
    """

    shell_id: str
    command_id: str | None
    stream: Literal["stdout", "stderr", "terminal"]
    offset: int
    bytes: int
    data: str
    encoding: Encoding


class ShellOpen(Request, frozen=True, kw_only=True):
    """In the workspace of a task (made now if it is not there yet) or of another shell, else in a scratch one, which
    is removed with the last shell in it.

    Without `network` as the settings say. With `pty` a terminal of `cols` by `rows` characters runs an interactive
    shell; without, `shell.run` runs commands. Whoever opens a shell follows it, from before its image is pulled where
    it must be: until `image.pulling` has told the end of that there is no answer. An `attached` one is closed when
    nobody has followed it for ten seconds.
    """

    task_id: Id | None = None
    workspace_id: Id | None = None
    runtime: AgentName | None = None
    network: ShellNetwork | None = None
    allow: Annotated[list[Allowed], Meta(max_length=100)] | None = None
    pty: bool = False
    cols: Size | None = None
    rows: Size | None = None
    attached: bool = False


class ShellReply(Response, frozen=True, kw_only=True):
    shell: ShellRow


class ShellRun(Request, frozen=True, kw_only=True):
    """A script for `/bin/sh`. `cd`, exports and the umask carry over to the next one; functions and aliases do not.

    One runs at a time; the others wait. Its standard input is empty. After `timeout_s` everything that it started is
    killed, and the shell stays. Of output beyond `max_output_bytes`, head and tail are kept.
    """

    shell_id: Id
    command: Annotated[str, Meta(min_length=1, max_length=COMMAND_LIMIT_CHARS, pattern=r"\S")]
    timeout_s: Annotated[float, Meta(gt=0, le=TIMEOUT_LIMIT_S)] = 60.0
    max_output_bytes: Annotated[int, Meta(ge=1, le=OUTPUT_LIMIT_BYTES)] = 256 << 10


class ShellRunReply(Response, frozen=True, kw_only=True):
    """`exit_code` is 128+n for one that died of signal n, `cwd` is where the shell is now.

    `stdout_bytes` and `stderr_bytes` are all that was written; `truncated`: the middle of it is not in `stdout` or
    `stderr`. What is not UTF-8 is base64. The output of the shell stood at `output_offset` when the command had ended.
    """

    command_id: str
    exit_code: int
    stdout: str
    stdout_encoding: Encoding
    stderr: str
    stderr_encoding: Encoding
    stdout_bytes: int
    stderr_bytes: int
    truncated: bool
    timed_out: bool
    duration_s: float
    cwd: str
    changed_files: list[str] | None
    output_offset: int


class ShellInput(Request, frozen=True, kw_only=True):
    """What is typed at a terminal. Nothing of it is kept, so a request that is sent twice types twice."""

    shell_id: Id
    data: Annotated[str, Meta(min_length=1, max_length=INPUT_LIMIT_CHARS)]
    encoding: Encoding = "utf-8"


class ShellInputReply(Response, frozen=True, kw_only=True):
    """How many bytes the terminal took."""

    bytes: int


class ShellResize(Request, frozen=True, kw_only=True):
    shell_id: Id
    cols: Size
    rows: Size


class ShellSignal(Request, frozen=True, kw_only=True):
    """To a job of `shell.jobs` and what it started, or without `pid` to the running command.

    Of a terminal: INT, QUIT and TSTP go to what runs in its foreground, HUP, TERM and KILL end it.
    """

    shell_id: Id
    signal: SignalName
    pid: Annotated[int, Meta(ge=2, le=1 << 22)] | None = None


class ShellSignalReply(Response, frozen=True, kw_only=True):
    """`signalled` is false if nothing ran that could get it."""

    signalled: bool


class ShellClose(Request, frozen=True, kw_only=True):
    """Kills what still runs in it. One that is closed already stays as it is."""

    shell_id: Id


class ShellList(PageRequest, frozen=True, kw_only=True):
    """Newest first."""

    task_id: Id | None = None
    state: ShellState | None = None


class ShellsReply(Response, frozen=True, kw_only=True):
    shells: list[ShellRow]
    next_cursor: str | None = None


class ShellJobs(Request, frozen=True, kw_only=True):
    shell_id: Id


class ShellJob(Response, frozen=True, kw_only=True):
    """A process that a command started and that still runs; `pid` is for `shell.signal`. Unknown is null."""

    pid: int
    command: str
    state: Literal["running", "background"]
    age_s: float
    cpu_s: float | None
    rss_bytes: int | None


class ShellJobsReply(Response, frozen=True, kw_only=True):
    """`waiting` commands of other requests come after the one that runs."""

    jobs: list[ShellJob]
    waiting: int


class ShellRead(Request, frozen=True, kw_only=True):
    """The shell's latest output, from `offset` on, of what the host still holds of it."""

    shell_id: Id
    offset: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)] = 0
    limit_bytes: Annotated[int, Meta(ge=1, le=OUTPUT_LIMIT_BYTES)] = 256 << 10


class ShellReadReply(Response, frozen=True, kw_only=True):
    """As in `shell.output`, oldest first. To read on, ask with `next_offset`; `dropped_bytes` are not held any more."""

    output: list[ShellOutput]
    next_offset: int
    dropped_bytes: int


class ShellCommands(PageRequest, frozen=True, kw_only=True):
    """The audit: what ran, newest first. Of a shell, of a task, or all. Also what agents said that they ran.

    Of the latter only the text is known (`state` is null), unless the host ran it for them (`terminal/create`).
    """

    shell_id: Id | None = None
    task_id: Id | None = None


class ShellCommandsReply(Response, frozen=True, kw_only=True):
    commands: list[Command]
    next_cursor: str | None = None
