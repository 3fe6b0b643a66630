"""The client against a host that is not there, wrong, or strange."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import msgspec
import pytest
from aiohttp import web

from kandev_host.client import Client, ClientError

pytestmark = pytest.mark.anyio
Serve = Callable[..., contextlib.AbstractAsyncContextManager[str]]


@pytest.fixture
def serve(anyio_backend: str) -> Serve:
    """`async with serve(handler) as url`: a server with one WebSocket route."""

    @contextlib.asynccontextmanager
    async def serving(handler: Any) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_get("/ws", handler)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    return serving


def answer(type: str, payload: Any, id: str | None = None, **more: Any) -> str:
    message = {"id": id, "type": type, "action": "a", "payload": payload, "timestamp": "2026-01-01T00:00:00Z", **more}
    return msgspec.json.encode(message).decode()


async def echo(request: web.Request) -> web.WebSocketResponse:
    """Answers `ok` with its payload, `bad` with an error, `end` with a close, `n` with so many notifications first."""
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        asked = msgspec.json.decode(message.data)
        match asked["action"]:
            case "ok":
                await socket.send_str(answer("response", asked["payload"], asked["id"]))
            case "bad":
                error = {"code": "NOT_FOUND", "message": "No task", "details": {"kind": "task"}}
                await socket.send_str(answer("error", error, asked["id"]))
            case "end":
                await socket.close(code=4408, message=b"Too slow; seq=41")
            case "garbage":
                await socket.send_str("{")
            case "flood":
                for number in range(asked["payload"]["n"]):
                    await socket.send_str(answer("notification", {}, "e", seq=number + 1))
                await socket.send_str(answer("response", {}, asked["id"]))
    return socket


async def failed(work: Any) -> ClientError:
    with pytest.raises(ClientError) as caught:
        await work
    return caught.value


async def test_a_call_returns_the_payload(serve: Serve) -> None:
    async with serve(echo) as url, Client.connect(url, "t") as client:
        assert await client.call("ok", {"x": [1]}) == {"x": [1]}
        assert await client.call("ok") == {}


async def test_the_hosts_error_is_raised_with_code_and_details(serve: Serve) -> None:
    async with serve(echo) as url, Client.connect(url, "t") as client:
        error = await failed(client.call("bad"))
        assert (error.code, error.message, error.details) == ("NOT_FOUND", "No task", {"kind": "task"})


async def test_an_unanswered_call_times_out(serve: Serve) -> None:
    async with serve(echo) as url, Client.connect(url, "t") as client:
        assert (await failed(client.call("silence", timeout_s=0.05))).code == "TIMEOUT"
        assert await client.call("ok", {"still": "there"}) == {"still": "there"}


async def test_a_closed_connection_fails_calls_and_notifications_with_the_close_code(serve: Serve) -> None:
    async with serve(echo) as url, Client.connect(url, "t") as client:
        error = await failed(client.call("end"))
        assert error.code == "UNAVAILABLE"
        assert error.details == {"close_code": 4408, "reason": "Too slow; seq=41", "seq": 41}
        assert (await failed(anext(client.notifications()))).details["close_code"] == 4408
        assert (await failed(client.call("ok"))).details["close_code"] == 4408


async def test_a_host_that_speaks_something_else_is_reported(serve: Serve) -> None:
    async with serve(echo) as url, Client.connect(url, "t") as client:
        assert "does not speak" in (await failed(client.call("garbage"))).message


async def test_a_call_from_within_a_full_buffer_gets_its_answer(serve: Serve) -> None:
    async with serve(echo) as url, Client.connect(url, "t", buffer=10) as client:
        await client.call("flood", {"n": 100})
        got = []
        async for notification in client.notifications():
            got.append(notification.seq)
            if len(got) == 1:
                assert await client.call("ok", {"in": "between"}) == {"in": "between"}
            if len(got) == 100:
                break
        assert got == list(range(1, 101))
        assert client.resume_seq == 100


async def test_the_bodys_own_error_comes_out_as_it_is(serve: Serve) -> None:
    with pytest.raises(ZeroDivisionError):
        async with serve(echo) as url, Client.connect(url, "t"):
            raise ZeroDivisionError


async def test_nobody_there_is_unavailable_and_names_the_address() -> None:
    error = await failed(Client.connect("http://127.0.0.1:1", "t").__aenter__())
    assert error.code == "UNAVAILABLE"
    assert "127.0.0.1:1" in error.message


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, "UNAUTHORIZED"), (403, "FORBIDDEN"), (421, "BAD_REQUEST"), (503, "BUSY"), (404, "UNAVAILABLE")],
)
async def test_a_refused_upgrade_says_why(serve: Serve, status: int, code: str) -> None:
    async def refuse(_request: web.Request) -> web.Response:
        return web.Response(status=status)

    async with serve(refuse) as url:
        assert (await failed(Client.connect(url, "t").__aenter__())).code == code


@pytest.mark.parametrize("url", ["nonsense", "http://", "http://[::1", "ftp://x/ws", ""])
async def test_a_wrong_address_is_a_client_error(url: str) -> None:
    assert (await failed(Client.connect(url, "t").__aenter__())).code in {"BAD_REQUEST", "UNAVAILABLE"}


async def test_a_host_that_never_answers_the_upgrade_times_out(serve: Serve) -> None:
    async def hang(_request: web.Request) -> web.Response:
        await anyio.sleep(5)
        return web.Response()

    async with serve(hang) as url:
        assert (await failed(Client.connect(url, "t", timeout_s=0.1).__aenter__())).code == "TIMEOUT"
