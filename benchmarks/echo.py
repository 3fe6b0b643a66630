"""The floor of the socket rows: a bare aiohttp WebSocket that decodes and encodes the same envelope."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import msgspec
from aiohttp import WSMsgType, web


class Envelope(msgspec.Struct):
    id: str
    type: str
    action: str
    payload: Any
    timestamp: str | None = None


async def echo(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(compress=False)
    await socket.prepare(request)
    decoder, encoder = msgspec.json.Decoder(Envelope), msgspec.json.Encoder()
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            envelope = decoder.decode(message.data)
            envelope.type = "response"
            envelope.timestamp = datetime.now(UTC).isoformat()
            await socket.send_str(encoder.encode(envelope).decode())
    return socket


async def health(_request: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


def main() -> None:
    async def serve() -> None:
        app = web.Application()
        app.router.add_get("/ws", echo)
        app.router.add_get("/health", health)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        print(json.dumps({"url": f"http://127.0.0.1:{runner.addresses[0][1]}"}), flush=True)
        await asyncio.Event().wait()

    asyncio.run(serve())


if __name__ == "__main__":
    main()
