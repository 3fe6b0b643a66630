"""An engine that is none: it makes containers of which nothing runs, and does not answer what it is told not to."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import anyio
from anyio.abc import SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

INFO = {
    "SecurityOptions": ["name=seccomp,profile=default"],
    "CgroupVersion": "2",
    **dict.fromkeys(("MemoryLimit", "SwapLimit", "PidsLimit", "CpuCfsQuota"), True),
}


@dataclass
class StandIn:
    """`silent` are parts of "METHOD path" that get no answer, `containers` those that were made and not removed."""

    path: str
    info: dict[str, Any] = field(default_factory=lambda: dict(INFO))
    version: dict[str, Any] = field(default_factory=lambda: {"Version": "1", "ApiVersion": "1.41"})
    silent: set[str] = field(default_factory=set)
    containers: dict[str, dict[str, str]] = field(default_factory=dict)
    made: int = 0

    async def serve(self, stream: SocketStream) -> None:
        buffered = BufferedByteReceiveStream(stream)
        async with stream:
            try:
                while True:
                    head = (await buffered.receive_until(b"\r\n\r\n", 65536)).decode().split("\r\n")
                    fields = dict(line.lower().split(": ", 1) for line in head[1:])
                    body = await buffered.receive_exactly(int(fields.get("content-length", "0")))
                    method, target, _ = head[0].split(" ")
                    path, _, query = target.partition("?")
                    if any(each in f"{method} {path}" for each in self.silent):
                        await anyio.sleep_forever()
                    status, told = self._answer(method, path, query, body)
                    content = json.dumps(told).encode()
                    lines = f"HTTP/1.1 {status} Told\r\nContent-Type: application/json\r\n"
                    await stream.send(f"{lines}Content-Length: {len(content)}\r\n\r\n".encode() + content)
            except (anyio.IncompleteRead, anyio.EndOfStream, anyio.BrokenResourceError):
                return

    def _answer(self, method: str, path: str, query: str, body: bytes) -> tuple[int, Any]:
        last = path.rpartition("/")[2]
        if path.endswith("/attach"):
            return 101, None
        if last == "create":
            [name] = parse_qs(query)["name"]
            self.containers[name] = json.loads(body)["Labels"]
            self.made += 1
            return 201, {"Id": name}
        if method == "DELETE":
            return (200, None) if self.containers.pop(last, None) else (404, {"message": "No such container"})
        if path.endswith("/containers/json"):
            return 200, [{"Id": name, "State": "created", "Labels": labels} for name, labels in self.containers.items()]
        if "/images/" in path:
            return 200, {"Id": "sha256:1", "Os": "linux"}
        return 200, {"version": self.version, "info": self.info}.get(last)


@asynccontextmanager
async def standing_in() -> AsyncIterator[StandIn]:
    with tempfile.TemporaryDirectory(prefix="kd-") as folder:
        engine = StandIn(os.path.join(folder, "s"))
        async with await anyio.create_unix_listener(engine.path) as listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, engine.serve)
            yield engine
            tasks.cancel_scope.cancel()
