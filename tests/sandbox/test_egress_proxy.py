"""The proxy of an allowlist, spoken to directly; in a jail it is the same (test_egress_jail.py)."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import pytest
from anyio.abc import SocketStream

from kandev_sandbox import Decision, sockets
from kandev_sandbox.egress import http, proxy, requests, socks
from kandev_sandbox.egress.gate import Gate
from kandev_sandbox.egress.lookup import Resolver
from kandev_sandbox.egress.rules import Rules

pytestmark = pytest.mark.anyio
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


@dataclass
class Origin:
    """A server that keeps what it got, and answers when the request has come to its end."""

    port: int
    got: list[bytes] = field(default_factory=list)
    answer: bytes = ANSWER
    until: bytes = b"\r\n\r\n"

    async def serve(self, client: SocketStream) -> None:
        async with client:
            self.got.append(b"")
            while self.until not in self.got[-1]:
                try:
                    self.got[-1] += await client.receive()
                except anyio.EndOfStream:
                    break
            await client.send(self.answer)


@dataclass
class Proxy:
    http_port: int
    socks_port: int
    decisions: list[Decision]
    ended: list[Decision]

    async def http(self, request: bytes) -> bytes:
        return await talk(self.http_port, request)

    async def socks(self, request: bytes) -> bytes:
        return await talk(self.socks_port, request)


async def talk(port: int, content: bytes, *, half_close: bool = False) -> bytes:
    with anyio.fail_after(60):
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(content)
            if half_close:
                await stream.send_eof()
            found = b""
            try:
                while True:
                    found += await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return found


@asynccontextmanager
async def origin(**fields: bytes) -> AsyncIterator[Origin]:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as group:
        found = Origin(listener.extra(anyio.abc.SocketAttribute.local_port), **fields)
        group.start_soon(listener.serve, found.serve)
        yield found
        group.cancel_scope.cancel()


@asynccontextmanager
async def proxied(*allow: str, names: dict[str, Sequence[str]] | None = None) -> AsyncIterator[Proxy]:
    async def lookup(name: str, port: int) -> Sequence[str]:
        assert names is not None, f"{name} was looked up"
        return names[name]

    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    for listener in listeners:
        listener.setblocking(False)
    decisions: list[Decision] = []
    ended: list[Decision] = []
    ports = [listener.getsockname()[1] for listener in listeners]
    gate = Gate(Rules(allow), tell=lambda one: (ended if one.ended else decisions).append(one), lookup=lookup)
    async with proxy.serving(listeners[0], listeners[1], gate):
        yield Proxy(ports[0], ports[1], decisions, ended)


@asynccontextmanager
async def served(*allow: str, **fields: bytes) -> AsyncIterator[tuple[Proxy, Origin]]:
    """An origin under the allowed name `a.example`, whose address is listed as well."""
    names = {"a.example": ["127.0.0.1"]}
    async with (
        origin(**fields) as server,
        proxied(f"a.example:{server.port}", f"127.0.0.1:{server.port}", *allow, names=names) as found,
    ):
        yield found, server


def by_name(name: str, port: int) -> bytes:
    return b"\x05\x01\x00\x05\x01\x00\x03" + bytes([len(name)]) + name.encode() + port.to_bytes(2)


async def test_a_tunnel_leads_to_an_allowed_name() -> None:
    async with served() as (found, server):
        request = f"CONNECT a.example:{server.port} HTTP/1.1\r\nHost: x\r\n\r\nhello\r\n\r\n"
        answer = await found.http(request.encode())
    assert answer == b"HTTP/1.1 200 Connection established\r\n\r\n" + ANSWER
    assert server.got == [b"hello\r\n\r\n"]
    assert [(one.allowed, one.host, one.protocol, one.address) for one in found.decisions] == [
        (True, "a.example", "connect", "127.0.0.1")
    ]


async def test_a_request_for_an_address_of_http_is_sent_on_once_and_as_the_address_says() -> None:
    async with served() as (found, server):
        target = f"a.example:{server.port}"
        request = (
            f"GET http://{target}/path?q#no HTTP/1.1\r\nHost: other.example\r\nProxy-Authorization: Basic eA==\r\n"
            "Connection: keep-alive, x-hop\r\nX-Hop: 1\r\nX-End: 2\r\nUpgrade: h2c\r\n\r\n"
        ).replace("#no", "")
        answer = await found.http(request.encode() + b"GET /second HTTP/1.1\r\nHost: other.example\r\n\r\n")
    assert answer == ANSWER
    assert server.got == [f"GET /path?q HTTP/1.1\r\nHost: {target}\r\nX-End: 2\r\nConnection: close\r\n\r\n".encode()]


@pytest.mark.parametrize(
    ("framing", "body", "arrives"),
    [
        (b"Content-Length: 5\r\n", b"12345END", b"12345"),
        (b"Transfer-Encoding: chunked\r\n", b"3;x=y\r\nabc\r\n0\r\nTrailer: 1\r\n\r\nGET /", b"3\r\nabc\r\n0\r\n\r\n"),
        (b"", b"GET / HTTP/1.1\r\n\r\n", b""),
    ],
    ids=["length", "chunks", "none"],
)
async def test_nothing_can_hide_behind_a_body(framing: bytes, body: bytes, arrives: bytes) -> None:
    async with served(until=b"\r\n\r\n" + arrives) as (found, server):
        request = b"POST http://a.example:%d/ HTTP/1.1\r\n%s\r\n%s" % (server.port, framing, body)
        assert await found.http(request) == ANSWER
    assert server.got[0].partition(b"\r\n\r\n")[2] == arrives


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"GET https://a.example/ HTTP/1.1\r\n\r\n",
        b"GET ftp://a.example/ HTTP/1.1\r\n\r\n",
        b"GET http://a.example/#x HTTP/1.1\r\n\r\n",
        b"GET http://a.example/ HTTP/2.0\r\n\r\n",
        b"GET http://a.example/ HTTP/1.1 \r\n\r\n",
        b"GET  http://a.example/ HTTP/1.1\r\n\r\n",
        b"GET http://a.example/\r\n\r\n",
        b"G\x00T http://a.example/ HTTP/1.1\r\n\r\n",
        b"GET http://a.example/ HTTP/1.1\r\nA : b\r\n\r\n",
        b"GET http://a.example/ HTTP/1.1\r\nA\r\n\r\n",
        b"GET http://a.example/ HTTP/1.1\r\n folded\r\n\r\n",
        b"GET http://a.example/ HTTP/1.1\r\nA: b\nC: d\r\n\r\n",
        b"GET http://a.example/ HTTP/1.1\r\nA: b\rC: d\r\n\r\n",
        b"GET http://a.example/ HTTP/1.1\r\nA: \x00\r\n\r\n",
        b"POST http://a.example/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        b"POST http://a.example/ HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n",
        b"POST http://a.example/ HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
        b"POST http://a.example/ HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST http://a.example/ HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST http://a.example/ HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"POST http://a.example/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST http://a.example/ HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n",
        b"POST http://a.example/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"CONNECT a.example HTTP/1.1\r\n\r\n",
        b"CONNECT a.example:0 HTTP/1.1\r\n\r\n",
        b"CONNECT a.example:65536 HTTP/1.1\r\n\r\n",
        b"CONNECT a.example:4 43 HTTP/1.1\r\n\r\n",
        b"CONNECT a:b:443 HTTP/1.1\r\n\r\n",
        b"CONNECT [::1:443 HTTP/1.1\r\n\r\n",
        b"\x05\x01\x00\r\n\r\n",
        b"\r\n\r\n",
        b"GET http://a.example/ HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n",
    ],
)
async def test_a_request_that_could_be_read_in_two_ways_is_refused(head: bytes) -> None:
    async with proxied("a.example") as found:
        answer = await found.http(head)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert found.decisions == []


async def test_a_head_without_an_end_is_refused() -> None:
    async with proxied("a.example") as found:
        answer = await found.http(b"GET http://a.example/ HTTP/1.1\r\nA: " + b"x" * requests.HEAD_BYTES * 2)
    assert answer.startswith(b"HTTP/1.1 431 ")


async def test_whoever_says_nothing_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "HEAD_TIMEOUT_S", 0.05)
    async with proxied("a.example") as found:
        assert (await found.http(b"GET ")).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("chunks", [b"x\r\n", b"-1\r\n", b"0x3\r\nabc\r\n", b"3\r\nabcd\r\n", b"ffffffffffffffff\r\n"])
async def test_what_is_no_chunk_ends_the_exchange(chunks: bytes) -> None:
    async with served(until=b"never") as (found, server):
        head = b"POST http://a.example:%d/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" % server.port
        assert await found.http(head + chunks) == b""


async def test_a_denial_says_in_its_first_line_how_to_allow_it() -> None:
    async with proxied("a.example") as found:
        answer = await found.http(b"CONNECT registry.npmjs.org:443 HTTP/1.1\r\n\r\n")
    line, _, rest = answer.partition(b"\r\n")
    assert line == (
        b"HTTP/1.1 403 registry.npmjs.org:443 is not in the allowlist of this jail; to allow it: "
        b"add registry.npmjs.org to allow (or @npm)"
    )
    assert rest.endswith(b"to allow (or @npm)\n")


async def test_a_denied_name_is_never_looked_up() -> None:
    async with proxied("a.example", names=None) as found:
        await found.http(b"CONNECT secret-in-a-name.evil.example:443 HTTP/1.1\r\n\r\n")
        await found.socks(by_name("secret-in-a-name.evil.example", 443))
    assert [(one.allowed, one.protocol) for one in found.decisions] == [(False, "connect"), (False, "socks5")]


async def test_what_a_jail_writes_cannot_forge_a_line() -> None:
    async with proxied("a.example") as found:
        await found.socks(by_name("x\r\nHTTP/1.1 200 OK\r\n\x1b[2J", 443))
    (decision,) = found.decisions
    assert decision.message.isprintable()
    assert not decision.allowed


async def test_socks_leads_to_an_allowed_name() -> None:
    async with served() as (found, server):
        answer = await found.socks(by_name("a.example", server.port) + b"hello\r\n\r\n")
    assert answer == b"\x05\x00" + b"\x05\x00\x00\x01" + b"\0" * 6 + ANSWER
    assert server.got == [b"hello\r\n\r\n"]


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (b"\x04\x01\x00\x50\x7f\x00\x00\x01user\x00", b""),
        (b"\x05\x01\x02", b"\x05\xff"),
        (b"\x05\x00", b"\x05\xff"),
        (b"\x05\x01\x00\x05\x02\x00\x01\x01\x01\x01\x01\x00\x50", b"\x05\x00\x05\x07"),
        (b"\x05\x01\x00\x05\x03\x00\x01\x01\x01\x01\x01\x00\x50", b"\x05\x00\x05\x07"),
        (b"\x05\x01\x00\x05\x01\x00\x09", b"\x05\x00\x05\x08"),
        (b"\x05\x01\x00\x05\x01\x00\x03\x00\x00\x50", b"\x05\x00\x05\x01"),
        (b"\x05\x01\x00\x05\x01\x00\x01\x01\x01\x01\x01\x00\x00", b"\x05\x00\x05\x01"),
        (b"\x05\x01\x00\x05\x01\x00\x01\x01\x01\x01\x01\x00\x50", b"\x05\x00\x05\x02"),
        (b"\x05\x01\x00\x04\x01\x00\x01", b"\x05\x00"),
        (b"GET / HTTP/1.1\r\n\r\n", b""),
    ],
    ids=["v4", "no-method", "none", "bind", "udp", "kind", "no-name", "port-0", "denied", "v4-later", "http"],
)
async def test_socks_answers_what_its_standard_says(request_: bytes, answer: bytes) -> None:
    async with proxied("a.example") as found:
        said = await talk(found.socks_port, request_, half_close=True)
    assert said[: len(answer)] == answer
    assert len(answer) > 2 or said == answer


@pytest.mark.parametrize(
    ("addresses", "status"),
    [
        (["10.0.0.1"], b"403"),
        (["169.254.169.254"], b"403"),
        (["::1", "127.0.0.1"], b"403"),
        (["fe80::1%2"], b"502"),
        ([], b"502"),
        (["not an address"], b"502"),
    ],
)
async def test_where_an_allowed_name_leads_is_looked_at(addresses: list[str], status: bytes) -> None:
    async with proxied("a.example", names={"a.example": addresses}) as found:
        answer = await found.http(b"CONNECT a.example:443 HTTP/1.1\r\n\r\n")
    assert answer.split()[1] == status


async def test_a_name_that_leads_astray_is_told_with_the_address_to_list() -> None:
    async with proxied("git.example", names={"git.example": ["10.1.2.3"]}) as found:
        answer = await found.http(b"CONNECT git.example:443 HTTP/1.1\r\n\r\n")
    assert b"git.example leads to 10.1.2.3 (private), which no name may lead to" in answer
    assert b"add 10.1.2.3 to allow" in answer
    assert [(one.allowed, one.address) for one in found.decisions] == [(False, "10.1.2.3")]


async def test_a_name_is_looked_up_once_and_what_was_checked_is_dialled() -> None:
    asked: list[str] = []
    async with origin() as server:

        class Rebinding(dict[str, Sequence[str]]):
            def __getitem__(self, name: str) -> Sequence[str]:
                asked.append(name)
                return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

        async with proxied(f"a.example:{server.port}", f"127.0.0.1:{server.port}", names=Rebinding()) as found:
            await found.http(b"CONNECT a.example:%d HTTP/1.1\r\n\r\n\r\n\r\n" % server.port)
    assert asked == ["a.example"]
    assert [one.address for one in found.decisions] == ["127.0.0.1"]


async def test_an_allowed_server_that_refuses_is_told_as_unreachable() -> None:
    with socket.socket() as silent:  # it has the port, so that nobody else listens there
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        async with proxied(f"127.0.0.1:{port}") as found:
            answer = await found.http(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n\r\n" % port)
            code = (await found.socks(b"\x05\x01\x00\x05\x01\x00\x01\x7f\0\0\x01" + port.to_bytes(2)))[3]
    assert answer.startswith(b"HTTP/1.1 502 127.0.0.1 refuses the connection")
    assert code == socks.REFUSED
    assert [one.allowed for one in found.decisions] == [True, True]


async def test_one_address_that_refuses_leaves_the_next_one() -> None:
    async with origin() as server:
        names = {"a.example": ["127.0.0.3", "127.0.0.1"]}
        listed = (f"127.0.0.1:{server.port}", f"127.0.0.3:{server.port}")
        async with proxied(f"a.example:{server.port}", *listed, names=names) as found:
            await found.http(b"CONNECT a.example:%d HTTP/1.1\r\n\r\n\r\n\r\n" % server.port)
    assert [one.address for one in found.decisions] == ["127.0.0.1"]


async def test_connections_beyond_the_bound_wait_and_are_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "MAX_CONNECTIONS", 2)
    async with served() as (found, server):
        request = b"CONNECT a.example:%d HTTP/1.1\r\n\r\n\r\n\r\n" % server.port
        idle = [await anyio.connect_tcp("127.0.0.1", found.http_port) for _ in range(2)]
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(found.http, request)
            for one in idle:
                await one.aclose()
    assert len(server.got) == 5


async def test_over_the_bound_of_all_jails_a_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "MAX_ALL_CONNECTIONS", 0)
    async with proxied("a.example") as found:
        assert await found.http(b"") == b""


async def test_a_connection_on_which_nothing_moves_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "IDLE_S", 0.05)
    async with served(until=b"never") as (found, server):
        answer = await found.http(b"CONNECT a.example:%d HTTP/1.1\r\n\r\n" % server.port)
    assert answer == b"HTTP/1.1 200 Connection established\r\n\r\n"


async def test_much_goes_through_a_tunnel_unchanged() -> None:
    content = bytes(range(256)) * 40_000
    async with served(answer=content) as (found, server):
        answer = await found.http(b"CONNECT a.example:%d HTTP/1.1\r\n\r\n\r\n\r\n" % server.port)
    assert answer.partition(b"\r\n\r\n")[2] == content
    assert [(one.host, one.sent_bytes, one.received_bytes) for one in found.ended] == [("a.example", 4, len(content))]


async def test_slow_lookups_are_bounded_for_each_jail(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_: object, **__: object) -> list[object]:
        released.acquire(timeout=20)
        return []

    released = threading.Semaphore(0)
    monkeypatch.setattr("kandev_sandbox.egress.lookup.TIMEOUT_S", 0.05)
    monkeypatch.setattr(socket, "getaddrinfo", slow)
    resolver = Resolver()
    said: list[str] = []
    try:
        for number in range(10):
            with pytest.raises(Exception, match=r"looked up|within") as caught:
                await resolver(f"a{number}.example", 443)
            said.append(str(caught.value))
    finally:
        released.release(10)
    assert ["many" in words for words in said] == [False] * 8 + [True] * 2


async def test_a_name_that_does_not_exist_has_no_address() -> None:
    with pytest.raises(Exception, match="has no address"):
        await Resolver()("a.invalid", 443)


async def test_lookups_that_found_no_descriptor_keep_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(24, "Too many open files")

    resolver = Resolver()
    with monkeypatch.context() as short:
        short.setattr(socket, "socketpair", full)
        for _ in range(80):
            with pytest.raises(Exception, match="looked up"):
                await resolver("localhost", 443)
    assert "127.0.0.1" in await resolver("localhost", 443)


async def test_the_resolver_of_the_host_is_asked() -> None:
    assert "127.0.0.1" in await Resolver()("localhost", 443)


async def test_a_listener_out_of_descriptors_goes_on_later(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        left = 2

        def __init__(self, listener: socket.socket) -> None:
            self.fileno: Callable[[], int] = listener.fileno
            self._listener = listener

        def accept(self) -> tuple[socket.socket, object]:
            Full.left -= 1
            if Full.left >= 0:
                raise OSError(24, "Too many open files")
            return self._listener.accept()

    monkeypatch.setattr(sockets, "_REST_S", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        with client, anyio.fail_after(60):
            accepted = await sockets.accept(Full(listener))  # type: ignore[arg-type]
            accepted.close()
    assert Full.left < 0
