"""The three streams of a container over one connection: against an engine of the tests' own, which is no Docker."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import anyio
import pytest
from anyio.abc import SocketStream
from hypothesis import given, settings
from hypothesis import strategies as st

from kandev_docker import wire
from kandev_docker.attach import CHANNEL_BYTES, Attached, attach, attach_again
from kandev_docker.engine import EngineGone
from kandev_host import errors

pytestmark = pytest.mark.anyio
DEADLINE_S = 30
Serve = Callable[[SocketStream, bytes], Awaitable[None]]
UPGRADED = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
OUT, ERR = 1, 2


def frame(stream: int, content: bytes) -> bytes:
    return bytes((stream, 0, 0, 0)) + len(content).to_bytes(4) + content


@asynccontextmanager
async def engine(serve: Serve) -> AsyncIterator[str]:
    """The path of a socket; `serve` gets each connection with the request's head."""

    async def handle(stream: SocketStream) -> None:
        async with stream:
            head = b""
            while b"\r\n\r\n" not in head:
                head += await stream.receive()
            await serve(stream, head)

    with tempfile.TemporaryDirectory(prefix="kd-") as folder:
        path = os.path.join(folder, "s")
        async with await anyio.create_unix_listener(path) as listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, handle)
            with anyio.fail_after(DEADLINE_S):
                yield path
            tasks.cancel_scope.cancel()


async def everything(get: Callable[[int], Awaitable[bytes]]) -> bytes:
    found = b""
    while chunk := await get(65536):
        found += chunk
    return found


@asynccontextmanager
async def pumped(attached: Attached) -> AsyncIterator[Attached]:
    async def pump() -> None:
        await attached.pump()
        attached.end_output()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pump)
        yield attached
        tasks.cancel_scope.cancel()
    attached.close()


async def both(chunks: list[bytes], **fields: Any) -> tuple[bytes, bytes, Attached]:
    """What arrives on stdout and stderr of these writes of the engine."""

    async def serve(stream: SocketStream, head: bytes) -> None:
        await stream.send(UPGRADED)
        for chunk in chunks:
            await stream.send(chunk)

    found = {}
    async with engine(serve) as path:
        answer = await wire.ask(path, "POST", "/x", {}, upgrade=True, timeout_s=10)
        async with pumped(Attached(answer.stream, **fields)) as attached, anyio.create_task_group() as tasks:

            async def read(name: str) -> None:
                found[name] = await everything(getattr(attached, name).get)

            tasks.start_soon(read, "stdout")
            tasks.start_soon(read, "stderr")
    return found["stdout"], found["stderr"], attached


def cut(whole: bytes, at: list[int]) -> list[bytes]:
    points = sorted({0, len(whole), *(point % (len(whole) + 1) for point in at)})
    return [whole[start:end] for start, end in pairwise(points)]


FRAMES = st.lists(st.tuples(st.sampled_from([OUT, ERR]), st.binary(max_size=40)), max_size=8)


@settings(deadline=None)
@given(frames=FRAMES, at=st.lists(st.integers(0, 500), max_size=12))
def test_frames_may_be_cut_anywhere(frames: list[tuple[int, bytes]], at: list[int]) -> None:
    whole = b"".join(frame(*one) for one in frames)
    stdout, stderr, _ = anyio.run(both, cut(whole, at))
    assert stdout == b"".join(content for stream, content in frames if stream == OUT)
    assert stderr == b"".join(content for stream, content in frames if stream == ERR)


@settings(deadline=None)
@given(at=st.lists(st.integers(0, 80), max_size=6), inside=st.lists(st.integers(0, 20), max_size=3))
def test_the_marker_is_shown_to_nobody_however_it_is_cut(at: list[int], inside: list[int]) -> None:
    whole = b"".join(frame(OUT, part) for part in cut(b"marker\nfirst\nsecond\n", inside))

    async def ask() -> tuple[bytes, bytes, Attached]:
        return await both(cut(whole, at), marker=b"marker\n", skip=len(b"first\n"))

    stdout, _, attached = anyio.run(ask)
    assert (stdout, attached.whole) == (b"second\n", True)


async def test_output_without_the_marker_is_not_whole() -> None:
    _, _, attached = await both([frame(OUT, b"something else\n")], marker=b"marker\n")
    assert not attached.whole


async def test_a_frame_that_is_cut_off_ends_the_streams() -> None:
    stdout, stderr, attached = await both([frame(OUT, b"0123456789")[:12]])
    assert (stdout, stderr, attached.ended.is_set()) == (b"0123", b"", True)


async def test_a_stream_of_a_terminal_is_as_it_is() -> None:
    stdout, _, _ = await both([b"\x01\x00\x00", b"raw"], terminal=True)
    assert stdout == b"\x01\x00\x00raw"


async def test_who_is_not_read_is_not_read_from() -> None:
    """The engine's writes stop, and go on once somebody reads."""
    sent = 0
    done = anyio.Event()

    async def serve(stream: SocketStream, head: bytes) -> None:
        nonlocal sent
        await stream.send(UPGRADED)
        for _ in range(200):
            await stream.send(frame(OUT, b"x" * 65536))
            sent += 1
        done.set()

    async with engine(serve) as path, pumped(await attach(path, "x", "")) as attached:
        with anyio.move_on_after(1):
            await done.wait()
        assert sent * 65536 < CHANNEL_BYTES + (4 << 20)
        total = 0
        while chunk := await attached.stdout.get(1 << 20):
            total += len(chunk)
        assert total == 200 * 65536


async def test_the_end_of_stdin_is_a_half_close() -> None:
    heard = b""

    async def serve(stream: SocketStream, head: bytes) -> None:
        nonlocal heard
        await stream.send(UPGRADED)
        with_end = False
        while not with_end:
            try:
                heard += await stream.receive()
            except anyio.EndOfStream:
                with_end = True
        await stream.send(frame(OUT, b"heard"))

    async with engine(serve) as path, pumped(await attach(path, "x", "")) as attached:
        await attached.send(b"some")
        attached.end_stdin()
        assert await everything(attached.stdout.get) == b"heard"
        with pytest.raises(BrokenPipeError):
            await attached.send(b"more")
    assert heard == b"some"


async def test_a_log_is_read_from_a_position_and_stdin_goes_another_way() -> None:
    asked = []
    typed = anyio.Event()

    async def serve(stream: SocketStream, head: bytes) -> None:
        asked.append(head.split(b" ")[1])
        if b"/logs" in head:
            await stream.send(b"HTTP/1.0 200 OK\r\nContent-Type: raw\r\n\r\n" + frame(OUT, b"m\nfirst\nsecond\n"))
            await typed.wait()
            return
        await stream.send(UPGRADED)
        assert await stream.receive() == b"typed"
        typed.set()

    async with engine(serve) as path, pumped(await attach_again(path, "x", "m", 6)) as attached:
        assert await attached.stdout.get(100) == b"second\n"
        await attached.send(b"typed")
        assert await attached.stdout.get(100) == b""
        assert await attached.stderr.get(100) == b""
    assert [target.split(b"?")[0] for target in asked] == [b"/containers/x/logs", b"/containers/x/attach"]


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 101", b"nonsense\r\n\r\n", b"HTTP/1.1 many\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20000],
)
async def test_an_engine_that_answers_nonsense_is_gone(answer: bytes) -> None:
    async def serve(stream: SocketStream, head: bytes) -> None:
        await stream.send(answer)

    async with engine(serve) as path:
        with pytest.raises(EngineGone):
            await attach(path, "x", "")


async def test_what_the_engine_refuses_it_says_in_its_words() -> None:
    async def serve(stream: SocketStream, head: bytes) -> None:
        body = b'{"message": "No such container: x"}'
        await stream.send(
            b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        )

    async with engine(serve) as path:
        with pytest.raises(errors.Unavailable, match="No such container: x"):
            await attach(path, "x", "")


async def test_who_sends_to_a_container_that_ended_is_not_kept_waiting() -> None:
    async def serve(stream: SocketStream, head: bytes) -> None:
        await stream.send(UPGRADED)
        await anyio.sleep_forever()

    async with (
        engine(serve) as path,
        pumped(await attach(path, "x", "")) as attached,
        anyio.create_task_group() as tasks,
    ):
        refused = anyio.Event()

        async def send() -> None:
            with pytest.raises(BrokenPipeError):
                await attached.send(b"x" * (64 << 20))
            refused.set()

        tasks.start_soon(send)
        await anyio.wait_all_tasks_blocked()
        attached.break_stdin()
        await refused.wait()
