"""JSON-RPC 2.0 over stdin and stdout, one object per line (ACP: transports)."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import stat
import sys
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

AUTH_REQUIRED = -32000
PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR = -32700, -32600, -32601, -32602, -32603
NOT_FOUND = -32002
LINE_LIMIT_BYTES = 16 << 20

Object = dict[str, Any]


class RpcError(Exception):
    """An answer that is an error. `code` is JSON-RPC's or ACP's."""

    def __init__(self, code: int, message: str, **data: Any) -> None:
        super().__init__(message)
        self.error: Object = {"code": code, "message": message, **({"data": data} if data else {})}


class Connection:
    """One client on the other side of the pipes.

    `on_request` serves a request in a task of its own, so that a turn does not hold up a cancel; `on_notification`
    is called inline. The two sides number their requests independently.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._ids = itertools.count()
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._serving: set[asyncio.Task[None]] = set()

    async def serve(
        self,
        on_request: Callable[[str, Object, Any], Awaitable[Any]],
        on_notification: Callable[[str, Object], None],
    ) -> None:
        """Until the client closes our stdin; what is still being served then is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                message = await self._read()
                if message is None:
                    break
                if not isinstance(message, dict) or not isinstance(message.get("id"), str | int | None):
                    await self._refuse(None, INVALID_REQUEST, "expected a JSON-RPC object")
                elif "method" not in message:
                    self._settle(message)
                elif "id" not in message:
                    on_notification(str(message["method"]), _params(message))
                else:
                    task = tasks.create_task(self._answer(message, on_request))
                    self._serving.add(task)
                    task.add_done_callback(self._serving.discard)
                    # The task takes its first step now: a cancel on the next line finds its turn begun.
                    await asyncio.sleep(0)
            for task in self._serving:
                task.cancel()

    async def call(self, method: str, params: Object) -> Any:
        """Ask the client. Raises `RpcError` with its error."""
        number = next(self._ids)
        future = self._pending[number] = asyncio.get_running_loop().create_future()
        try:
            await self._write({"id": number, "method": method, "params": params})
            return await future
        finally:
            self._pending.pop(number, None)

    async def notify(self, method: str, params: Object) -> None:
        await self._write({"method": method, "params": params})

    async def _read(self) -> Any:
        """The next JSON value; None at the end. Lines that are none are answered and passed over."""
        while True:
            try:
                line = await self._reader.readline()
                if not line:
                    return None
                if line.strip():
                    return json.loads(line)
            except ValueError as error:
                await self._refuse(None, PARSE_ERROR, f"not a JSON line: {error}")

    async def _answer(self, message: Object, on_request: Callable[[str, Object, Any], Awaitable[Any]]) -> None:
        try:
            result = await on_request(str(message["method"]), _params(message), message["id"])
            answer: Object = {"result": result}
        except RpcError as error:
            answer = {"error": error.error}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": RpcError(INTERNAL_ERROR, f"{type(error).__name__}: {error}").error}
        await self._write({"id": message["id"], **answer})

    async def _refuse(self, id: Any, code: int, message: str) -> None:
        await self._write({"id": id, "error": {"code": code, "message": message}})

    def _settle(self, message: Object) -> None:
        future = self._pending.get(message["id"]) if "id" in message else None
        if future is None or future.done():
            return
        if "error" in message:
            error = message["error"] if isinstance(message["error"], dict) else {}
            future.set_exception(RpcError(error.get("code", INTERNAL_ERROR), str(error.get("message", "unknown"))))
        else:
            future.set_result(message.get("result"))

    async def _write(self, message: Object) -> None:
        self._writer.write(json.dumps({"jsonrpc": "2.0", **message}, separators=(",", ":")).encode() + b"\n")
        await self._writer.drain()


def _params(message: Object) -> Object:
    params = message.get("params")
    return params if isinstance(params, dict) else {}


async def connect() -> Connection:
    """A connection over this process's stdin and stdout. Exits with a line of text where they are no pipes."""
    if not all(map(_is_stream, (0, 1))):
        sys.exit("This is an ACP agent: a client starts it, with pipes as its stdin and stdout.")
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=LINE_LIMIT_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, sys.stdout)
    return Connection(reader, asyncio.StreamWriter(transport, protocol, None, loop))


def _is_stream(descriptor: int) -> bool:
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor)
