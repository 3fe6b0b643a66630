"""Limits of a user over all connections, and of an address for those who are nobody."""

from __future__ import annotations

from typing import Any

import aiohttp
import anyio
import pytest

from kandev_host.client import Client, ClientError
from kandev_host.errors import Busy
from kandev_host.gateway.limits import REMEMBERED, RateLimits, Seats, address_of
from kandev_host.interfaces import Principal

pytestmark = pytest.mark.anyio

SLOW = {"requests_per_s": 0.001, "request_burst": 3, "principal_rate_factor": 2}


async def status_of(house: Any, path: str = "/health", token: str | None = None) -> tuple[int, Any, Any]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession() as session, session.get(house.url + path, headers=headers) as answer:
        return answer.status, await answer.json(), answer.headers


async def test_a_user_has_one_rate_over_all_connections(open_house: Any, open_wire: Any, people: Any) -> None:
    known = people(lambda token: Principal(token, "user", token, frozenset({"*"})))
    async with open_house(authenticator=known, **SLOW) as house:
        codes = []
        for _ in range(2):
            async with open_wire(house, token="ada") as wire:
                answers = [await wire.ask("health.check") for _ in range(3)]
                codes += [answer["payload"].get("code") for answer in answers]
                last = answers[-1]
        # Two bursts' worth in all: two handshakes, and four of the six requests.
        assert codes == [None, None, None, None, "RATE_LIMITED", "RATE_LIMITED"]
        assert last["payload"]["details"]["retry_after_s"] > 100
        with pytest.raises(ClientError, match="RATE_LIMITED"):
            async with Client.connect(house.url, "ada"):
                pass
        async with open_wire(house, token="bob") as other:
            assert (await other.ask("health.check"))["type"] == "response"


async def test_who_is_nobody_is_limited_by_address_and_shuts_nobody_out(open_house: Any, open_wire: Any) -> None:
    async with open_house(address_requests_per_s=0.001, address_request_burst=3) as house:
        for path in ("/health", "/nowhere", "/login"):
            async with aiohttp.ClientSession() as session, session.get(house.url + path) as answer:
                assert answer.status in {200, 404}
        status, body, headers = await status_of(house)
        assert (status, body["code"]) == (429, "RATE_LIMITED")
        assert int(headers["Retry-After"]) >= body["details"]["retry_after_s"] > 100
        assert (await status_of(house, token="wrong"))[0] == 429
        assert (await status_of(house, token=house.token))[0] == 200
        async with open_wire(house) as wire:
            assert (await wire.ask("health.check"))["type"] == "response"


async def test_wrong_tokens_are_counted_and_right_ones_never_wait(open_house: Any) -> None:
    async with open_house(address_requests_per_s=0.001, address_request_burst=2) as house:
        assert [(await status_of(house, token="wrong"))[0] for _ in range(4)] == [401, 401, 429, 429]
        assert (await status_of(house, token=house.token))[0] == 200


async def test_wrong_log_ins_on_sockets_are_counted_too(open_house: Any, open_wire: Any) -> None:
    async with open_house(address_requests_per_s=0.001, address_request_burst=3) as house:
        codes = []
        for _ in range(2):
            async with open_wire(house, token=None) as wire:
                codes.append((await wire.ask("auth.login", {"token": "wrong"}))["payload"]["code"])
        assert codes == ["UNAUTHORIZED", "RATE_LIMITED"]


async def test_an_address_has_so_many_sockets(open_house: Any, open_wire: Any, people: Any) -> None:
    known = people(lambda token: Principal(token, "user", token, frozenset({"*"})))
    async with (
        open_house(authenticator=known, sockets_per_address=2) as house,
        open_wire(house, token="ada"),
        open_wire(house, token="bob") as bob,
    ):
        status, body, _ = await upgrade(house, "carl")
        assert (status, body["code"]) == (503, "BUSY")
        assert "gateway.sockets_per_address" in body["message"]
        assert (await bob.ask("health.check"))["type"] == "response"


async def upgrade(house: Any, token: str) -> tuple[int, Any, Any]:
    headers = {
        "Authorization": f"Bearer {token}",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    async with aiohttp.ClientSession() as session, session.get(f"{house.url}/ws", headers=headers) as answer:
        return answer.status, await answer.json(), answer.headers


async def test_of_too_many_handshakes_the_oldest_goes(open_house: Any) -> None:
    async with open_house(handshakes_limit=3) as house:
        port = int(house.url.rpartition(":")[2])
        peers = [await anyio.connect_tcp("127.0.0.1", port) for _ in range(5)]
        for peer in peers[:2]:
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await peer.receive()
        request = f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
        for peer in peers[2:]:
            await peer.send(request)
            assert b" 200 " in await peer.receive()
        for peer in peers:
            await peer.aclose()


def test_seats_of_the_nameless_are_those_of_their_address() -> None:
    seats = Seats(total=100, per_principal=2, per_address=3)
    seats.take(None, "10.0.0.1")
    second = seats.take(None, "10.0.0.1")
    with pytest.raises(Busy):
        seats.take(None, "10.0.0.1")
    seats.take(None, "10.0.0.2").leave()
    second.move("ada")
    third = seats.take(None, "10.0.0.1")
    with pytest.raises(Busy, match="per_address"):
        seats.take("bob", "10.0.0.1")
    third.leave()
    second.leave()
    assert seats.taken == 1
    seats.take("bob", "10.0.0.1")


async def test_only_so_many_names_are_remembered() -> None:
    limits = RateLimits(0.001, 1)
    assert limits.admit("first") == 0
    assert limits.admit("first") > 0
    for number in range(REMEMBERED):
        limits.admit(f"10.{number}")
    assert len(limits._of) == REMEMBERED
    assert limits.admit("first") == 0


@pytest.mark.parametrize(
    ("peer", "counted"),
    [
        (None, ""),
        ("", ""),
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2::9", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("/no/address", "/no/address"),
    ],
)
def test_an_address_counts_with_all_that_its_owner_has(peer: str | None, counted: str) -> None:
    assert address_of(peer) == counted
