"""The floor of fan_out: a bare aiohttp WebSocket server that sends text encoded beforehand to all its sockets."""

from __future__ import annotations

import asyncio
import json

from aiohttp import WSMsgType, web

SOCKETS: set[web.WebSocketResponse] = set()


async def serve(request: web.Request) -> web.WebSocketResponse:
    """`GO N TEXT` sends the text N times to everybody."""
    socket = web.WebSocketResponse(compress=False)
    await socket.prepare(request)
    SOCKETS.add(socket)
    try:
        async for message in socket:
            if message.type is WSMsgType.TEXT and message.data.startswith("GO "):
                _, number, text = message.data.split(" ", 2)
                for _ in range(int(number)):
                    for other in SOCKETS:
                        if other is not socket:
                            await other.send_str(text)
    finally:
        SOCKETS.discard(socket)
    return socket


def main() -> None:
    async def run() -> None:
        app = web.Application()
        app.router.add_get("/ws", serve)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        print(json.dumps({"url": f"http://127.0.0.1:{runner.addresses[0][1]}"}), flush=True)
        await asyncio.Event().wait()

    asyncio.run(run())


if __name__ == "__main__":
    main()
