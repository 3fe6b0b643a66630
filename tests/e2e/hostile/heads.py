"""Handshakes and headers: each with the statuses that are a clean answer to it."""

from __future__ import annotations

from .wire import CLOSED, KEY, OWN, TOKEN, UPGRADE, WS

Requests = dict[str, tuple[str | bytes, set[int]]]


def upgrade(host: str = OWN, credentials: str = TOKEN, origin: str = "") -> str:
    return f"{WS}{host}{origin}{UPGRADE}{credentials}\r\n"


def post(body: str, *headers: str) -> str:
    return f"POST /login HTTP/1.1\r\n{OWN}{''.join(f'{header}' + chr(13) + chr(10) for header in headers)}\r\n{body}"


# A name that is bound anew is the attacker's, whatever else is right.
NAMES: Requests = {
    "rebound": (upgrade("Host: evil.example\r\n"), {421}),
    "rebound-port": (upgrade("Host: evil.example:8080\r\n"), {421}),
    "rebound-suffix": (upgrade("Host: 127.0.0.1.evil.example\r\n"), {421}),
    "rebound-same-origin": (upgrade("Host: evil.example\r\n", origin="Origin: http://evil.example\r\n"), {421}),
    "rebound-health": ("GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n", {421}),
    "rebound-schema": ("GET /schema.json HTTP/1.1\r\nHost: evil.example\r\n\r\n", {421}),
    "rebound-login": ("GET /login HTTP/1.1\r\nHost: evil.example\r\n\r\n", {421}),
    "rebound-nowhere": ("GET /x HTTP/1.1\r\nHost: evil.example\r\n\r\n", {421}),
    "rebound-forwarded": (upgrade("Host: evil.example\r\nX-Forwarded-Host: {own}\r\n"), {421}),
    "rebound-forwarded-rfc": (upgrade("Host: evil.example\r\nForwarded: host={own}\r\n"), {421}),
    "no-host": (upgrade(""), {400, 421}),
    "empty-host": (upgrade("Host:\r\n"), {400, 421}),
    "two-hosts": (upgrade(f"{OWN}Host: evil.example\r\n"), {400, 421}),
    "host-list": (upgrade("Host: {own}, evil.example\r\n"), {400, 421}),
    "host-user": (upgrade("Host: x@{own}\r\n"), {400, 421}),
    "host-path": (upgrade("Host: {own}/x\r\n"), {400, 421}),
    "host-dot": (upgrade("Host: localhost.:1\r\n"), {421}),
    "host-number": (upgrade("Host: 2130706433\r\n"), {421}),
    "host-zero": (upgrade("Host: 0.0.0.0\r\n"), {421}),
    "host-any-v6": (upgrade("Host: [::]\r\n"), {400, 421}),
    "host-mapped": (upgrade("Host: [::ffff:127.0.0.1]\r\n"), {400, 421}),
    "host-no-port": (upgrade("Host: 127.0.0.1\r\n"), {421}),
    "absolute": (f"GET http://evil.example/ws HTTP/1.1\r\n{OWN}{UPGRADE}{TOKEN}\r\n", {400, 421}),
    "absolute-host": ("GET http://{own}/health HTTP/1.1\r\nHost: evil.example\r\n\r\n", {400, 421}),
}
ORIGINS: Requests = {
    **{
        f"origin-{name}": (upgrade(origin=f"Origin: {origin}\r\n"), {403})
        for name, origin in {
            "other": "https://evil.example",
            "null": "null",
            "empty": "",
            "prefix": "http://{own}.evil.example",
            "user": "http://{own}@evil.example",
            "port": "http://localhost:3000",
            "no-port": "http://127.0.0.1",
            "scheme": "https://{own}",
            "socket": "ws://{own}",
            "file": "file://",
            "slash": "http://{own}/",
            "list": "http://{own} http://evil.example",
            "extension": "chrome-extension://abcdefghijklmnop",
        }.items()
    },
    "origin-twice": (upgrade(origin="Origin: http://{own}\r\nOrigin: http://e\r\n"), {403}),
    "preflight": (f"OPTIONS /login HTTP/1.1\r\n{OWN}Origin: http://e\r\n\r\n", {403}),
    "preflight-local-network": (
        f"OPTIONS /ws HTTP/1.1\r\n{OWN}Origin: http://e\r\nAccess-Control-Request-Private-Network: true\r\n\r\n",
        {403},
    ),
    "post-elsewhere": (post("{}", "Origin: http://e", "Content-Length: 2"), {403}),
    "post-no-origin": (post('{"ticket":"x"}', "Content-Type: application/json", "Content-Length: 14"), {403}),
    "post-no-type": (post("{}", "Content-Length: 2"), {415}),
    "post-as-text": (post("{}", "Origin: http://{own}", "Content-Type: text/plain", "Content-Length: 2"), {415}),
    "post-too-long": (
        post("{", "Origin: http://{own}", "Content-Type: application/json", "Content-Length: 5000"), {413},
    ),
    "post-no-length": (
        post(
            "2\r\n{}\r\n0\r\n\r\n",
            "Origin: http://{own}", "Content-Type: application/json", "Transfer-Encoding: chunked",
        ),
        {413},
    ),
    "post-no-object": (
        post("7", "Origin: http://{own}", "Content-Type: application/json", "Content-Length: 1"), {400},
    ),
    "post-no-ticket": (
        post('{"ticket":""}', "Origin: http://{own}", "Content-Type: application/json", "Content-Length: 13"), {401},
    ),
}  # fmt: skip
CREDENTIALS: Requests = {
    **{
        name: (upgrade(credentials=f"{credentials}\r\n"), statuses)
        for name, (credentials, statuses) in {
            "wrong": ("Authorization: Bearer wrong", {401}),
            "longer": ("Authorization: Bearer {token}x", {401}),
            "present-but-empty": ("Authorization:", {401}),
            "no-scheme": ("Authorization: {token}", {401}),
            "basic": ("Authorization: Basic {token}", {401}),
            "twice": ("Authorization: Bearer {token}\r\nAuthorization: Bearer wrong", {400, 401}),
            "list": ("Authorization: Bearer {token}, Bearer {token}", {400, 401}),
            "header-and-protocol": ("Authorization: Bearer {token}\r\nSec-WebSocket-Protocol: bearer.wrong", {401}),
            "protocol-wrong": ("Sec-WebSocket-Protocol: kandev.v1, bearer.wrong", {401}),
            "protocol-empty": ("Sec-WebSocket-Protocol: bearer.", {401}),
            "bytes": ("Authorization: Bearer \udcff\udcfe", {400, 401}),
            "endless": (f"Authorization: Bearer {'x' * 7000}", {400, 401}),
        }.items()
    },
    "query": (f"GET /ws?token={{token}} HTTP/1.1\r\n{OWN}{UPGRADE}\r\n", {401}),
    "query-escaped": (f"GET /ws?%74oken={{token}} HTTP/1.1\r\n{OWN}{UPGRADE}\r\n", {401}),
    "cookie": (f"GET /metrics HTTP/1.1\r\n{OWN}Cookie: token={{token}}\r\n\r\n", {401, 404}),
}
HTTP: Requests = {
    "plain": (f"{WS}{OWN}{TOKEN}\r\n", {426}),
    "post-ws": (f"POST /ws HTTP/1.1\r\n{OWN}{UPGRADE}{TOKEN}\r\n", {400, 405}),
    "version": (upgrade().replace("Version: 13", "Version: 99"), {400, 426}),
    "key": (upgrade().replace(KEY, "short"), {400, 426}),
    "no-key": (upgrade().replace(f"Sec-WebSocket-Key: {KEY}\r\n", ""), {400, 426}),
    "upgrade-elsewhere": (upgrade().replace("websocket", "h2c"), {426}),
    "old-http": (f"GET /health HTTP/1.0\r\n{OWN}\r\n", {200, 400, 421}),
    "no-http": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", {400}),
    "http-2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 505, CLOSED}),
    "nul": (b"GET /health\0 HTTP/1.1\r\nHost: x\r\n\r\n", {400}),
    "nul-line": (b"\0\r\n\r\n", {400}),
    "no-version": (b"GET /health\r\n\r\n", {400, 421}),
    "header-injection": (f"GET /health HTTP/1.1\r\n{OWN}X: a\rSet-Cookie: b\r\n\r\n", {400}),
    "header-folded": (f"GET /health HTTP/1.1\r\n{OWN}X: a\r\n b\r\n\r\n", {200, 400}),
    "header-no-colon": (f"GET /health HTTP/1.1\r\n{OWN}nonsense\r\n\r\n", {400}),
    "header-space": ("GET /health HTTP/1.1\r\nHost : {own}\r\n\r\n", {400}),
    "header-flood": (f"GET /health HTTP/1.1\r\n{OWN}" + "X: y\r\n" * 5000 + "\r\n", {200, 400, 431, CLOSED}),
    "header-long": (f"GET /health HTTP/1.1\r\n{OWN}X: {'y' * 100_000}\r\n\r\n", {400, 431, CLOSED}),
    "line-long": (f"GET /{'y' * 100_000} HTTP/1.1\r\n{OWN}\r\n", {400, 414, CLOSED}),
    "line-endless": (b"y" * 100_000, {400, CLOSED}),
    "smuggled": (post("0\r\n\r\n", "Content-Length: 4", "Transfer-Encoding: chunked"), {400}),
    "smuggled-chunks": (post("y\r\n", "Transfer-Encoding: chunked"), {400, 403}),
    "smuggled-encoding": (post("0\r\n\r\n", "Transfer-Encoding: chunked, identity"), {400}),
    "two-lengths": (post("{}", "Content-Length: 1", "Content-Length: 2"), {400}),
    "length": (post("", "Content-Length: -1"), {400}),
    "length-plus": (post("{}", "Content-Length: +2"), {400}),
    "traversal": (f"GET /login/../../token HTTP/1.1\r\n{OWN}\r\n", {400, 404}),
    "traversal-escaped": (f"GET /%2e%2e/%2e%2e/token HTTP/1.1\r\n{OWN}\r\n", {400, 404}),
    "trace": (f"TRACE /health HTTP/1.1\r\n{OWN}Cookie: secret\r\n\r\n", {400, 405}),
    "connect": ("CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n", {400, 404, 405, 421}),
}
HEADS: Requests = {**NAMES, **ORIGINS, **CREDENTIALS, **HTTP}
