"""Log-in, limits and the end of sockets."""

from __future__ import annotations

import gc
import random
from typing import Any
from weakref import WeakSet

import aiohttp
import anyio
import pytest
from aiohttp import web

from kandev_host.errors import StartupError
from kandev_host.models import LOCAL_USER_ID

pytestmark = pytest.mark.anyio


async def test_auth_login_as_first_message_logs_in(house: Any, open_wire: Any) -> None:
    async with open_wire(house, token=None) as wire:
        reply = await wire.ask("auth.login", {"token": house.token})
        assert reply["payload"]["principal"]["name"] == "local"
        assert reply["payload"]["expires_at"] is None
        assert (await wire.ask("health.check"))["type"] == "response"


async def test_the_subprotocol_logs_in_and_is_not_echoed_with_the_token(house: Any, open_wire: Any) -> None:
    async with open_wire(house, token=None, protocols=("kandev.v1", f"bearer.{house.token}")) as wire:
        assert wire.socket.protocol == "kandev.v1"
        assert (await wire.ask("health.check"))["type"] == "response"


async def test_a_wrong_subprotocol_token_is_401(house: Any, open_wire: Any) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        async with open_wire(house, token=None, protocols=("kandev.v1", "bearer.wrong")):
            raise AssertionError
    assert caught.value.status == 401


@pytest.mark.parametrize("payload", [{"token": "wrong"}, {}, {"token": 5}, {"token": "", "x": 1}])
async def test_a_bad_log_in_is_answered_and_closed(house: Any, open_wire: Any, payload: Any) -> None:
    async with open_wire(house, token=None) as wire:
        reply = await wire.ask("auth.login", payload)
        assert (reply["type"], reply["payload"]["code"]) == ("error", "UNAUTHORIZED")
        assert (await wire.closed())[0] == 4401


async def test_anything_before_the_log_in_is_refused_and_closed(house: Any, open_wire: Any) -> None:
    async with open_wire(house, token=None) as wire:
        reply = await wire.ask("health.check")
        assert reply["payload"]["code"] == "UNAUTHORIZED"
        assert (await wire.closed())[0] == 4401


async def test_nothing_stays_of_a_socket_that_the_host_has_closed(house: Any, open_wire: Any) -> None:
    """aiohttp would keep each for the 45 s of a heartbeat that the peer's goodbye begins."""

    def sockets() -> list[web.WebSocketResponse]:
        return [each for each in gc.get_objects() if isinstance(each, web.WebSocketResponse)]

    others = WeakSet(sockets())
    for _ in range(5):
        async with open_wire(house, token=None) as wire:
            await wire.ask("health.check")
            assert (await wire.closed())[0] == 4401
    with anyio.fail_after(20):
        while any(each not in others for each in sockets()):
            await anyio.sleep(0.05)
            gc.collect()


async def test_garbage_before_the_log_in_is_answered_and_closed(house: Any, open_wire: Any) -> None:
    async with open_wire(house, token=None) as wire:
        await wire.send("{{{")
        assert (await wire.message())["payload"]["code"] == "BAD_REQUEST"
        assert (await wire.closed())[0] == 4401


async def test_no_log_in_in_time_closes_4401(open_house: Any, open_wire: Any) -> None:
    async with open_house(login_timeout_s=0.05) as house, open_wire(house, token=None) as wire:
        assert (await wire.closed())[0] == 4401


async def test_a_ping_is_answered_before_and_after_the_log_in(house: Any, open_wire: Any) -> None:
    async with open_wire(house, token=None, autoping=False) as wire:
        await wire.socket.ping(b"early")
        assert (await wire.ask("auth.login", {"token": house.token}))["type"] == "response"
        await wire.socket.ping(b"late")
        got = await wire.socket.receive()
        assert (got.type, bytes(got.data)) == (aiohttp.WSMsgType.PONG, b"late")


async def test_a_message_over_the_limit_closes_1009(open_house: Any, open_wire: Any) -> None:
    async with open_house(message_limit_bytes=4096) as house, open_wire(house) as wire:
        assert (await wire.ask("echo.text", {"text": "x" * 3000}))["type"] == "response"
        await wire.request("echo.text", {"text": "x" * 5000})
        assert (await wire.closed())[0] == 1009


async def test_a_binary_frame_closes_1003(wire: Any) -> None:
    await wire.socket.send_bytes(b"\x00\x01")
    assert (await wire.closed())[0] == 1003


async def test_requests_over_the_rate_are_refused_with_a_time_to_wait(open_house: Any, open_wire: Any) -> None:
    async with open_house(requests_per_s=0.02, request_burst=3) as house, open_wire(house) as wire:
        for _ in range(3):
            assert (await wire.ask("health.check"))["type"] == "response"
        reply = await wire.ask("health.check", id="over")
        assert (reply["id"], reply["payload"]["code"]) == ("over", "RATE_LIMITED")
        assert 0 < reply["payload"]["details"]["retry_after_s"] <= 50


async def test_one_sockets_rate_is_not_anothers(open_house: Any, open_wire: Any) -> None:
    limits = {"requests_per_s": 0.02, "request_burst": 1}
    async with open_house(**limits) as house, open_wire(house) as one, open_wire(house) as other:
        await one.ask("health.check")
        assert (await one.ask("health.check"))["type"] == "error"
        assert (await other.ask("health.check"))["type"] == "response"


async def test_the_socket_beyond_the_total_is_503(open_house: Any, open_wire: Any) -> None:
    async with open_house(sockets_total=2) as house, open_wire(house), open_wire(house) as second:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            async with open_wire(house):
                raise AssertionError
        assert caught.value.status == 503
        assert (await second.ask("health.check"))["type"] == "response"


async def test_a_seat_is_free_again_after_its_socket(open_house: Any, open_wire: Any) -> None:
    async with open_house(sockets_total=1) as house:
        for _ in range(3):
            async with open_wire(house) as wire:
                await wire.ask("health.check")
                await wire.socket.close()
            while house.gateway.sockets:
                await anyio.lowlevel.checkpoint()


async def test_a_seat_is_free_while_what_its_closed_socket_began_is_at_work(open_house: Any, open_wire: Any) -> None:
    async with open_house(sockets_total=1) as house:
        await closed_at_work(house, open_wire)
        with anyio.fail_after(60):
            while house.gateway.seats_taken:
                await anyio.lowlevel.checkpoint()
        async with open_wire(house) as other:
            assert (await other.ask("health.check"))["type"] == "response"
            assert house.finished == []
            house.gate.set()


async def test_those_who_come_and_go_begin_no_more_than_the_seats_twice(open_house: Any, open_wire: Any) -> None:
    async with open_house(sockets_total=1) as house:
        await closed_at_work(house, open_wire)
        with anyio.fail_after(60):
            while house.gateway.seats_taken:
                await anyio.lowlevel.checkpoint()
        await closed_at_work(house, open_wire)
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            async with open_wire(house):
                raise AssertionError
        assert caught.value.status == 503
        house.gate.set()


async def closed_at_work(house: Any, open_wire: Any) -> None:
    """A socket that is closed before what it asked for is done."""
    async with open_wire(house) as wire:
        at_work = house.waiting
        await wire.request("echo.write", {"text": "x"})
        with anyio.fail_after(60):
            while house.waiting == at_work:
                await anyio.lowlevel.checkpoint()
            await wire.socket.close()


async def test_one_principal_has_so_many_sockets(open_house: Any, open_wire: Any) -> None:
    async with open_house(sockets_per_principal=1) as house, open_wire(house):
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            async with open_wire(house):
                raise AssertionError
        assert caught.value.status == 503
        async with open_wire(house, token=None) as late:
            assert (await late.ask("auth.login", {"token": house.token}))["payload"]["code"] == "BUSY"
            assert (await late.closed())[0] == 4401


async def test_only_so_many_requests_are_worked_on_at_once(open_house: Any, open_wire: Any) -> None:
    async with open_house(concurrent_requests=2) as house, open_wire(house) as wire:
        for number in range(4):
            await wire.request("echo.wait", {"text": "x"}, id=str(number))
        async with open_wire(house) as other:
            await other.ask("health.check")
            assert house.waiting == 2
        house.gate.set()
        assert {(await wire.message())["id"] for _ in range(4)} == {"0", "1", "2", "3"}


async def test_stopping_closes_1001_and_refuses_new_sockets(open_house: Any, open_wire: Any) -> None:
    async with open_house() as house, open_wire(house) as wire:
        await wire.ask("health.check")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(house.gateway.stop)
            assert (await wire.closed())[0] == 1001
        with pytest.raises(aiohttp.ClientConnectorError):
            async with open_wire(house):
                raise AssertionError


async def test_a_mutation_under_way_is_finished_when_its_socket_closes(house: Any, open_wire: Any) -> None:
    async with open_wire(house) as wire:
        await wire.request("echo.write", {"text": "kept"})
        await house.entered.wait()
    house.gate.set()
    while house.gateway.sockets:
        await anyio.lowlevel.checkpoint()
    assert house.finished == ["kept"]


async def test_a_read_under_way_is_given_up_when_its_socket_closes(house: Any, open_wire: Any) -> None:
    async with open_wire(house) as wire:
        await wire.request("echo.wait", {"text": "lost"})
        await house.entered.wait()
    while house.gateway.sockets:
        await anyio.lowlevel.checkpoint()
    house.gate.set()
    assert house.finished == []


async def test_a_port_in_use_is_one_line(house: Any, open_house: Any) -> None:
    port = int(house.url.rpartition(":")[2])
    with pytest.raises(StartupError, match=f"Port {port} on 127.0.0.1 is in use") as caught:
        async with open_house(port=port):
            raise AssertionError
    assert "\n" not in str(caught.value)


async def test_garbage_harms_only_its_sender(house: Any, open_wire: Any) -> None:
    rng = random.Random(7)
    async with open_wire(house) as healthy:
        for _ in range(60):
            port = int(house.url.rpartition(":")[2])
            async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                key = f"Host: 127.0.0.1:{port}\r\nAuthorization: Bearer {house.token}\r\n"
                upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                upgrade += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                await stream.send(f"GET /ws HTTP/1.1\r\n{key}{upgrade}".encode())
                await stream.receive()
                await stream.send(rng.randbytes(rng.randrange(1, 400)))
            assert (await healthy.ask("health.check"))["type"] == "response"


async def test_auth_login_on_a_logged_in_socket_checks_the_token(wire: Any, house: Any) -> None:
    assert (await wire.ask("auth.login", {"token": house.token}))["payload"]["principal"]["id"] == LOCAL_USER_ID
    assert (await wire.ask("auth.login", {"token": "wrong"}))["payload"]["code"] == "UNAUTHORIZED"
    assert (await wire.ask("auth.login", {}))["payload"]["details"] == {"field": "token"}
    assert (await wire.ask("health.check"))["type"] == "response"


async def test_bushy_json_counts_as_many_requests(open_house: Any, open_wire: Any) -> None:
    async with open_house(requests_per_s=0.02, request_burst=50) as house, open_wire(house) as wire:
        await wire.send(
            '{"id": "1", "type": "request", "action": "echo.text", "payload": {"text": [%s1]}}' % ("[]," * 50_000)
        )
        assert (await wire.message())["payload"]["code"] == "VALIDATION_ERROR"
        assert (await wire.ask("health.check"))["payload"]["code"] == "RATE_LIMITED"


async def test_a_log_in_gives_the_nameless_seat_back(open_house: Any, open_wire: Any) -> None:
    async with open_house(sockets_total=2) as house, open_wire(house, token=None) as first:
        await first.ask("auth.login", {"token": house.token})
        async with open_wire(house) as second:
            assert (await second.ask("health.check"))["type"] == "response"
