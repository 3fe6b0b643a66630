"""Where git in a jail asks for a repository behind ssh: it speaks git's own protocol to a loopback address, and the
host's ssh carries that to one command on one server. So no key, and nobody who signs with one, is in the jail: a
socket of ssh-agent there would log in for every repository and command that the key is good for.

Source of the protocol: gitprotocol-pack(5), git transport.
"""

from __future__ import annotations

import hmac
import logging
import os
import re
import shlex
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.abc
import msgspec
from anyio.abc import SocketAttribute
from anyio.streams.buffered import BufferedByteReceiveStream

from kandev_host.errors import KandevError, Unavailable
from kandev_host.printable import printable
from kandev_host.services.credentials.grants import SERVICES, Grant
from kandev_host.services.credentials.logins import host_environment
from kandev_host.services.credentials.uses import Uses

log = logging.getLogger(__name__)
LOOPBACK = "127.0.0.1"
CONNECTIONS = 8
GREETING_S = 30.0
GREETING_BYTES = 1024
TRANSFER_S = 3600.0
TRANSFER_BYTES = 8 << 30
STDERR_BYTES = 4096
CHUNK_BYTES = 64 << 10

_GREETING = re.compile(
    rb"(git-[a-z-]{1,40}) /([A-Za-z0-9_-]{20,100})/repo([^\0]*)\0host=[^\0]*\0(?:\0([^\0]*)\0)?.*", re.S
)
_VERSION = re.compile(r"version=[0-2]")
# First, since ssh takes the first value that it is given of each.
_OPTIONS = (
    "BatchMode=yes", "ConnectTimeout=20", "ForwardAgent=no", "ForwardX11=no", "ClearAllForwardings=yes",
    "PermitLocalCommand=no", "RequestTTY=no", "StrictHostKeyChecking=yes", "SendEnv=GIT_PROTOCOL",
)  # fmt: skip


class _Traffic(msgspec.Struct):
    sent: int = 0
    received: int = 0
    stderr: bytes = b""


class SshForwarder:
    """git over ssh to one repository."""

    def __init__(self, uses: Uses, key: str) -> None:
        self._uses = uses
        self._key = key
        self._room = anyio.CapacityLimiter(CONNECTIONS)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[int]:
        """Answer at this port of the loopback address until the context is left."""
        async with (
            await anyio.create_tcp_listener(local_host=LOOPBACK) as listening,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(listening.serve, self._connection)
            yield listening.extra(SocketAttribute.local_port)  # noqa: S610 (not Django)
            tasks.cancel_scope.cancel()

    async def _connection(self, stream: anyio.abc.SocketStream) -> None:
        async with stream:
            if self._room.available_tokens < 1:
                return
            async with self._room:
                try:
                    await self._speak(stream)
                except KandevError as error:  # it could not be written down, or ssh not be run
                    await _refuse(stream, error.message)
                except (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, anyio.IncompleteRead):
                    return
                except TimeoutError:
                    log.warning("credential %s: a transfer took too long", self._uses.grant.name)
                except Exception:  # of this connection alone
                    log.exception("credential %s: a transfer broke", self._uses.grant.name)

    async def _speak(self, stream: anyio.abc.SocketStream) -> None:
        reader = BufferedByteReceiveStream(stream)
        with anyio.fail_after(GREETING_S):
            found = await _greeting(reader)
        if found is None or not hmac.compare_digest(found[2].decode(), self._key):
            return
        service, rest = found[1].decode(), found[3].decode("ascii", "replace")
        verb, grant = SERVICES.get(service), self._uses.grant
        if not self._uses.allowance.take():
            await _refuse(stream, "Too many requests; wait a minute")
        elif verb is None or rest not in {"", ".git", "/", ".git/"}:
            await self._uses.tell(verb, "another repository or command", allowed=False)
            await _refuse(stream, f"Only {grant.url} is served here")
        elif not grant.allows(verb):
            await self._uses.tell(verb, "only fetch is granted", allowed=False)
            told = f'git = "push" in [credentials.{grant.name}] would allow it'
            await _refuse(stream, f"This agent may fetch from {grant.url}, not push to it; {told}")
        else:
            await self._uses.tell(verb, "begun")
            traffic = _Traffic()
            try:
                with anyio.fail_after(TRANSFER_S):
                    await self._carry(stream, reader, service, (found[4] or b"").decode("ascii", "replace"), traffic)
            finally:
                with anyio.CancelScope(shield=True):
                    await self._uses.ended(verb, traffic.sent, traffic.received)

    async def _carry(
        self,
        stream: anyio.abc.SocketStream,
        reader: BufferedByteReceiveStream,
        service: str,
        version: str,
        traffic: _Traffic,
    ) -> None:
        async with _ssh(self._uses.grant, service, version) as process, anyio.create_task_group() as tasks:
            tasks.start_soon(_send, reader, process, traffic)
            tasks.start_soon(_read_stderr, process, traffic)
            await _receive(process, stream, traffic)
            code = await process.wait()
            tasks.cancel_scope.cancel()
        if code != 0:
            told = printable(traffic.stderr.decode("utf-8", "replace").strip())
            log.warning("credential %s: ssh ended with status %d: %s", self._uses.grant.name, code, told)
        if traffic.received == 0:
            url = self._uses.grant.url
            await _refuse(stream, f"The host's ssh brought nothing from {url}: the log of kandev-host says why")


async def _greeting(reader: BufferedByteReceiveStream) -> re.Match[bytes] | None:
    length = await reader.receive_exactly(4)
    if not re.fullmatch(rb"[0-9a-f]{4}", length) or not 4 < int(length, 16) <= GREETING_BYTES:
        return None
    return _GREETING.fullmatch(await reader.receive_exactly(int(length, 16) - 4))


def ssh_command(grant: Grant, service: str) -> list[str]:
    """What the host runs: the ssh of its user, with its configuration, for one command."""
    program, *given = shlex.split(os.environ.get("GIT_SSH_COMMAND", "")) or ["ssh"]
    options = [word for option in _OPTIONS for word in ("-o", option)]
    port = [] if grant.port is None else ["-p", str(grant.port)]
    host = grant.host.strip("[]")
    path = "'" + grant.path.replace("'", "'\\''").replace("!", "'\\!'") + "'"
    return [program, *options, *given, *port, "--", f"{grant.user}@{host}", f"{service} {path}"]


@asynccontextmanager
async def _ssh(grant: Grant, service: str, version: str) -> AsyncIterator[anyio.abc.Process]:
    """Leaving ends it, and reaps it."""
    env = host_environment() | ({"GIT_PROTOCOL": version} if _VERSION.fullmatch(version) else {})
    try:
        process = await anyio.open_process(
            ssh_command(grant, service),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise Unavailable(f"The host cannot run ssh: {error.strerror}") from error
    try:
        yield process
    finally:
        with anyio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
            await process.aclose()


async def _send(reader: BufferedByteReceiveStream, process: anyio.abc.Process, traffic: _Traffic) -> None:
    """What git says, until it says no more."""
    assert process.stdin is not None
    try:
        while True:
            chunk = await reader.receive(CHUNK_BYTES)
            traffic.sent += len(chunk)
            if traffic.sent > TRANSFER_BYTES:
                process.kill()
                return
            await process.stdin.send(chunk)
    except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
        await process.stdin.aclose()


async def _receive(process: anyio.abc.Process, stream: anyio.abc.SocketStream, traffic: _Traffic) -> None:
    """What the server says, until it says no more or nobody reads it."""
    assert process.stdout is not None
    while True:
        try:
            chunk = await process.stdout.receive(CHUNK_BYTES)
        except anyio.EndOfStream:
            return
        traffic.received += len(chunk)
        if traffic.received > TRANSFER_BYTES:
            process.kill()
            return
        try:
            await stream.send(chunk)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            process.kill()
            return


async def _read_stderr(process: anyio.abc.Process, traffic: _Traffic) -> None:
    assert process.stderr is not None
    try:
        while True:
            traffic.stderr = (traffic.stderr + await process.stderr.receive(CHUNK_BYTES))[-STDERR_BYTES:]
    except anyio.EndOfStream:
        return


async def _refuse(stream: anyio.abc.SocketStream, message: str) -> None:
    """A line that git shows as `remote error` (gitprotocol-pack: ERR)."""
    line = f"ERR {message}\n".encode()[:1000]
    await stream.send(b"%04x" % (len(line) + 4) + line)
