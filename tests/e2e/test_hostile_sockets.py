"""Handshakes, headers, frames and messages that no client of ours would send, byte by byte, at one real host.

Each gets its clean answer or close code; nothing of how the host is made is told; and a healthy client beside them is
served all the while (how fast: `python -m benchmarks --only hostile_roundtrip`).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest

from kandev_host.client import Client

from .hostile.frames import FRAMES
from .hostile.heads import HEADS, upgrade
from .hostile.messages import MESSAGES
from .hostile.wire import (
    DEADLINE_S,
    TELLING,
    TEXT,
    answer_to,
    asking,
    closed_with,
    filled,
    frame,
    raw,
    received,
    upgraded,
)

pytestmark = pytest.mark.anyio

HOST_ENV = {
    "KANDEV_GATEWAY__HANDSHAKE_TIMEOUT_S": "2.0",
    "KANDEV_GATEWAY__LOGIN_TIMEOUT_S": "2.0",
    "KANDEV_GATEWAY__SLOW_CLIENT_TIMEOUT_S": "2.0",
    "KANDEV_GATEWAY__MESSAGE_LIMIT_BYTES": "65536",
    "KANDEV_GATEWAY__SOCKETS_TOTAL": "20",
    "KANDEV_GATEWAY__HANDSHAKES_LIMIT": "24",
    "KANDEV_GATEWAY__ADDRESS_REQUEST_BURST": "5000",
    "KANDEV_LOG__LEVEL": "debug",
}
NAMELESS = ("binary", "too-large", "opcode-3", "no-json", "no-id", "action-unknown", "payload-list", "task-path")


@pytest.fixture(scope="module")
def host(one_host: Any) -> Any:
    return one_host


@pytest.fixture
async def bystander(host: Any) -> AsyncIterator[Client]:
    """A client that must not notice, on a host that must have no surprise and show no secret."""
    said = len(host.log())
    async with Client.connect(host.url, host.token) as client:
        yield client
        with anyio.fail_after(DEADLINE_S):
            assert (await client.call("health.check"))["status"] == "ok"
        assert client.closed is None
    log = host.log()[said:]
    assert "Traceback" not in log
    assert "unforeseen" not in log
    assert host.token not in log


@pytest.mark.parametrize("name", HEADS)
async def test_p18_a_hostile_handshake_is_refused_cleanly(host: Any, bystander: Client, name: str) -> None:
    request, wanted = HEADS[name]
    status, answer = await answer_to(host, request)
    assert status in wanted, answer
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.lower()
    assert b"access-control" not in lines
    assert b"set-cookie" not in lines
    assert b"secret" not in answer
    if status >= 400:
        assert b"content-security-policy" in lines
        assert b"nosniff" in lines
        assert json.loads(body).keys() in ({"code", "message", "details"}, {"status"})


@pytest.mark.parametrize("name", FRAMES)
async def test_p18_a_hostile_frame_gets_its_code(host: Any, bystander: Client, name: str) -> None:
    sent, wanted = FRAMES[name]
    async with upgraded(host) as (reader, writer):
        writer.write(sent)
        assert await closed_with(reader) in wanted


@pytest.mark.parametrize("name", MESSAGES)
async def test_p18_a_hostile_message_gets_its_error_and_the_socket_goes_on(
    host: Any, bystander: Client, name: str
) -> None:
    sent, id, code = MESSAGES[name]
    async with upgraded(host) as (reader, writer):
        writer.write(frame(sent) + frame(asking("health.check", id='"fence"')))
        told = [json.loads((await received(reader))[1]) for _ in range(2)]
    answer, fence = sorted(told, key=lambda each: each["id"] == "fence")  # which of them takes longer is up to them
    assert (answer["type"], answer["id"], answer["payload"].get("code")) == ("error", id, code), answer
    assert (fence["type"], fence["id"]) == ("response", "fence")


@pytest.mark.parametrize("name", NAMELESS)
async def test_p18_before_the_log_in_every_frame_ends_the_socket(host: Any, bystander: Client, name: str) -> None:
    sent = FRAMES[name][0] if name in FRAMES else frame(MESSAGES[name][0])
    async with upgraded(host, credentials="") as (reader, writer):
        writer.write(sent + frame(asking("host.info")))
        told = []
        while (got := await received(reader))[0] == TEXT:
            told.append(json.loads(got[1]))
    assert all(each["type"] == "error" for each in told)
    assert {each["payload"]["code"] for each in told} <= {"BAD_REQUEST", "UNAUTHORIZED"}
    assert len(told) <= 1
    assert not TELLING.search(got[1])


async def test_p19_the_socket_beyond_the_total_is_refused_cleanly(host: Any, bystander: Client) -> None:
    request = filled(host, upgrade())
    async with AsyncExitStack() as stack:
        head = b" 101 "
        while b" 101 " in head:
            reader, writer = await stack.enter_async_context(raw(host))
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
        assert head.split()[1] == b"503"
        assert b"content-security-policy" in head.lower()
        assert (await bystander.call("health.check"))["status"] == "ok"
    with anyio.fail_after(DEADLINE_S):
        while (await answer_to(host, request))[0] != 101:
            await anyio.sleep(0.05)


async def test_connections_that_say_nothing_keep_nobody_out(host: Any, bystander: Client) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(60):
            await stack.enter_async_context(raw(host))
        async with Client.connect(host.url, host.token) as client:
            assert (await client.call("health.check"))["status"] == "ok"


def test_there_are_as_many_cases_as_were_promised() -> None:
    assert len(HEADS) + len(FRAMES) + len(MESSAGES) > 200
