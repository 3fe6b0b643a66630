"""Who has lost the right to a socket loses the socket, though nothing is asked on it."""

from __future__ import annotations

import asyncio
import base64
import os
from contextlib import suppress
from datetime import timedelta
from typing import Any

import aiohttp
import anyio
import pytest
from msgspec.structs import replace

from kandev_host.client import ClientError
from kandev_host.interfaces import Principal
from kandev_host.models import now

pytestmark = pytest.mark.anyio


def someone(token: str) -> Principal:
    return Principal(token, "user", token, frozenset({"*"}), credential=token)


async def test_a_revoked_credential_loses_its_sockets_and_no_other(
    open_house: Any, open_wire: Any, people: Any
) -> None:
    known = people(someone)
    async with (
        open_house(authenticator=known) as house,
        open_wire(house, token="ada") as first,
        open_wire(house, token="ada") as second,
        open_wire(house, token="bob") as other,
    ):
        await second.ask("events.subscribe", {"topics": ["*"]})
        assert (await other.ask("events.subscribe", {"topics": ["*"]}))["type"] == "response"
        known.gone.add("ada")
        assert (await first.closed())[0] == 4401
        assert (await second.closed())[0] == 4401
        await house.record()
        assert (await other.message())["type"] == "notification"
        with pytest.raises(aiohttp.WSServerHandshakeError):
            async with open_wire(house, token="ada"):
                pass


async def test_the_next_request_of_a_revoked_credential_is_not_served(
    open_house: Any, open_wire: Any, people: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr("kandev_host.gateway.app.REVIEW_S", 3600.0)
    known = people(someone)
    async with open_house(authenticator=known) as house, open_wire(house, token="ada") as wire:
        assert (await wire.ask("health.check"))["type"] == "response"
        known.gone.add("ada")
        await wire.request("echo.write", {"text": "too late"})
        assert (await wire.closed())[0] == 4401
        assert house.finished == []
        assert house.waiting == 0


@pytest.mark.parametrize("ends", [True, False], ids=["that ends", "that hangs"])
async def test_a_request_that_was_begun_is_answered_before_its_socket_is_closed(
    open_house: Any, open_wire: Any, people: Any, monkeypatch: Any, ends: bool
) -> None:
    monkeypatch.setattr("kandev_host.gateway.connection.REVOKED_ANSWERS_S", 60.0 if ends else 0.2)
    known, noticed = people(someone), anyio.Event()

    def holds(principal: Principal) -> bool:
        if principal.credential in known.gone:
            noticed.set()
        return principal.credential not in known.gone

    known.holds = holds
    async with open_house(authenticator=known) as house, open_wire(house, token="ada") as wire:
        await wire.request("echo.write", {"text": "a new password"})
        with anyio.fail_after(10):
            while not house.waiting:
                await anyio.sleep(0.01)
        known.gone.add("ada")
        with anyio.fail_after(10):
            await noticed.wait()
        if ends:
            house.gate.set()
            assert (await wire.message())["type"] == "response"
        assert (await wire.closed())[0] == 4401
        assert house.finished == (["a new password"] if ends else [])


async def test_an_expired_credential_loses_its_socket(open_house: Any, open_wire: Any, people: Any) -> None:
    ends = []

    def for_a_moment(token: str) -> Principal:
        ends.append(now() + timedelta(seconds=2))
        return replace(someone(token), expires_at=ends[-1])

    async with open_house(authenticator=people(for_a_moment)) as house, open_wire(house, token="ada") as wire:
        assert (await wire.closed())[0] == 4401
        assert now() >= ends[0]


async def test_a_revoked_peer_that_answers_nothing_is_dropped(open_house: Any, people: Any) -> None:
    known = people(someone)
    async with open_house(authenticator=known, slow_client_timeout_s=3600.0) as house:
        port = int(house.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        key = base64.b64encode(os.urandom(16)).decode()
        writer.write(
            f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nAuthorization: Bearer ada\r\n\r\n".encode()
        )
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        known.gone.add("ada")
        frame = await reader.readexactly(4)
        assert (frame[0] & 0x0F, int.from_bytes(frame[2:4], "big")) == (8, 4401)
        with suppress(ConnectionResetError):
            await reader.read()
        writer.close()
        while house.gateway.seats_taken:
            await anyio.sleep(0.01)


async def test_an_authenticator_that_fails_lets_nobody_in_and_ends_what_is_open(
    open_house: Any, open_wire: Any, people: Any, caplog: Any
) -> None:
    known = people(someone)

    def failing(*_: Any) -> Any:
        raise ZeroDivisionError("of the plugin")

    async with open_house(authenticator=known) as house, open_wire(house, token="ada") as wire:
        assert (await wire.ask("health.check"))["type"] == "response"
        known.holds = failing
        assert (await wire.closed())[0] == 4401
        known.known = failing
        with pytest.raises(ClientError, match="BUSY"):
            async with house.client():
                pass
    assert "of the plugin" in caplog.text


async def test_an_authenticator_that_hangs_is_not_waited_for(open_house: Any, people: Any) -> None:
    known = people(someone)

    async def hanging(_credentials: Any) -> None:
        await anyio.sleep_forever()

    known.authenticate = hanging
    async with open_house(authenticator=known, handshake_timeout_s=1.0) as house, aiohttp.ClientSession() as session:
        async with session.get(f"{house.url}/ws", headers={"Authorization": "Bearer x"}) as answer:
            assert answer.status == 503
        async with session.get(f"{house.url}/health") as answer:
            assert answer.status == 200
