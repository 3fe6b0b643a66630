"""A shell's output: to those who follow it, as fast as they read, and held for those who come late."""

from __future__ import annotations

import base64
from typing import Any

import anyio
import pytest

pytestmark = pytest.mark.anyio
DEADLINE_S = 60.0


def together(parts: list[dict[str, Any]]) -> bytes:
    return b"".join(base64.b64decode(p["data"]) if p["encoding"] == "base64" else p["data"].encode() for p in parts)


async def test_those_who_follow_it_hear_it_as_it_comes(bench: Any) -> None:
    shell = await bench.open()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.run, shell, "say one\nerr two\nwait")
        await bench.runtime.shells[0].waiting.wait()
        one, two = bench.told("shell.output")
        assert (one["stream"], one["data"], one["offset"], one["bytes"]) == ("stdout", "one\n", 0, 4)
        assert (two["stream"], two["data"], two["offset"]) == ("stderr", "two\n", 4)
        assert one["command_id"] == two["command_id"] is not None
        bench.runtime.shells[0].go.set()


async def test_nobody_else_hears_it(bench: Any) -> None:
    heard: list[Any] = []
    bench.services.bus.subscribe(["*"], heard.append)
    await bench.run(await bench.open(), "say one")
    assert [item.action for item in heard if item.action == "shell.output"] == []
    assert len(bench.told("shell.output")) == 1


async def test_offsets_go_on_over_commands(bench: Any) -> None:
    shell = await bench.open()
    assert (await bench.run(shell, "say one")).output_offset == 4
    assert (await bench.run(shell, "say two")).output_offset == 8
    assert [part["offset"] for part in bench.told("shell.output")] == [0, 4]


async def test_a_character_that_comes_in_two_parts_stays_text(bench: Any) -> None:
    await bench.run(await bench.open(), "bytes 61e2\nbytes 82\nbytes ac62")
    parts = bench.told("shell.output")
    assert [part["encoding"] for part in parts] == ["utf-8", "utf-8"]
    assert "".join(part["data"] for part in parts) == "a€b"


async def test_half_a_character_at_the_end_is_told_too(bench: Any) -> None:
    reply = await bench.run(await bench.open(), "bytes 61e282")
    assert together(bench.told("shell.output")) == b"a\xe2\x82"
    assert reply.output_offset == 3


async def test_frames_are_small_and_whole(bench: Any) -> None:
    await bench.run(await bench.open(), "flood 1048576")
    sizes = [len(bytes(item.payload)) for item in bench.events if item.action == "shell.output"]
    assert max(sizes) <= 256 << 10
    assert together(bench.told("shell.output")) == b"x" * (1 << 20)


async def test_control_characters_do_not_blow_up_a_frame(bench: Any) -> None:
    await bench.run(await bench.open(), f"bytes {'01' * 100_000}")
    assert max(len(bytes(item.payload)) for item in bench.events if item.action == "shell.output") <= 256 << 10


async def test_a_slow_follower_slows_the_command_and_not_the_host(bench: Any) -> None:
    shell, other = await bench.open(), await bench.open()
    bench.unfollow(other)
    bench.listener.reads = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.run, shell, "flood 10485760")
        await bench.listener.asked.wait()
        assert (await bench.run(other, "say free")).stdout == "free\n"
        assert bench.runtime.shells[0].written <= 1 << 16
        bench.listener.reads.set()
    assert bench.runtime.shells[0].written == 10 << 20


async def test_a_follower_that_leaves_slows_nothing(bench: Any) -> None:
    shell = await bench.open()
    bench.unfollow(shell)
    bench.listener.reads = anyio.Event()
    with anyio.fail_after(DEADLINE_S):
        await bench.run(shell, "flood 1048576")


async def test_the_latest_output_can_be_read(bench: Any) -> None:
    shell = await bench.open()
    await bench.run(shell, "say one")
    await bench.run(shell, "err two")
    reply = await bench.do("read", shell)
    assert [(part.stream, part.data) for part in reply.output] == [("stdout", "one\n"), ("stderr", "two\n")]
    assert (reply.next_offset, reply.dropped_bytes) == (8, 0)
    (rest,) = (await bench.do("read", shell, offset=2, limit_bytes=1)).output
    assert (rest.offset, rest.data) == (2, "e")
    assert (await bench.do("read", shell, offset=8)).output == []
    assert (await bench.do("read", shell, offset=99)).next_offset == 8


async def test_what_is_held_is_bounded_and_the_rest_is_counted(open_bench: Any) -> None:
    async with open_bench(output_limit_bytes=1 << 17) as bench:
        shell = await bench.open()
        await bench.run(shell, "flood 1048576")
        reply = await bench.do("read", shell, limit_bytes=1 << 20)
        held = sum(part.bytes for part in reply.output)
        assert reply.next_offset == 1 << 20
        assert held + reply.dropped_bytes == 1 << 20
        assert (1 << 16) < held <= 1 << 17


async def test_many_short_outputs_are_bounded_as_well(open_bench: Any) -> None:
    async with open_bench(output_limit_bytes=6500) as bench:
        shell = await bench.open()
        await bench.run(shell, "\n".join(["say"] * 1000))
        assert len((await bench.do("read", shell)).output) == 100


async def test_text_whose_middle_was_dropped_is_still_text(bench: Any) -> None:
    reply = await bench.run(await bench.open(), f"bytes {'e282ac' * 10}", max_output_bytes=10)
    assert reply.truncated
    assert (reply.stdout, reply.stdout_encoding) == ("€€€\ufffd", "utf-8")
