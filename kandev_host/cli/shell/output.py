"""A shell's output on its way to the user's terminal, file or pipe."""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel

from kandev_host.printable import printable

if TYPE_CHECKING:
    from kandev_host.client import Client

# What is free at least when the kernel says that it can be written to, so that a write never blocks: 256 bytes of a
# terminal (WAKEUP_CHARS of n_tty), PIPE_BUF of a pipe.
TERMINAL_ROOM_BYTES = 256
PIPE_ROOM_BYTES = 4096
PART_BYTES = 256 << 10


class Followed:
    """The output of one shell, in order and without a gap, as (stream, bytes); it ends when the shell does.

    `at` is how far it was handed out, and `exited` then the shell as it was closed.
    """

    def __init__(self, client: Client, shell_id: str, at: int = 0) -> None:
        self._client = client
        self._shell_id = shell_id
        self.at = at
        self.exited: Mapping[str, Any] | None = None

    async def parts(self) -> AsyncIterator[tuple[str, bytes]]:
        """What is held already, then what comes."""
        async for part in self._held():
            yield part
        async for notification in self._client.notifications():
            payload = notification.payload
            if not isinstance(payload, dict) or payload.get("shell_id") != self._shell_id:
                continue
            if notification.action == "shell.exited":
                self.exited = payload["shell"]
                return
            if notification.action == "shell.output":
                if payload["offset"] > self.at:
                    async for part in self._held():
                        yield part
                if (found := self._take(payload)) is not None:
                    yield found

    async def _held(self) -> AsyncIterator[tuple[str, bytes]]:
        """What the host still holds of it, from here on; nothing once it is closed."""
        from kandev_host.client import ClientError

        while True:
            wanted = {"shell_id": self._shell_id, "offset": self.at, "limit_bytes": PART_BYTES}
            try:
                reply = await self._client.call("shell.read", wanted)
            except ClientError as error:
                if error.code != "CONFLICT":
                    raise
                return
            if reply["dropped_bytes"]:
                self.at += reply["dropped_bytes"]
            for payload in reply["output"]:
                if (found := self._take(payload)) is not None:
                    yield found
            if not reply["output"]:
                return

    def _take(self, payload: Mapping[str, Any]) -> tuple[str, bytes] | None:
        data = base64.b64decode(payload["data"]) if payload["encoding"] == "base64" else payload["data"].encode()
        known = self.at - payload["offset"]
        if known >= len(data):
            return None
        self.at = payload["offset"] + len(data)
        return payload["stream"], data[max(0, known) :]


class Out:
    """A descriptor that is written to without blocking. Of a `plain` terminal, what it would obey is shown instead."""

    def __init__(self, descriptor: int, *, plain: bool) -> None:
        self._descriptor = descriptor
        self._terminal = os.isatty(descriptor)
        self._escape = plain and self._terminal
        self._held = b""

    async def write(self, data: bytes) -> None:
        """All of it, as fast as it can be taken."""
        data = self._shown(data) if self._escape else data
        room = TERMINAL_ROOM_BYTES if self._terminal else PIPE_ROOM_BYTES
        for start in range(0, len(data), room):
            await self._writable()
            part = data[start : start + room]
            while part:
                part = part[os.write(self._descriptor, part) :]

    def _shown(self, data: bytes) -> bytes:
        """By lines, so that no character is cut in two."""
        self._held += data
        lines, newline, self._held = self._held.rpartition(b"\n")
        if len(self._held) > PART_BYTES:
            lines, newline, self._held = lines + newline + self._held, b"", b""
        return printable((lines + newline).decode(errors="replace"), lines=True).encode()

    async def end(self) -> None:
        """What waited for the end of its line."""
        held, self._held = self._held, b""
        if held:
            self._escape, escape = False, self._escape
            await self.write(printable(held.decode(errors="replace"), lines=True).encode())
            self._escape = escape

    async def _writable(self) -> None:
        try:
            await anyio.wait_writable(self._descriptor)
        except PermissionError:  # a file: it cannot be waited for (epoll_ctl), and need not be
            await anyio.lowlevel.checkpoint()
