"""A plain process of the host, and what can be found of all that it started."""

from __future__ import annotations

import os
import signal
import subprocess

import anyio

from kandev_host import Stats
from kandev_sandbox import records
from kandev_sandbox.pipes import PipeReader, PipeWriter, pipe
from kandev_sandbox.processes import identify, signal_process, tree, usage

KILL_TIMEOUT_S = 5.0


class PlainProcess:
    """Started in a session of its own. What it starts is found as descendant, by session, or by its mark."""

    def __init__(self, process_id: str, owner_name: str, popen: subprocess.Popen[bytes], pipes: tuple[int, int, int]):
        self.ref = process_id
        self._owner_name = owner_name
        self._popen = popen
        self._stdin = PipeWriter(pipes[0])
        self._stdout = PipeReader(pipes[1])
        self._stderr = PipeReader(pipes[2])
        self._descriptor = os.pidfd_open(popen.pid)
        self._waiting = anyio.Lock()

    @property
    def pid(self) -> int:
        """The pid of the command on the host."""
        return self._popen.pid

    @property
    def adoptable(self) -> bool:
        return False

    @property
    def ending(self) -> str | None:
        """Nothing limits it."""
        return None

    async def receive(self, max_bytes: int = 65536) -> bytes:
        return await _receive(self._stdout, max_bytes)

    async def receive_stderr(self, max_bytes: int = 65536) -> bytes:
        return await _receive(self._stderr, max_bytes)

    async def send(self, data: bytes) -> None:
        try:
            await self._stdin.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise BrokenPipeError("nobody reads stdin") from error

    async def close_stdin(self) -> None:
        await self._stdin.aclose()

    async def wait(self) -> int:
        async with self._waiting:
            if self._popen.returncode is None:
                await anyio.wait_readable(self._descriptor)
                self._popen.wait()
        return self._popen.returncode

    async def terminate(self) -> None:
        if self._popen.returncode is None:
            signal.pidfd_send_signal(self._descriptor, signal.SIGTERM)

    async def kill(self) -> None:
        """SIGKILL to all that is found. One that left the session *and* cleared its environment escapes: no jail."""
        with anyio.move_on_after(KILL_TIMEOUT_S, shield=True):
            descendants = [identify(pid) for pid in tree(self.pid)] if self._popen.returncode is None else []
            for who in descendants:
                if who is not None:
                    signal_process(who, signal.SIGKILL)
            await anyio.to_thread.run_sync(self._end_marked)
            await self.wait()

    async def stats(self) -> Stats:
        if self._popen.returncode is not None:
            return Stats()
        used = await anyio.to_thread.run_sync(usage, self.pid)
        return Stats(used.cpu_s, used.rss_bytes, used.processes)

    def close(self) -> None:
        """Close the pipes; call it after the end."""
        for stream in (self._stdin, self._stdout, self._stderr):
            stream.close()
        os.close(self._descriptor)

    def _end_marked(self) -> None:
        for found in records.jails(self._owner_name):
            if found.id == self.ref:
                records.end(found)


def start(command: tuple[str, ...], cwd: str, env: dict[str, str], owner: records.Owner) -> PlainProcess:
    """Spawn it. Raises `OSError`."""
    process_id = records.new_id()
    descriptors = [*pipe(), *pipe(), *pipe()]
    stdin_reader, stdin_writer, stdout_reader, stdout_writer, stderr_reader, stderr_writer = descriptors
    try:
        popen = subprocess.Popen(
            command,
            cwd=cwd,
            env=env | {records.VARIABLE: owner.mark(process_id)},
            stdin=stdin_reader,
            stdout=stdout_writer,
            stderr=stderr_writer,
            start_new_session=True,
        )
    except OSError:
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    for descriptor in (stdin_reader, stdout_writer, stderr_writer):
        os.close(descriptor)
    return PlainProcess(process_id, owner.name, popen, (stdin_writer, stdout_reader, stderr_reader))


async def _receive(stream: PipeReader, max_bytes: int) -> bytes:
    try:
        return await stream.receive(max_bytes)
    except (anyio.EndOfStream, anyio.ClosedResourceError):
        return b""
