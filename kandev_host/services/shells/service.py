"""shell.*: what people do in the workspaces of tasks, and in scratch ones, in jails of their own beside the agents."""

from __future__ import annotations

import base64
import binascii
import logging
import time
from types import TracebackType
from typing import Any

import anyio
import anyio.abc
from msgspec.structs import replace

from kandev_host.errors import Conflict, Forbidden, KandevError, ValidationFailed
from kandev_host.interfaces import Op, Principal, Put, Store
from kandev_host.journal import Journal
from kandev_host.models import Command, ShellRow, Task, new_id
from kandev_host.protocol.actions import shells as wire
from kandev_host.secrets import known
from kandev_host.services.locks import Locks
from kandev_host.services.rows import need
from kandev_host.services.runs import LiveRuns
from kandev_host.services.shells import audit
from kandev_host.services.shells.audience import Audiences
from kandev_host.services.shells.changes import Changes
from kandev_host.services.shells.images import Following, ShellImages
from kandev_host.services.shells.keeper import ShellKeeper
from kandev_host.services.shells.live import LiveShell
from kandev_host.services.shells.output import encoded
from kandev_host.services.shells.places import Places
from kandev_host.services.shells.quiet import Quiet
from kandev_host.services.workspaces import WorkspaceService
from kandev_host.sessions.audit import Kept, command_event
from kandev_host.settings import ShellSettings

log = logging.getLogger(__name__)

SCOPE = "shell:open"


class ShellService:
    """Use as an async context manager: leaving it ends all shells. `changes` tells what a command changed."""

    def __init__(
        self,
        store: Store,
        journal: Journal,
        *,
        runs: LiveRuns,
        locks: Locks,
        workspaces: WorkspaceService,
        settings: ShellSettings,
        default_runtime: str,
        kept_s: float | None = None,
        changes: Changes | None = None,
    ) -> None:
        self._store = store
        self._journal = journal
        self._locks = locks
        self._kept_s = kept_s
        self.changes = changes or Changes()
        self._places = Places(store, journal, runs, workspaces, default_runtime)
        self._keeper = ShellKeeper(store, journal, self._places, settings)
        self._images = ShellImages(self._keeper.audiences)
        self.quiet = Quiet(lambda: self._keeper.live)
        runs.end_shells = self._keeper.end_of_tasks

    async def __aenter__(self) -> ShellService:
        await self._keeper.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._keeper.__aexit__(kind, error, trace)

    async def shutdown(self) -> None:
        """As `ShellKeeper.shutdown`."""
        self._images.close()
        await self._keeper.shutdown()

    @property
    def audiences(self) -> Audiences:
        """Who follows which shell."""
        return self._keeper.audiences

    async def reconcile(self) -> int:
        """Close what a host that died had open; how many. Before a shell is opened only."""
        closed = await audit.bury(self._store, self._journal)
        await audit.forget(self._store, self._journal, self._kept_s)
        return closed

    async def in_workspace(self, workspace_id: str) -> list[str]:
        """The shells that are open there."""
        return [live.row.id for live in self._keeper.live if live.row.workspace_id == workspace_id]

    async def end(self, shell_id: str) -> None:
        """Close one whose workspace goes."""
        live = self._keeper.find(shell_id)
        if live is not None:
            await self._keeper.end(live, "its workspace is deleted")

    # --- opening and closing ------------------------------------------------------------------------------------------

    async def open(
        self, principal: Principal, request: wire.ShellOpen, following: Following | None = None
    ) -> wire.ShellReply:
        """Within `following` a topic, the caller's socket does so. Raises `Forbidden` for all but users, `Conflict`,
        and what the workspace and the runtime raise."""
        _only_users(principal)
        shell_id = new_id()
        task = await self._places.task_of(request)
        runtime = await self._places.runtime_of(task, request)
        task_id = None if task is None else task.id
        await self._images.fetch(runtime, shell_id, task_id, following, attached=request.attached)
        task = await self._places.task_of(request)  # as it is by now
        if task is None:
            place = self._places.of_scratch(request.workspace_id, request.runtime)
            return await self._keeper.open(principal, request, place, shell_id)
        async with self._locks.hold(f"task:{task.id}"):  # whoever deletes the task waits, and then finds the shell
            task = await need(self._store, Task, task.id)
            place = await self._places.of_task(task, request.runtime)
            return await self._keeper.open(principal, request, place, shell_id)

    async def close(self, principal: Principal, request: wire.ShellClose) -> wire.ShellReply:
        """Answers when it is gone. Raises `NotFound`."""
        _only_users(principal)
        row = await need(self._store, ShellRow, request.shell_id)
        live = self._keeper.find(row.id)
        if live is None:
            return wire.ShellReply(shell=row)
        await self._keeper.end(live, "it was closed")
        return wire.ShellReply(shell=live.row)

    # --- what is done in them -----------------------------------------------------------------------------------------

    async def run(self, principal: Principal, request: wire.ShellRun) -> wire.ShellRunReply:
        """Raises `Conflict` for a shell that is closed (also meanwhile) or a terminal, and while the files of its
        workspace are restored; `Busy`, `Unavailable`."""
        live = await self._of(principal, request.shell_id)
        if "\0" in request.command:
            raise ValidationFailed("command", "A command holds no NUL character")
        live.shell()
        async with live.turn():
            self.quiet.check(live.row.workspace_id)
            command = Command(
                task_id=live.row.task_id,
                shell_id=live.row.id,
                command=request.command,
                cwd=live.cwd,
                state="running",
                created_by=principal.id,
            )
            await self._journal.record(Put(command), command_event(command))
            return await self._run(live, command, request)

    async def _run(self, live: LiveShell, command: Command, request: wire.ShellRun) -> wire.ShellRunReply:
        kept, began = Kept(), time.monotonic()

        async def take(stream: Any, data: bytes) -> None:
            kept.take(stream, data)
            await live.output.take(stream, data, command.id)

        before = await self.changes.mark(live.row.workspace_id)
        try:
            result = await live.run(request.command, request.timeout_s, request.max_output_bytes, take)
        except BaseException as error:
            why = error.message if isinstance(error, KandevError) else live.reason or "it was cancelled"
            await self._keep(live, audit.cut_short(command, kept, time.monotonic() - began, why))
            raise
        await live.output.flush(command.id)
        files = await self.changes.since(live.row.workspace_id, before)
        done = audit.finished(command, result, kept, files)
        live.row = replace(live.row, cwd=result.cwd)
        reply = _reply(done, result, live.output.offset)
        await self._keep(live, done)
        return reply

    async def _keep(self, live: LiveShell, command: Command) -> None:
        """Also of a request that is cancelled. A store that refuses keeps the result from nobody."""
        with anyio.CancelScope(shield=True):
            try:
                await self._journal.record(Put(command), Put(live.row), command_event(command))
            except KandevError as error:
                log.error("The end of command %s is not recorded: %s", command.id, error.message)

    async def input(self, principal: Principal, request: wire.ShellInput) -> wire.ShellInputReply:
        """Raises `TimedOut` when nobody reads it, `Conflict` for what is no terminal, `ValidationFailed`."""
        live = await self._of(principal, request.shell_id)
        data = _decoded(request)
        await live.type(data)
        return wire.ShellInputReply(bytes=len(data))

    async def resize(self, principal: Principal, request: wire.ShellResize) -> wire.ShellReply:
        live = await self._of(principal, request.shell_id)
        await live.terminal().resize(request.cols, request.rows)
        return wire.ShellReply(shell=live.row)

    async def signal(self, principal: Principal, request: wire.ShellSignal) -> wire.ShellSignalReply:
        live = await self._of(principal, request.shell_id)
        return wire.ShellSignalReply(signalled=await live.signal(request.signal, request.pid))

    # --- looking ------------------------------------------------------------------------------------------------------

    async def list(self, principal: Principal, request: wire.ShellList) -> wire.ShellsReply:
        """Raises `NotFound` for an unknown task."""
        del principal
        where: list[tuple[str, Op, Any]] = []
        if request.task_id is not None:
            await need(self._store, Task, request.task_id)
            where.append(("task_id", "=", request.task_id))
        if request.state is not None:
            where.append(("state", "=", request.state))
        newest = ("-created_at", "-id")
        page = await self._store.find(ShellRow, where, order=newest, limit=request.limit, cursor=request.cursor)
        return wire.ShellsReply(shells=page.rows, next_cursor=page.next_cursor)

    async def commands(self, principal: Principal, request: wire.ShellCommands) -> wire.ShellCommandsReply:
        """Raises `NotFound` for an unknown shell or task."""
        del principal
        where: list[tuple[str, Op, Any]] = []
        if request.shell_id is not None:
            await need(self._store, ShellRow, request.shell_id)
            where.append(("shell_id", "=", request.shell_id))
        if request.task_id is not None:
            await need(self._store, Task, request.task_id)
            where.append(("task_id", "=", request.task_id))
        newest = ("-created_at", "-id")
        page = await self._store.find(Command, where, order=newest, limit=request.limit, cursor=request.cursor)
        return wire.ShellCommandsReply(commands=page.rows, next_cursor=page.next_cursor)

    async def jobs(self, principal: Principal, request: wire.ShellJobs) -> wire.ShellJobsReply:
        """Raises `Conflict` for a terminal: its jobs are listed in it."""
        live = await self._of(principal, request.shell_id)
        found = await live.shell().jobs()
        jobs = [
            wire.ShellJob(
                pid=job.pid,
                command=job.command,
                state=job.state,
                age_s=job.age_s,
                cpu_s=job.cpu_s,
                rss_bytes=job.rss_bytes,
            )
            for job in found
        ]
        return wire.ShellJobsReply(jobs=jobs, waiting=max(0, live.waiting - 1))

    async def read(self, principal: Principal, request: wire.ShellRead) -> wire.ShellReadReply:
        """Of a shell that is open; the audit has what is left of others. Raises `Conflict`, `NotFound`."""
        live = await self._of(principal, request.shell_id)
        output, next_offset, dropped = live.output.read(request.offset, request.limit_bytes)
        return wire.ShellReadReply(output=output, next_offset=next_offset, dropped_bytes=dropped)

    async def _of(self, principal: Principal, shell_id: str) -> LiveShell:
        """Raises `Forbidden` for all but users, `NotFound`, `Conflict` for one that is closed."""
        _only_users(principal)
        live = self._keeper.find(shell_id)
        if live is not None:
            return live
        row = await need(self._store, ShellRow, shell_id)
        why = f": {row.reason}" if row.reason else ""
        raise Conflict(f"The shell is closed{why}", state="closed", shell_id=shell_id)


def _only_users(principal: Principal) -> None:
    """An agent that may open shells would step around every question that it must ask."""
    if principal.kind != "user":
        raise Forbidden(SCOPE)


def _decoded(request: wire.ShellInput) -> bytes:
    if request.encoding == "utf-8":
        return request.data.encode()
    try:
        return base64.b64decode(request.data, validate=True)
    except binascii.Error as error:
        raise ValidationFailed("data", f"This is not base64: {error}") from None


def _reply(command: Command, result: Any, offset: int) -> wire.ShellRunReply:
    stdout, stdout_encoding = encoded(known.clean(result.stdout), cut=result.truncated)
    stderr, stderr_encoding = encoded(known.clean(result.stderr), cut=result.truncated)
    return wire.ShellRunReply(
        command_id=command.id,
        exit_code=result.exit_code,
        stdout=stdout,
        stdout_encoding=stdout_encoding,
        stderr=stderr,
        stderr_encoding=stderr_encoding,
        stdout_bytes=result.stdout_bytes,
        stderr_bytes=result.stderr_bytes,
        truncated=result.truncated,
        timed_out=result.timed_out,
        duration_s=result.duration_s,
        cwd=result.cwd,
        changed_files=command.changed_files,
        output_offset=offset,
    )
