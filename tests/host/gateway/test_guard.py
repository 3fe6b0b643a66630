"""Host, Origin and credentials, over every kind of route."""

from __future__ import annotations

import logging
from typing import Any

import aiohttp
import anyio
import pytest
from aiohttp import web

from kandev_host.errors import StartupError
from kandev_host.gateway.tokens import LocalAuthenticator
from kandev_host.interfaces import Principal, Route

pytestmark = pytest.mark.anyio

UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


GUEST = Principal("guest", "service", "guest", frozenset({"own:read"}))


async def plugin_route(_request: web.Request) -> web.Response:
    return web.Response(text="the plugin's")


async def broken_route(_request: web.Request) -> web.Response:
    raise ZeroDivisionError("secret of the plugin")


@pytest.fixture
async def served(open_house: Any) -> Any:
    routes = [Route("GET", "/metrics", plugin_route, "x"), Route("GET", "/broken", broken_route, "x")]
    routes.append(Route("GET", "/own", plugin_route, "own:read", LocalAuthenticator("o" * 43, GUEST)))
    routes.append(Route("GET", "/other", plugin_route, "other:read", LocalAuthenticator("o" * 43, GUEST)))
    async with open_house(routes=routes, origins=("https://board.example",)) as house:
        yield house


async def ask(house: Any, path: str, method: str = "GET", **headers: str) -> tuple[int, str, Any]:
    upgrade = UPGRADE if path == "/ws" else {}
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, house.url + path, headers={**upgrade, **headers}) as response,
    ):
        text = "" if response.status == 101 else await response.text()
        return response.status, text, response.headers


PATHS = ["/health", "/ws", "/metrics", "/nowhere", "/"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "localhost.:{port}", "127.0.0.2:{port}"]
)
async def test_a_foreign_host_name_is_misdirected(served: Any, path: str, host: str) -> None:
    port = served.url.rpartition(":")[2]
    authorization = f"Bearer {served.token}"
    status, body, _ = await ask(served, path, Host=host.format(port=port), Authorization=authorization)
    assert (status, "gateway.hosts" in body) == (421, True)
    assert "the plugin's" not in body


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "https://board.example.evil.example",
        "https://board.example:443",
        "http://board.example",
        "http://127.0.0.1:1",
        "file://",
        "",
    ],
)
async def test_a_foreign_origin_is_forbidden(served: Any, path: str, origin: str) -> None:
    status, body, headers = await ask(served, path, Origin=origin, Authorization=f"Bearer {served.token}")
    assert status == 403
    assert "the plugin's" not in body
    assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "LOCALHOST"])
async def test_the_hosts_own_names_are_served(served: Any, host: str) -> None:
    port = served.url.rpartition(":")[2]
    assert (await ask(served, "/health", Host=f"{host}:{port}"))[:2] == (200, '{"status": "ok"}')


@pytest.mark.parametrize("origin", ["https://board.example", "http://127.0.0.1:{port}", "http://localhost:{port}"])
async def test_own_and_listed_origins_may_connect(served: Any, origin: str) -> None:
    origin = origin.format(port=served.url.rpartition(":")[2])
    assert (await ask(served, "/ws", Origin=origin, Authorization=f"Bearer {served.token}"))[0] == 101


async def test_a_rebound_name_whose_origin_equals_its_host_is_misdirected(served: Any) -> None:
    port = served.url.rpartition(":")[2]
    name = f"rebound.example:{port}"
    assert (await ask(served, "/ws", Host=name, Origin=f"http://{name}"))[0] == 421


@pytest.mark.parametrize("header", ["X-Forwarded-Host", "X-Forwarded-For", "Forwarded", "X-Real-IP"])
async def test_forwarding_headers_are_not_believed(served: Any, header: str) -> None:
    status, _, _ = await ask(served, "/health", **{"Host": "evil.example", header: "127.0.0.1"})
    assert status == 421


@pytest.mark.parametrize("path", PATHS)
async def test_every_answer_has_the_security_headers_and_no_versions(served: Any, path: str) -> None:
    _, _, headers = await ask(served, path, Authorization=f"Bearer {served.token}")
    assert headers["Server"] == "kandev-host"
    assert headers["Content-Security-Policy"] == (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize("path", ["/ws", "/metrics"])
@pytest.mark.parametrize(
    "authorization", ["Bearer wrong", "Bearer ", "Bearer", "Basic cmlnaHQ6", "bearer {token}x", "Bearer \xe9\xff"]
)
async def test_bad_credentials_are_unauthorized(served: Any, path: str, authorization: str) -> None:
    status, body, headers = await ask(served, path, Authorization=authorization.format(token=served.token))
    assert (status, headers.get("WWW-Authenticate")) == (401, "Bearer")
    assert '"UNAUTHORIZED"' in body


@pytest.mark.parametrize("protocols", [["bearer.{token}"], ["kandev.v1", "bearer.{token}"], ["bearer.{token}", "x"]])
async def test_a_token_among_the_subprotocols_is_not_logged(
    served: Any, open_wire: Any, caplog: Any, protocols: list[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    offered = [each.format(token=served.token) for each in protocols]
    async with open_wire(served, token=None, protocols=offered) as wire:
        assert (await wire.ask("health.check"))["type"] == "response"
    assert served.token not in caplog.text


async def test_a_plugins_route_needs_the_token(served: Any) -> None:
    assert (await ask(served, "/metrics"))[0] == 401
    assert (await ask(served, "/metrics", Authorization=f"Bearer {served.token}"))[:2] == (200, "the plugin's")


@pytest.mark.parametrize("path", ["/ws?token={token}", "/metrics?token={token}"])
async def test_the_local_token_in_a_url_is_refused_and_says_why(served: Any, path: str) -> None:
    status, body, _ = await ask(
        served, path.format(token=served.token), Authorization=f"Bearer {served.token}", **UPGRADE
    )
    assert status == 401
    assert "logs" in body
    assert served.token not in body


async def test_a_broken_route_answers_500_without_a_trace(served: Any) -> None:
    status, body, _ = await ask(served, "/broken", Authorization=f"Bearer {served.token}")
    assert status == 500
    assert "secret" not in body
    assert "Traceback" not in body


@pytest.mark.parametrize("method", ["OPTIONS", "POST", "TRACE"])
async def test_other_methods_are_refused_without_cors(served: Any, method: str) -> None:
    status, _, headers = await ask(served, "/health", method)
    assert status == 405
    assert not [name for name in headers if name.lower().startswith("access-control")]


async def test_malformed_http_shows_no_version(served: Any) -> None:
    port = int(served.url.rpartition(":")[2])
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(b"NOT HTTP AT ALL\r\n\r\n")
        answer = await stream.receive()
    assert b"400" in answer
    assert b"aiohttp" not in answer
    assert b"Python" not in answer


async def test_two_host_headers_are_refused(served: Any) -> None:
    port = int(served.url.rpartition(":")[2])
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        own = f"127.0.0.1:{port}"
        await stream.send(f"GET /health HTTP/1.1\r\nHost: {own}\r\nHost: evil\r\n\r\n".encode())
        answer = await stream.receive()
    assert answer.split(b" ")[1] in {b"400", b"421"}


async def test_an_absolute_url_of_another_host_is_misdirected(served: Any) -> None:
    port = int(served.url.rpartition(":")[2])
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(f"GET http://evil.example/health HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        answer = await stream.receive()
    assert answer.split(b" ")[1] == b"421"


async def test_a_peer_that_never_finishes_its_request_is_dropped(open_house: Any) -> None:
    async with open_house(handshake_timeout_s=0.05) as house:
        port = int(house.url.rpartition(":")[2])
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(b"GET /ws HTTP/1.1\r\nHost:")
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await stream.receive()


async def test_health_says_nothing_but_ok(served: Any) -> None:
    assert (await ask(served, "/health"))[1] == '{"status": "ok"}'


async def test_a_token_of_one_route_is_good_for_that_and_within_its_scope(served: Any) -> None:
    guest, mine = f"Bearer {'o' * 43}", f"Bearer {served.token}"
    assert (await ask(served, "/own", Authorization=guest))[0] == 200
    assert (await ask(served, "/own", Authorization=mine))[0] == 200
    assert (await ask(served, "/other", Authorization=guest))[0] == 403
    assert (await ask(served, "/metrics", Authorization=guest))[0] == 401
    assert (await ask(served, "/ws", Authorization=guest))[0] == 401


async def test_a_plugin_cannot_take_a_path_of_the_host(open_house: Any) -> None:
    with pytest.raises(StartupError, match="/health is the host's own"):
        async with open_house(routes=[Route("GET", "/health", plugin_route, "x")]):
            pass
