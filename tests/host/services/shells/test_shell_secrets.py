"""What is secret is in nothing that a shell tells or keeps, but on the screen of the person who types there."""

from __future__ import annotations

import base64
import secrets
from typing import Any

import anyio
import pytest

from kandev_host.secrets import MARK, register

pytestmark = pytest.mark.anyio


@pytest.fixture
def secret() -> str:
    value = f"canary-{secrets.token_hex(8)}"
    register(value, "of a test")
    return value


def shown(bench: Any) -> str:
    parts = bench.told("shell.output")
    return "".join(str(base64.b64decode(p["data"])) if p["encoding"] == "base64" else p["data"] for p in parts)


async def test_a_secret_in_two_pieces_is_told_and_kept_nowhere(bench: Any, secret: str) -> None:
    shell = await bench.open()
    raw = f"key: {secret}.\n".encode()
    reply = await bench.run(shell, f"bytes {raw[:12].hex()}\nbytes {raw[12:].hex()}")
    (command,) = await bench.commands()
    assert shown(bench) == reply.stdout == command.output_head == f"key: {MARK}.\n"
    assert command.stdout_bytes == len(raw)
    assert reply.output_offset == len(shown(bench))
    read = await bench.do("read", shell, offset=0)
    assert "".join(part.data for part in read.output) == shown(bench)


async def test_a_secret_in_a_command_is_not_kept(bench: Any, secret: str) -> None:
    await bench.run(await bench.open(), f"say {secret}")
    (command,) = await bench.commands()
    assert command.command == f"say {MARK}"
    assert [told["command"]["command"] for told in bench.told("shell.command")] == [f"say {MARK}"] * 2


async def test_a_secret_at_the_seam_of_what_the_audit_keeps_is_in_neither_part(bench: Any, secret: str) -> None:
    filler = b"x" * (4096 - 10)
    await bench.run(await bench.open(), f"bytes {(filler + secret.encode() + b'.' * 20).hex()}")
    (command,) = await bench.commands()
    assert command.output_head + command.output_tail == filler.decode() + MARK + "." * 20


async def test_what_may_begin_a_secret_is_shown_when_nothing_more_comes(bench: Any, secret: str) -> None:
    shell = await bench.open()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.run, shell, f"bytes {f'which? {secret[:5]}'.encode().hex()}\nwait")
        await bench.hears("shell.output", lambda told: told["data"] == secret[:5])
        bench.runtime.shells[0].go.set()
    assert shown(bench) == f"which? {secret[:5]}"
