"""What goes over an agent's pipes, kept as it came, for whoever has to find out why an agent did what it did.

The event loop hands bytes on and never waits; one thread of the host takes out secrets and writes. What it cannot keep
up with, or what the disk does not take, is dropped, and the file says so. See `capture_lines` and `capture_files`.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import anyio
import msgspec

from kandev_host.interfaces import Container, Process, Stats, container_of
from kandev_host.secrets import KnownOf
from kandev_host.sessions import capture_files
from kandev_host.sessions.capture_files import Page, Tape
from kandev_host.sessions.capture_lines import Direction, Framer
from kandev_host.settings import SessionSettings

logger = logging.getLogger(__name__)

WAITING_BYTES = 4 << 20
PIECE_BYTES = 200  # what holding one piece costs beside its bytes
# A flood is sampled: nobody reads so much, and keeping it would cost the run a tenth of its speed.
FLOOD_BYTES = 4 << 20
FLOOD_BYTES_PER_S = 1 << 20
BATCH_S = 0.02
WRITTEN_S = 2.0
CLOSE_S = 5.0
COUNT_EVERY_BYTES = 16 << 20

Job = Callable[[], None]


class _Piece(msgspec.Struct, frozen=True):
    recorder: _Recorder
    direction: Direction
    data: bytes
    gap: int
    at_s: float


class _Recorder:
    """One agent's capture as the thread has it."""

    def __init__(self, tape: Tape, secrets: KnownOf) -> None:
        self.tape = tape
        self._framers = {direction: Framer(direction, secrets) for direction in _DIRECTIONS}
        self._refused = False

    def take(self, piece: _Piece) -> int:
        """Write what came; how many bytes that were."""
        framer = self._framers[piece.direction]
        if piece.gap:
            framer.gap(piece.gap)
        if not piece.data:
            return 0
        owed = framer.dropped
        return self._write(framer, framer.feed(piece.data, _moment(piece.at_s)), owed)

    def finish(self) -> None:
        at = _moment(time.time())
        for framer in self._framers.values():
            owed = framer.dropped
            self._write(framer, framer.finish(at), owed)
        self.tape.close()

    def _write(self, framer: Framer, lines: bytes, owed: int) -> int:
        """How many bytes went in; the rest, and the `owed` ones that `lines` tell of, are told of later."""
        if not lines:
            return 0
        before = self.tape.written
        try:
            self.tape.write(lines)
        except OSError as error:
            framer.dropped += owed + len(lines) - (self.tape.written - before)
            if not self._refused:
                logger.warning("What an agent says is not captured for now: %s", error)
            self._refused = True
        else:
            self._refused = False
        return self.tape.written - before


_DIRECTIONS: tuple[Direction, ...] = ("in", "out", "err")


class Capture:
    """The capture of one agent that runs, as the event loop has it."""

    def __init__(self, recorder: _Recorder, put: Callable[[_Piece], bool], close: Callable[[_Recorder], None]) -> None:
        self._recorder = recorder
        self._put = put
        self._close = close
        self._gaps = dict.fromkeys(_DIRECTIONS, 0)
        self._allowance = float(FLOOD_BYTES)
        self._refilled = time.monotonic()

    def note(self, direction: Direction, data: bytes) -> None:
        """Keep what went this way. Never waits."""
        now = time.monotonic()
        self._allowance = min(FLOOD_BYTES, self._allowance + (now - self._refilled) * FLOOD_BYTES_PER_S)
        self._refilled = now
        size, gap = len(data), self._gaps[direction]
        if size <= self._allowance and self._put(_Piece(self._recorder, direction, data, gap, time.time())):
            self._allowance -= size
            self._gaps[direction] = 0
        else:
            self._gaps[direction] = gap + size

    def close(self) -> None:
        """Nothing more comes."""
        for direction, gap in self._gaps.items():
            if gap:
                self._put(_Piece(self._recorder, direction, b"", gap, time.time()))
        self._close(self._recorder)


class Captures:
    """All captures of a host, below one folder. Its thread starts with the first thing to do; `aclose` ends it."""

    def __init__(self, folder: Path, *, enabled: bool, agent_limit_bytes: int, limit_bytes: int) -> None:
        self._folder = folder
        self._enabled = enabled
        self._agent_limit_bytes = min(agent_limit_bytes, limit_bytes)
        self._limit_bytes = limit_bytes
        self._jobs: queue.SimpleQueue[_Piece | Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._put_bytes = 0  # counted by the event loop alone
        self._taken_bytes = 0  # counted by the thread alone
        self._live: set[_Recorder] = set()
        self._unlooked_bytes = COUNT_EVERY_BYTES

    @classmethod
    def of_settings(cls, folder: Path, settings: SessionSettings) -> Captures:
        """As the settings say."""
        return cls(
            folder,
            enabled=settings.capture,
            agent_limit_bytes=settings.capture_limit_bytes,
            limit_bytes=settings.captures_limit_bytes,
        )

    # --- what the event loop calls ----------------------------------------------------------------------------------

    def of(self, agent_id: str, task_id: str) -> Capture | None:
        """A capture for an agent that starts; None if there are to be none."""
        if not self._enabled:
            return None
        tape = Tape(self._folder / task_id, agent_id, self._agent_limit_bytes)
        return Capture(_Recorder(tape, KnownOf(agent_id, task_id)), self._put, self._finish)

    async def read(self, agent_id: str, task_id: str, offset: int, limit_bytes: int) -> Page | None:
        """What was captured from `offset` on; None if nothing is kept of this agent. Waits for what is on its way."""
        return await anyio.to_thread.run_sync(self._read, agent_id, task_id, offset, limit_bytes)

    async def discard(self, task_id: str) -> None:
        """Delete what was captured of a task's agents. What cannot be deleted is logged."""
        await anyio.to_thread.run_sync(self._written, lambda: self._remove(task_id))

    async def tasks(self) -> list[str]:
        """The tasks that have captures."""
        return await anyio.to_thread.run_sync(capture_files.tasks, self._folder)

    async def aclose(self) -> None:
        """End the thread when it has written what waits; it is not waited for longer than 5 s."""
        if self._thread is not None:
            self._jobs.put(None)
            await anyio.to_thread.run_sync(self._thread.join, CLOSE_S)

    def _put(self, piece: _Piece) -> bool:
        size = len(piece.data) + PIECE_BYTES
        if piece.data and self._put_bytes - self._taken_bytes + size > WAITING_BYTES:
            return False
        self._put_bytes += size
        self._do(piece)
        return True

    def _finish(self, recorder: _Recorder) -> None:
        def finish() -> None:
            self._live.discard(recorder)
            recorder.finish()

        if self._thread is not None:
            self._do(finish)

    def _do(self, job: _Piece | Job) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="captures", daemon=True)
            self._thread.start()
        self._jobs.put(job)

    # --- what worker threads call -----------------------------------------------------------------------------------

    def _written(self, job: Job) -> None:
        """Do it behind all that waits, and wait for it; not for ever, as a disk may hang."""
        if self._thread is None:
            job()
            return
        done: Future[None] = Future()

        def run() -> None:
            try:
                job()
            finally:
                done.set_result(None)

        self._jobs.put(run)
        try:
            done.result(WRITTEN_S)
        except TimeoutError:
            logger.warning("Captures are behind: the disk is slow")

    def _read(self, agent_id: str, task_id: str, offset: int, limit_bytes: int) -> Page | None:
        self._written(lambda: None)
        while True:
            found = capture_files.parts(self._folder / task_id, agent_id)
            try:
                return capture_files.read(found, offset, limit_bytes) if found else None
            except FileNotFoundError:
                continue  # the oldest has just made room for a new one

    # --- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            if isinstance(job, _Piece):
                self._take(job)
                if self._jobs.empty():
                    time.sleep(BATCH_S)  # a stream of small pieces wakes it fifty times a second, not thousands
            else:
                self._perform(job)

    def _perform(self, job: Job) -> None:
        try:
            job()
        except OSError as error:
            logger.warning("A capture could not be closed: %s", error)
        except Exception:
            logger.exception("A capture could not be closed")

    def _take(self, piece: _Piece) -> None:
        try:
            self._live.add(piece.recorder)
            self._unlooked_bytes += piece.recorder.take(piece)
            if self._unlooked_bytes >= min(COUNT_EVERY_BYTES, self._agent_limit_bytes):
                self._unlooked_bytes = 0
                self._make_room()
        except OSError as error:
            logger.warning("Old captures could not be removed: %s", error)
        except Exception:
            logger.exception("A piece could not be captured")
        finally:
            self._taken_bytes += len(piece.data) + PIECE_BYTES

    def _make_room(self) -> None:
        """The oldest files go until the rest is within the limit; one that is being written is ended first."""
        found = sorted(capture_files.every(self._folder))
        over = sum(size for _, size, _ in found) - self._limit_bytes
        writing = {recorder.tape.path: recorder.tape for recorder in self._live}
        for _, size, path in found:
            if over <= 0:
                return
            if path in writing:
                writing[path].end_part()
            path.unlink(missing_ok=True)
            over -= size

    def _remove(self, task_id: str) -> None:
        try:
            capture_files.remove(self._folder / task_id)
        except OSError as error:
            logger.warning("The captures of task %s stay: %s", task_id, error)


class CapturedProcess:
    """A process whose pipes are captured."""

    def __init__(self, process: Process, capture: Capture) -> None:
        self._process = process
        self._capture = capture

    @property
    def ref(self) -> str:
        return self._process.ref

    @property
    def adoptable(self) -> bool:
        return self._process.adoptable

    @property
    def container(self) -> Container | None:
        return container_of(self._process)

    @property
    def ending(self) -> str | None:
        return self._process.ending

    async def receive(self, max_bytes: int = 65536) -> bytes:
        data = await self._process.receive(max_bytes)
        if data:
            self._capture.note("out", data)
        return data

    async def receive_stderr(self, max_bytes: int = 65536) -> bytes:
        data = await self._process.receive_stderr(max_bytes)
        if data:
            self._capture.note("err", data)
        return data

    async def send(self, data: bytes) -> None:
        self._capture.note("in", data)
        await self._process.send(data)

    async def close_stdin(self) -> None:
        await self._process.close_stdin()

    async def wait(self) -> int:
        return await self._process.wait()

    async def terminate(self) -> None:
        await self._process.terminate()

    async def kill(self) -> None:
        await self._process.kill()

    async def stats(self) -> Stats:
        return await self._process.stats()


@asynccontextmanager
async def captured(started: AbstractAsyncContextManager[Process], capture: Capture) -> AsyncIterator[Process]:
    """The process that `started` gives, captured until it is left."""
    try:
        async with started as process:
            yield CapturedProcess(process, capture)
    finally:
        capture.close()


def _moment(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
