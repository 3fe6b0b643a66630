"""Which files of a workspace changed since a moment, told by a program that stays in a jail beside it for a while.

The jail is that of snapshots: the workspace read-only, no home, no tmp, no network.
"""

from __future__ import annotations

import logging
import secrets
import time
from contextlib import suppress
from types import TracebackType
from typing import Any

import anyio
import anyio.abc
import msgspec

from kandev_host.errors import KandevError, Unavailable
from kandev_host.interfaces import Process, Result, Runtime
from kandev_host.models import Workspace
from kandev_host.services.snapshot_jail import REPLY_BYTES, SnapshotFailed, SnapshotJail, program, said
from kandev_host.services.workspaces import WorkspaceService
from kandev_host.settings import SnapshotSettings

log = logging.getLogger(__name__)

NAMES = 1000
OPEN_AT_ONCE = 16  # each has some 10 MiB, and what it knows of its workspace
IDLE_S = 60.0
BUSY_S = 1.0
CLOSE_S = 10.0
STDERR_BYTES = 64 << 10
STDERR_S = 1.0


class Changed(msgspec.Struct, frozen=True):
    """The first paths that differ from another moment, how many there are, and the `moment` up to which that holds."""

    paths: tuple[str, ...]
    count: int
    moment: str


class WorkspaceLooks:
    """Use as an async context manager: leaving it ends the jails. Before it is entered nothing is known."""

    def __init__(self, workspaces: WorkspaceService, settings: SnapshotSettings) -> None:
        self._workspaces = workspaces
        self._settings = settings
        self._open: dict[str, Lookout] = {}
        self._tasks: anyio.abc.TaskGroup | None = None
        self._closed = False
        workspaces.before_removal = self._leave

    async def __aenter__(self) -> WorkspaceLooks:
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks, self._tasks = self._tasks, None
        if tasks is not None:
            tasks.cancel_scope.cancel()
            await tasks.__aexit__(None, None, None)

    def close(self) -> None:
        """End what is under way: the host stops, and nobody waits for an answer any more."""
        self._closed = True
        for lookout in self._open.values():
            lookout.end()

    async def changed_since(self, task_id: str, moment: str | None) -> Changed | None:
        """Which files changed since `moment`, a `Changed.moment` (None: only find out what now is).

        Files that .gitignore leaves out do not count. None where it cannot be told: never fails, and takes no row.
        """
        try:
            workspace = await self._workspaces.find(task_id)
            if workspace is None:
                return None
            async with self._workspaces.hold(task_id):
                # It may have gone meanwhile; what was removed must not be opened again.
                lookout = await self._of(await self._workspaces.get(task_id))
                found = None if lookout is None else await lookout.look(moment, NAMES)
        except KandevError as error:
            log.warning("What changed in the workspace of task %s is not known: %s", task_id, error.message)
            return None
        if found is None or not found["known"]:
            return None
        return Changed(tuple(found["paths"]), found["count"], found["moment"])

    async def _of(self, workspace: Workspace) -> Lookout | None:
        """The one that looks there; None where there can be none."""
        if (lookout := self._open.get(workspace.id)) is not None and not lookout.ending:
            return lookout
        runtime = self._workspaces.runtimes.get(workspace.runtime)
        if self._tasks is None or self._closed or runtime is None or not runtime.confines:
            return None
        await self._leave(workspace.id)
        self._make_room()
        lookout = self._open[workspace.id] = Lookout(runtime, workspace.id, self._settings)
        self._tasks.start_soon(self._own, lookout, name=f"looks at {workspace.id}")
        return lookout

    async def _own(self, lookout: Lookout) -> None:
        try:
            await lookout.own()
        finally:
            if self._open.get(lookout.workspace_id) is lookout:
                del self._open[lookout.workspace_id]
            lookout.gone.set()

    def _make_room(self) -> None:
        idle = sorted((each for each in self._open.values() if not each.busy), key=lambda each: each.used_at)
        for lookout in idle[: max(0, len(self._open) + 1 - OPEN_AT_ONCE)]:
            lookout.end()

    async def _leave(self, workspace_id: str) -> None:
        """End what looks there, before the place goes; whoever calls holds it. Gives up after some seconds."""
        if (lookout := self._open.get(workspace_id)) is not None:
            lookout.end()
            with anyio.move_on_after(CLOSE_S):
                await lookout.gone.wait()


class Lookout:
    """One jail. Somebody must be in `own` for as long as it lives, and nobody else in `look`."""

    def __init__(self, runtime: Runtime, workspace_id: str, settings: SnapshotSettings) -> None:
        self.workspace_id = workspace_id
        self.gone = anyio.Event()
        self.used_at = time.monotonic()
        self.busy = True  # until its first look has ended
        self._jail = SnapshotJail(runtime, workspace_id, 0.0)
        self._settings = settings
        self._opened = anyio.Event()
        self._left = anyio.Event()
        self._process: Process | None = None
        self._failure: KandevError | None = None

    @property
    def ending(self) -> bool:
        return self._left.is_set()

    def end(self) -> None:
        """Returns at once: `gone` says when."""
        self._left.set()

    async def own(self) -> None:
        """Until it is told to end, or nobody has looked for a minute. What keeps it from opening fails the looks."""
        try:
            await self._jail.runtime.prepare(self.workspace_id)
            async with self._jail.runtime.spawn(self._jail.spec()) as process:
                self._process = process
                await process.send(self._program())
                self._opened.set()
                await self._until_left()
        except KandevError as error:
            self._failure = error
        except BrokenPipeError:
            self._failure = SnapshotFailed("The program that looks for changes ended")
        except Exception as error:  # a runtime's own fault must end neither the host nor other looks
            log.exception("the looks at workspace %s failed", self.workspace_id)
            self._failure = Unavailable(f"The runtime failed: {type(error).__name__}")
        finally:
            self._left.set()
            self._opened.set()

    def _program(self) -> bytes:
        settings = self._settings
        arguments = {
            "name": secrets.token_hex(8),
            "budget_s": settings.walk_timeout_s,
            "max_files": settings.max_files,
            "file_bytes": settings.file_limit_bytes,
        }
        return program("look", "serve", arguments)

    async def _until_left(self) -> None:
        while not self.ending:
            rest_s = self.used_at + IDLE_S - time.monotonic()
            if rest_s <= 0 and not self.busy:
                self.end()  # now, so that nobody asks it while it goes
            with anyio.move_on_after(max(rest_s, BUSY_S)):
                await self._left.wait()

    async def look(self, moment: str | None, limit: int) -> dict[str, Any]:
        """What it answers. Raises what kept it from that; then, and when it is cancelled, it looks no more."""
        self.busy = True
        try:
            await self._opened.wait()
            if self._process is None or self._failure is not None or self.ending:
                raise self._failure or SnapshotFailed("The program that looks for changes ended")
            return await self._ask(self._process, msgspec.json.encode({"moment": moment, "limit": limit}) + b"\n")
        except BaseException:
            self.end()  # what it still says would be taken for the next answer
            raise
        finally:
            self.used_at, self.busy = time.monotonic(), False

    async def _ask(self, process: Process, line: bytes) -> dict[str, Any]:
        answer = bytearray()
        with suppress(BrokenPipeError):  # then there is no answer either
            await process.send(line)
        while not answer.endswith(b"\n"):
            part = await process.receive()
            if not part:
                raise await _ended(process)
            answer += part
            if len(answer) > REPLY_BYTES:
                raise SnapshotFailed(f"The answer has more than {REPLY_BYTES} bytes")
        reply: dict[str, Any] = msgspec.json.decode(answer, type=dict[str, Any])
        return reply


async def _ended(process: Process) -> SnapshotFailed:
    """Why it did."""
    told, code = bytearray(), 1
    with anyio.move_on_after(STDERR_S):
        while len(told) < STDERR_BYTES and (part := await process.receive_stderr()):
            told += part
        code = await process.wait()
    return SnapshotFailed(process.ending or said(Result(code, b"", bytes(told))))
