"""Questions to the engine that take long, or that turn into a stream: on the event loop, without a thread for each."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import anyio
import msgspec

from kandev_docker.engine import EngineGone
from kandev_host import errors
from kandev_sandbox.sockets import Stream, TooLong

HEAD_BYTES = 64 << 10
BODY_BYTES = 1 << 20
CONNECT_TIMEOUT_S = 10.0


class Answer(msgspec.Struct):
    """The head of an answer, and the stream that its body comes from; whoever has it closes it."""

    status: int
    headers: Mapping[str, str]
    stream: Stream

    async def body(self) -> bytes:
        """All of it, however long it takes to come. Raises `OSError`, `EOFError`, `TooLong`."""
        length = self.headers.get("content-length")
        if length is not None:
            if int(length) > BODY_BYTES:
                raise TooLong
            return await self.stream.receive_exactly(int(length))
        if self.headers.get("transfer-encoding") == "chunked":
            return await self._chunked()
        found = bytearray()
        while more := await self.stream.receive():
            found += more
            if len(found) > BODY_BYTES:
                raise TooLong
        return bytes(found)

    async def _chunked(self) -> bytes:
        found = bytearray()
        while size := int((await self.stream.receive_until(b"\r\n", 32)).split(b";")[0], 16):
            if len(found) + size > BODY_BYTES:
                raise TooLong
            found += await self.stream.receive_exactly(size)
            await self.stream.receive_exactly(2)
        return bytes(found)


async def ask(
    path: str,
    method: str,
    target: str,
    query: Mapping[str, Any],
    *,
    upgrade: bool = False,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    version: str = "1.1",
    timeout_s: float | None,
) -> Answer:
    """Send a request, its body in JSON, and read the head of the answer, within `timeout_s` (None: whenever it comes).

    As of HTTP `version` 1.0, a body of unknown length comes as it is, without chunks.

    Raises `EngineGone`, and `Unavailable` with the engine's words for an answer of 400 and more.
    """
    words = {name: str(value) for name, value in query.items()}
    lines = [f"{method} {target}?{urlencode(words)} HTTP/{version}", "Host: docker", f"Content-Length: {len(body)}"]
    lines += ["Content-Type: application/json"] if body else []
    lines += ["Connection: Upgrade", "Upgrade: tcp"] if upgrade else ["Connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    try:
        with anyio.fail_after(timeout_s):
            stream = Stream(await _connected(path))
            try:
                await stream.send("\r\n".join((*lines, "", "")).encode() + body)
                answer = _head(await stream.receive_until(b"\r\n\r\n", HEAD_BYTES), stream)
                if answer.status >= 400:
                    raise errors.Unavailable(f"The Docker engine refuses: {_said(await answer.body())}")
            except BaseException:
                stream.close()
                raise
    except (OSError, EOFError, TooLong, ValueError) as error:
        raise EngineGone(f"The Docker engine at {path} does not answer: {error or type(error).__name__}.") from error
    return answer


async def _connected(path: str) -> socket.socket:
    connecting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connecting.setblocking(False)
    try:
        with anyio.fail_after(CONNECT_TIMEOUT_S):
            while True:
                try:
                    connecting.connect(path)
                except BlockingIOError:  # its backlog is full: unix(7)
                    await anyio.sleep(0.02)
                else:
                    return connecting
    except BaseException:
        connecting.close()
        raise


def _head(text: bytes, stream: Stream) -> Answer:
    first, *rest = text.decode("latin-1").split("\r\n")
    version, status, *_ = first.split(" ")
    if not version.startswith("HTTP/1."):
        raise ValueError("that is no HTTP")
    pairs = (line.partition(":") for line in rest if line)
    return Answer(int(status), {name.strip().lower(): value.strip().lower() for name, _, value in pairs}, stream)


def _said(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace").strip()[:400]
