"""What stands between a terminal in a jail and the user's own: keys that leave, and what is not let through."""

from __future__ import annotations

import os
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kandev_host.cli.shell.clipboard import Sieve
from kandev_host.cli.shell.interactive import Escape
from kandev_host.cli.shell.output import Followed, Out

CLIPBOARD = b"\x1b]52;c;ZXZpbA==\x07"


def passed(*parts: bytes) -> bytes:
    sieve = Sieve()
    return b"".join(sieve.passed(part) for part in parts)


@pytest.mark.parametrize(
    "hostile",
    [CLIPBOARD, b"\x1b]52;c;ZXZpbA==\x1b\\", b"\xc2\x9d52;c;ZXZpbA==\xc2\x9c", b"\x1b]52;c;?\x07", b"\x1b]52;c;ZX\x18"],
)
def test_nothing_writes_to_the_clipboard(hostile: bytes) -> None:
    assert passed(b"a" + hostile + b"b") == b"ab"


@pytest.mark.parametrize("at", range(1, len(CLIPBOARD)))
def test_nothing_does_in_two_parts(at: int) -> None:
    assert passed(b"a" + CLIPBOARD[:at], CLIPBOARD[at:] + b"b") == b"ab"


@pytest.mark.parametrize("harmless", [b"\x1b]0;title\x07", b"\x1b[31mred\x1b[0m", "grüße €".encode(), b"\x1b]8;;x\x07"])
def test_the_rest_passes(harmless: bytes) -> None:
    assert passed(harmless + b"-") == harmless + b"-"


@given(st.lists(st.sampled_from([b"\x1b", b"]", b"5", b"2", b";", b"\x07", b"\\", b"\xc2", b"\x9d", b"\x9c", b"x"])))
def test_no_cut_makes_a_difference(parts: list[bytes]) -> None:
    ends = b"\x07----"
    assert passed(*parts, ends) == passed(b"".join(parts) + ends)
    assert b"\x1b]52" not in passed(*parts, ends)


def typed(*parts: bytes) -> tuple[bytes, bool]:
    escape, sent = Escape(), b""
    for part in parts:
        more, leave = escape.typed(part)
        sent += more
        if leave:
            return sent, True
    return sent, False


@pytest.mark.parametrize(
    ("keys", "sent", "left"),
    [
        ([b"ls\r", b"~."], b"ls\r", True),
        ([b"~", b"."], b"", True),
        ([b"a~."], b"a~.", False),
        ([b"\r~~."], b"\r~.", False),
        ([b"\r~x"], b"\r~x", False),
        ([b"cd ~\r"], b"cd ~\r", False),
        ([b"\r~/x\r~."], b"\r~/x\r", True),
    ],
)
def test_enter_tilde_and_full_stop_leave(keys: list[bytes], sent: bytes, left: bool) -> None:
    assert typed(*keys) == (sent, left)


class Answering:
    """A client whose host holds `held` from offset 0 on."""

    def __init__(self, held: bytes, notifications: list[Any]) -> None:
        self._held = held
        self._notifications = notifications

    async def call(self, action: str, payload: dict[str, Any]) -> dict[str, Any]:
        assert action == "shell.read"
        at = payload["offset"]
        output = [part(at, self._held[at:])["payload"]] if at < len(self._held) else []
        return {"output": output, "next_offset": len(self._held), "dropped_bytes": 0}

    async def notifications(self) -> Any:
        for each in self._notifications:
            if callable(each):
                each()
            else:
                yield Heard(**each)


class Heard:
    def __init__(self, action: str, payload: Any) -> None:
        self.action = action
        self.payload = payload


def part(offset: int, data: bytes, shell_id: str = "s") -> dict[str, Any]:
    told = {"shell_id": shell_id, "stream": "terminal", "offset": offset, "data": data.decode(), "encoding": "utf-8"}
    return {"action": "shell.output", "payload": told}


def read(client: Any) -> tuple[bytes, Any]:
    async def all_parts() -> tuple[bytes, Any]:
        followed = Followed(client, "s")
        return b"".join([data async for _, data in followed.parts()]), followed.exited

    return anyio.run(all_parts)


EXITED = {"action": "shell.exited", "payload": {"shell_id": "s", "shell": {"exit_code": 3}}}


def test_what_came_before_we_followed_is_read() -> None:
    assert read(Answering(b"before", [part(6, b"after"), EXITED])) == (b"beforeafter", {"exit_code": 3})


def test_what_comes_twice_is_shown_once() -> None:
    assert read(Answering(b"abcdef", [part(0, b"abc"), part(4, b"efgh"), EXITED]))[0] == b"abcdefgh"


def test_a_gap_is_filled() -> None:
    client = Answering(b"ab", [])
    client._notifications = [lambda: setattr(client, "_held", b"abcdef"), part(4, b"ef"), EXITED]
    assert read(client)[0] == b"abcdef"


def test_other_shells_are_not_shown() -> None:
    assert read(Answering(b"", [part(0, b"other", "t"), EXITED]))[0] == b""


@pytest.mark.parametrize("plain", [True, False])
def test_a_pipe_gets_every_byte_as_it_is(plain: bool) -> None:
    async def written() -> bytes:
        reader, writer = os.pipe()
        got = b""
        try:
            out = Out(writer, plain=plain)
            await out.write(b"\x1b[31m\xff\n" + b"x" * 5000)
            await out.end()
            got = os.read(reader, 1 << 16)
        finally:
            os.close(reader)
            os.close(writer)
        return got

    assert anyio.run(written) == b"\x1b[31m\xff\n" + b"x" * 5000


def test_a_terminal_is_shown_what_it_would_obey() -> None:
    async def written() -> bytes:
        leader, follower = os.openpty()
        try:
            out = Out(follower, plain=True)
            await out.write(b"\x1b[31mred\xe2\x82")
            await out.write(b"\xac\nlast\x07")
            await out.end()
            shown = b""
            while not shown.endswith(b"07"):  # a terminal hands on what was written in its own time
                shown += os.read(leader, 1 << 16)
            return shown
        finally:
            os.close(leader)
            os.close(follower)

    assert anyio.run(written) == "\\x1b[31mred€\r\nlast\\x07".encode()
