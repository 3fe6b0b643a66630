"""The open shells: each is a task of its own, from the opening of its jail to its last line in the audit."""

from __future__ import annotations

import logging
from collections.abc import Collection
from types import TracebackType

import anyio
import anyio.abc
from msgspec.structs import replace

from kandev_host.errors import Conflict, KandevError, NotFound, TimedOut, Unavailable, ValidationFailed
from kandev_host.interfaces import Change, Expect, Principal, ProcessSpec, Put, Store
from kandev_host.journal import Journal
from kandev_host.models import Command, ShellNetwork, ShellRow, Task
from kandev_host.protocol.actions.shells import ShellOpen, ShellReply
from kandev_host.services.network import leads_out, reach_of
from kandev_host.services.shells import audit
from kandev_host.services.shells.audience import Audience, Audiences
from kandev_host.services.shells.live import LiveShell
from kandev_host.services.shells.output import Output
from kandev_host.services.shells.places import Place, Places
from kandev_host.sessions.audit import command_event
from kandev_host.settings import ShellSettings

log = logging.getLogger(__name__)

OPEN_S = 60.0
GONE_S = 30.0
SHUTDOWN_S = 8.0
SHELL = ("/bin/sh",)
# The best interactive shell that there is inside.
TERMINAL = ("/bin/sh", "-c", "command -v bash >/dev/null && exec bash -i; exec sh -i")
COLUMNS, ROWS = 80, 24


class ShellKeeper:
    """Use as an async context manager: leaving it ends all shells. `audiences` is told who follows them."""

    def __init__(self, store: Store, journal: Journal, places: Places, settings: ShellSettings) -> None:
        self.audiences = Audiences()
        self._store = store
        self._journal = journal
        self._places = places
        self._settings = settings
        self._live: dict[str, LiveShell] = {}
        self._closing = False

    async def __aenter__(self) -> ShellKeeper:
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.shutdown()
        self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(None, None, None)

    async def shutdown(self) -> None:
        """Refuse new shells and end the open ones, within some seconds: before the sockets that wait for them close."""
        self._closing = True
        with anyio.move_on_after(SHUTDOWN_S, shield=True):
            await self._end(self.live, "the host shut down")

    @property
    def live(self) -> tuple[LiveShell, ...]:
        """All that are open, or being opened."""
        return tuple(self._live.values())

    def find(self, shell_id: str) -> LiveShell | None:
        """The open shell of this id."""
        live = self._live.get(shell_id)
        return live if live is not None and live.recorded else None

    async def open(self, principal: Principal, request: ShellOpen, place: Place, shell_id: str) -> ShellReply:
        """Raises `Conflict` when there are too many, and what the runtime raises."""
        if self._closing:
            raise Unavailable("The host is shutting down")
        if len(self._live) >= self._settings.open_limit:
            raise Conflict(f"{self._settings.open_limit} shells are open: close one", state="limit")
        live = self._make(principal, request, place, shell_id)
        self._live[live.row.id] = live
        self._places.join(place)
        self._tasks.start_soon(self._own, live, place, name=f"shell {live.row.id}")
        try:
            with anyio.move_on_after(OPEN_S):
                await live.opened.wait()
            if not live.opened.is_set():
                raise TimedOut(f"The shell did not open within {OPEN_S:g} s")
            if live.failure is not None:
                raise live.failure
            return await self._record(live, place)
        finally:
            if not live.recorded:
                live.end("it was not wanted any more")
            live.settled.set()

    async def _record(self, live: LiveShell, place: Place) -> ShellReply:
        row, task = live.row, place.task
        reply = ShellReply(shell=row)
        expect = [] if task is None else [Expect(Task, task.id, NotFound("task", task.id))]
        told = audit.shell_event("shell.opened", row)
        with anyio.CancelScope(shield=True):
            changes: list[Change] = [Put(row), told]
            if row.pty:
                command = self._terminal_command(row)
                changes += [Put(command), command_event(command)]
            await self._journal.record(*changes, expect=expect, reply=reply)
            live.recorded = True
        return reply

    def _make(self, principal: Principal, request: ShellOpen, place: Place, shell_id: str) -> LiveShell:
        if not request.pty and (request.cols or request.rows):
            raise ValidationFailed(
                "cols" if request.cols else "rows", "Only a terminal has a size: ask for one with pty"
            )
        network, allow = self._reach(request, place)
        row = ShellRow(
            id=shell_id,
            task_id=None if place.task is None else place.task.id,
            workspace_id=place.workspace_id,
            runtime=place.runtime.name,
            network=network,
            allow=allow,
            pty=request.pty,
            opened_by=principal.id,
        )
        if network == "host":
            log.warning("shell %s has the network of the host, and no proxy between", shell_id)

        def output(audience: Audience) -> Output:
            self.audiences.add(shell_id, audience)
            return Output(shell_id, self._journal.publish_transient, audience, self._settings.output_limit_bytes)

        return LiveShell(
            row,
            place.runtime,
            _spec(row),
            (request.cols or COLUMNS, request.rows or ROWS),
            output,
            attached=request.attached,
            idle_s=self._settings.idle_timeout_s,
        )

    def _reach(self, request: ShellOpen, place: Place) -> tuple[ShellNetwork, tuple[str, ...]]:
        """What is asked for, else what the settings say; names of the outside, also the task's, make it an allowlist.

        Who asks for no network leaves out what the settings and the task name. Raises `ValidationFailed` for a name
        that nothing can be allowed by, and for one of the outside that is asked for together with no network.
        """
        task_allows = () if place.task is None else place.task.allow
        allow = tuple(dict.fromkeys((*self._settings.allow, *task_allows, *(request.allow or ()))))
        place.runtime.check_allow(allow)
        network = request.network or self._settings.network
        beyond = next(filter(leads_out, request.allow or ()), None)
        if request.network == "none" and beyond is not None:
            raise ValidationFailed(
                "allow",
                f"Without a network {beyond} cannot be reached: ask for the network allowlist, or leave out the name; "
                "services of this machine are written 127.0.0.1:PORT",
            )
        if network == "none" and request.network is None and any(map(leads_out, allow)):
            network = "allowlist"
        return network, allow if network != "none" else tuple(name for name in allow if not leads_out(name))

    async def _own(self, live: LiveShell, place: Place) -> None:
        """The whole life of a shell, in a task of its own: what it commits is not part of the request."""
        shell_id = live.row.id
        try:
            await live.own(lambda: self._places.prepare(place))
            with anyio.CancelScope(shield=True):
                await live.settled.wait()
                await self._conclude(live)
        finally:
            self.audiences.discard(shell_id)
            self._live.pop(shell_id, None)
            with anyio.CancelScope(shield=True):
                await self._places.leave(place)
            live.gone.set()

    async def _conclude(self, live: LiveShell) -> None:
        if not live.recorded:
            return
        live.row = row = audit.closed(live.row, live.reason or "it ended", live.exit_code, live.cwd)
        try:
            if row.pty:
                await self._conclude_terminal(live)
            await self._journal.record(*await audit.ending(self._store, row))
        except NotFound:
            log.info("shell %s ended after its task", row.id)
        except KandevError as error:  # the next start closes it
            log.error("The end of shell %s is not recorded: %s", row.id, error.message)

    def _terminal_command(self, row: ShellRow) -> Command:
        return Command(
            id=row.id,
            created_at=row.created_at,
            task_id=row.task_id,
            shell_id=row.id,
            command="(terminal)",
            cwd=row.cwd,
            state="running",
            created_by=row.opened_by,
        )

    async def _conclude_terminal(self, live: LiveShell) -> None:
        row = live.row
        lasted_s = ((row.closed_at or row.created_at) - row.created_at).total_seconds()
        command = audit.cut_short(self._terminal_command(row), live.kept, lasted_s, row.reason or "")
        if row.exit_code is not None:
            command = replace(command, state="finished", exit_code=row.exit_code, reason=None)
        await self._journal.record(Put(command), command_event(command))

    async def end(self, live: LiveShell, reason: str) -> None:
        """Have it end, and wait until it is gone, but not for ever."""
        with anyio.move_on_after(GONE_S):
            await self._end((live,), reason)

    async def _end(self, shells: Collection[LiveShell], reason: str) -> None:
        for live in shells:
            live.end(reason)
        for live in shells:
            await live.gone.wait()

    async def end_of_tasks(self, tasks: Collection[str], what: str, force: bool) -> None:
        """Before tasks are deleted. Raises `Conflict` for open shells, unless `force` closes them."""
        found = [live for live in self._live.values() if live.row.task_id in tasks]
        if found and not force:
            ids = [live.row.id for live in found]
            raise Conflict(f"The {what} has open shells", state="shells", shells=ids, force="closes them first")
        with anyio.move_on_after(GONE_S):
            await self._end(found, f"the {what} is deleted")


def _spec(row: ShellRow) -> ProcessSpec:
    ids = {"shell_id": row.id} | ({} if row.task_id is None else {"task_id": row.task_id})
    env = {f"KANDEV_{name.upper()}": value for name, value in ids.items()}
    if row.pty:
        env["TERM"] = "xterm-256color"
    return ProcessSpec(
        workspace_id=row.workspace_id,
        command=TERMINAL if row.pty else SHELL,
        env=env,
        network=row.network,
        allow=row.allow,
        labels=ids if row.task_id is None or row.network != "allowlist" else ids | reach_of(row.task_id),
    )
