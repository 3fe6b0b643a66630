"""Where git in a jail asks over HTTP, and what is let through of it: the refs, the objects and the pushes of one
repository. The address in the jail is a loopback one, and only who knows its long random path is answered.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
from aiohttp import web

from kandev_host.errors import KandevError
from kandev_host.services.credentials.grants import SERVICES
from kandev_host.services.credentials.uses import Uses
from kandev_host.services.forwarding.upstream import TRANSFER_S, Upstream, UpstreamError

log = logging.getLogger(__name__)
LOOPBACK = "127.0.0.1"
CONNECTIONS = 32
FIRST_REQUEST_S = 30.0
KEPT_ALIVE_S = 15.0
# git buffers as much itself before it sends in chunks (http.postBuffer).
BUFFERED_BYTES = 1 << 20
FETCH_ASKED_BYTES = 64 << 20
TRANSFER_BYTES = 8 << 30
CHUNK_BYTES = 64 << 10

_ASKED = re.compile(r"/([A-Za-z0-9_-]{20,100})/repo([!-~]*)")
_VERSION = re.compile(r"version=[0-2]")


class HttpForwarder:
    """git's smart HTTP of one repository. `serving` opens it."""

    def __init__(self, uses: Uses, key: str) -> None:
        self._uses = uses
        self._key = key
        self._upstream = Upstream(uses.grant)
        self._silent: set[web.RequestHandler] = set()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[int]:
        """Answer at this port of the loopback address until the context is left. Raises `UpstreamError`."""
        loop = asyncio.get_running_loop()
        # What is compressed goes on as it came: its name for that goes along.
        server = web.Server(self._handle, access_log=None, keepalive_timeout=KEPT_ALIVE_S, auto_decompress=False)

        def accept() -> asyncio.BaseProtocol:
            if len(server.connections) >= CONNECTIONS:
                return _Refusing()
            protocol = server()
            self._silent.add(protocol)
            loop.call_later(FIRST_REQUEST_S, self._drop_silent, protocol)
            return protocol

        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._upstream)
            listening = await loop.create_server(accept, LOOPBACK, 0)
            try:
                yield listening.sockets[0].getsockname()[1]
            finally:
                listening.close()
                await server.shutdown(0)

    def _drop_silent(self, protocol: web.RequestHandler) -> None:
        if protocol in self._silent:
            self._silent.discard(protocol)
            if protocol.transport is not None:
                protocol.transport.abort()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self._silent.discard(request.protocol)
        asked = _ASKED.fullmatch(request.raw_path)
        if asked is None or not hmac.compare_digest(asked[1], self._key):
            return web.Response(status=404, text="Nothing is here\n")
        grant, rest = self._uses.grant, asked[2]
        if rest[:1] != "/" and not rest.startswith(".git/"):
            # Another one, whose URL begins like it: git goes there as it would have, with nothing of ours.
            return web.Response(status=302, headers={"Location": grant.spellings()[0] + rest})
        try:
            return await self._answer(request, rest.removeprefix(".git"))
        except UpstreamError as error:
            log.warning("credential %s: %s", grant.name, error.message)
            return _refusal(502 if error.passes else 403, error.message)
        except TimeoutError:
            log.warning("credential %s: a transfer took longer than %g s", grant.name, TRANSFER_S)
            if request.transport is not None:
                request.transport.abort()
            return _refusal(504, "It took too long")
        except KandevError as error:
            return _refusal(503, f"kandev-host could not write down that this was asked for: {error.message}")

    async def _answer(self, request: web.BaseRequest, rest: str) -> web.StreamResponse:
        service = _service(request.method, rest)
        if not self._uses.allowance.take():
            return _refusal(429, "Too many requests; wait a minute")
        if service is None:
            await self._uses.tell(None, "no request of git's smart HTTP", allowed=False)
            return _refusal(403, "Only git fetch and git push are served here")
        verb = SERVICES[service]
        if not self._uses.grant.allows(verb):
            await self._uses.tell(verb, "only fetch is granted", allowed=False)
            told = f'git = "push" in [credentials.{self._uses.grant.name}] would allow it'
            return _refusal(403, f"This agent may fetch from {self._uses.grant.url}, not push to it; {told}")
        version = request.headers.get("Git-Protocol", "")
        headers = {"Git-Protocol": version} if _VERSION.fullmatch(version) else {}
        async with asyncio.timeout(TRANSFER_S):
            if request.method == "GET":
                await self._uses.tell(verb, "asked for the refs")
                async with self._upstream.advertised(service, headers) as content:
                    return (await self._passed(request, f"application/x-{service}-advertisement", content))[0]
            return await self._exchange(request, service, headers)

    async def _exchange(self, request: web.BaseRequest, service: str, headers: Mapping[str, str]) -> web.StreamResponse:
        verb = SERVICES[service]
        encoding = request.headers.get("Content-Encoding", "identity")
        if request.content_type != f"application/x-{service}-request" or encoding not in {"identity", "gzip"}:
            await self._uses.tell(verb, "no request of git's smart HTTP", allowed=False)
            return _refusal(415, "Only git fetch and git push are served here")
        await self._uses.tell(verb, "begun")
        body = _Body(request, TRANSFER_BYTES if verb == "push" else FETCH_ASKED_BYTES)
        more = {"Content-Encoding": encoding} if encoding == "gzip" else {}
        received = 0
        try:
            async with self._upstream.served(service, {**headers, **more}, await body.given()) as content:
                response, received = await self._passed(request, f"application/x-{service}-result", content)
                return response
        finally:
            await self._uses.ended(verb, body.count, received)

    async def _passed(
        self, request: web.BaseRequest, kind: str, content: aiohttp.StreamReader
    ) -> tuple[web.StreamResponse, int]:
        """What the server says, chunk by chunk as git reads it. What breaks off does not look like an end."""
        response = web.StreamResponse(headers={"Content-Type": kind, "Cache-Control": "no-cache"})
        await response.prepare(request)
        count = 0
        try:
            async for chunk in content.iter_chunked(CHUNK_BYTES):
                count += len(chunk)
                if count > TRANSFER_BYTES:
                    raise UpstreamError(f"more than {TRANSFER_BYTES} bytes came")
                await response.write(chunk)
            await response.write_eof()
        except (aiohttp.ClientError, OSError, TimeoutError, UpstreamError) as error:
            log.warning("credential %s: a transfer broke off: %s", self._uses.grant.name, error)
            if request.transport is not None:
                request.transport.abort()
        return response, count


class _Body:
    """What git sends, counted and bounded."""

    def __init__(self, request: web.BaseRequest, limit_bytes: int) -> None:
        self._request = request
        self._limit = limit_bytes
        self.count = 0

    async def given(self) -> bytes | AsyncIterator[bytes]:
        """Whole if it is short, for servers that want its length; else bit by bit."""
        first = b""
        async for chunk in self._chunks():
            first += chunk
            if len(first) > BUFFERED_BYTES:
                return self._all(first)
        return first

    async def _all(self, first: bytes) -> AsyncIterator[bytes]:
        yield first
        async for chunk in self._chunks():
            yield chunk

    async def _chunks(self) -> AsyncIterator[bytes]:
        while chunk := await self._request.content.read(CHUNK_BYTES):
            self.count += len(chunk)
            if self.count > self._limit:
                raise UpstreamError(f"A request must not be longer than {self._limit} bytes")
            yield chunk


class _Refusing(asyncio.Protocol):
    """One connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def _service(method: str, rest: str) -> str | None:
    for service in SERVICES:
        if (method, rest) in {("GET", f"/info/refs?service={service}"), ("POST", f"/{service}")}:
            return service
    return None


def _refusal(status: int, message: str) -> web.Response:
    """git shows the lines of a text (http.c: show_http_message); never 401, at which it would ask for a password."""
    return web.Response(status=status, text=f"{message}\n", headers={"Cache-Control": "no-cache"})
