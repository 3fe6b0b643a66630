"""/health and /ready, and what whoever speaks no HTTP, or too slowly, is answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import anyio
import pytest
from aiohttp import web

from kandev_host.gateway.app import Gateway
from kandev_host.gateway.guard import HEADERS
from kandev_host.interfaces import Route

pytestmark = pytest.mark.anyio
DEADLINE_S = 30.0


async def get(house: Any, path: str, **headers: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.get(house.url + path, headers=headers) as answer:
        return answer.status, await answer.json()


async def test_health_says_one_word_to_anybody(house: Any) -> None:
    assert await get(house, "/health") == (200, {"status": "ok"})


async def test_a_host_that_is_degraded_still_answers_and_says_no_more(house: Any) -> None:
    gateway: Gateway = house.gateway
    gateway._healthy = lambda: False
    assert await get(house, "/health") == (200, {"status": "degraded"})


async def test_it_is_ready_once_the_host_says_so_and_no_longer_when_it_stops(house: Any) -> None:
    assert await get(house, "/ready") == (503, {"status": "not ready"})
    house.gateway.ready = True
    assert await get(house, "/ready") == (200, {"status": "ready"})
    house.gateway._stopping = True
    assert await get(house, "/ready") == (503, {"status": "not ready"})


async def raw(house: Any, text: bytes) -> bytes:
    host, _, port = house.url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(text)
        with anyio.fail_after(DEADLINE_S):
            return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize(
    "text",
    [
        b"GARB AGE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n" % (b"a" * 20_000),
        b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a" * 20_000),
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: y\r\n" % number for number in range(300)) + b"\r\n",
    ],
)
async def test_what_is_no_http_gets_our_answer_and_headers(house: Any, text: bytes) -> None:
    answer = await raw(house, text)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b" 400 " in head.splitlines()[0]
    for name, value in HEADERS.items():
        assert f"{name}: {value}".encode() in head.splitlines()
    assert b"aiohttp" not in answer
    assert body.startswith(b'{"code":"BAD_REQUEST","message":"This is not HTTP')
    assert b"aaaa" not in answer


@pytest.fixture
async def slow(open_house: Any) -> AsyncIterator[Any]:
    async def hangs(_request: web.Request) -> web.Response:
        await anyio.sleep_forever()
        raise AssertionError

    async def reads(request: web.Request) -> web.Response:
        return web.json_response({"size": len(await request.read())})

    routes = [Route("GET", "/hangs", hangs, "x"), Route("POST", "/reads", reads, "x")]
    async with open_house(routes=routes, http_timeout_s=0.2, body_limit_bytes=100) as house:
        yield house


async def test_a_request_that_takes_too_long_is_ended(slow: Any) -> None:
    status, body = await get(slow, "/hangs", Authorization=f"Bearer {slow.token}")
    assert (status, body["code"]) == (503, "TIMEOUT")


async def test_a_body_that_does_not_come_is_not_waited_for(slow: Any) -> None:
    name = slow.url.removeprefix("http://")
    head = f"POST /reads HTTP/1.1\r\nHost: {name}\r\nAuthorization: Bearer {slow.token}\r\nContent-Length: 50\r\n\r\n"
    assert b" 503 " in (await raw(slow, head.encode())).splitlines()[0]


async def test_a_body_that_is_too_large_is_refused(slow: Any) -> None:
    authorization = {"Authorization": f"Bearer {slow.token}"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{slow.url}/reads", headers=authorization, data=b"x" * 101) as answer,
    ):
        assert answer.status == 413


async def test_a_socket_lives_longer_than_any_other_request(slow: Any, open_wire: Any) -> None:
    async with open_wire(slow) as wire:
        assert (await get(slow, "/hangs", Authorization=f"Bearer {slow.token}"))[0] == 503  # longer than http_timeout_s
        assert (await wire.ask("health.check"))["type"] == "response"
