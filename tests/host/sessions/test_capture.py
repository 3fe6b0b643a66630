"""What goes over an agent's pipes is kept: all of it, without secrets, within bounds, and at nobody's cost."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kandev_host.secrets import MARK, Redactor
from kandev_host.sessions import capture
from kandev_host.sessions.capture import Captures
from kandev_host.sessions.capture_files import Tape, parts, read
from kandev_host.sessions.capture_lines import LINE_BYTES, Framer

pytestmark = pytest.mark.anyio
AT = "2026-11-21T12:00:00.000Z"
AGENT, TASK = "agent-1", "task-1"


@asynccontextmanager
async def opened(
    folder: Path, *, agent: int = 16 << 20, total: int = 1 << 30, on: bool = True
) -> AsyncIterator[Captures]:
    captures = Captures(folder, enabled=on, agent_limit_bytes=agent, limit_bytes=total)
    yield captures
    await captures.aclose()


async def everything(captures: Captures, agent_id: str = AGENT, limit_bytes: int = 65536) -> list[dict[str, Any]]:
    offset, lines = 0, []
    while (page := await captures.read(agent_id, TASK, offset, limit_bytes)) is not None and page.lines:
        lines += [json.loads(line) for line in page.lines]
        offset = page.next_offset
    return lines


def files_in(folder: Path) -> list[Path]:
    return list(folder.rglob("*.jsonl"))


def date(folder: Path, agent_id: str, at_s: int) -> None:
    """Let an agent's files be so old."""
    for path in folder.rglob(f"{agent_id}.*"):
        os.utime(path, (at_s, at_s))


def framed(*pieces: bytes, direction: Any = "out") -> list[dict[str, Any]]:
    framer = Framer(direction, Redactor())
    written = b"".join(framer.feed(piece, AT) for piece in pieces) + framer.finish(AT)
    return [json.loads(line) for line in written.split(b"\n")[:-1]]


# --- lines ------------------------------------------------------------------------------------------------------------


def test_json_stands_as_it_came_and_all_else_is_a_string() -> None:
    framer = Framer("out", Redactor())
    written = framer.feed(b'{"a":  1.50,"a":2}\n42\nnot json\n\n"half', AT) + framer.finish(AT)
    assert b'"line":{"a":  1.50,"a":2}}\n' in written
    assert [json.loads(line)["line"] for line in written.splitlines()] == [{"a": 2}, 42, "not json", "", '"half']


def test_what_is_not_utf8_is_replaced_and_said_so() -> None:
    (line,) = framed(b'{"a": "\xff"}\n')
    assert (line["line"], line["not_utf8"]) == ('{"a": "\ufffd"}', True)


@pytest.mark.parametrize(
    "line", [b"1 2", b"[1,", b'}{"dir":"in"', b'1}\n{"at":1,"dir":"in","line":2', b"[" * 100_000, b"\x00", b"nan"]
)
def test_no_line_of_an_agent_passes_for_one_of_ours(line: bytes) -> None:
    lines = framed(line + b"\n\n")
    assert all(found["dir"] == "out" and found["at"] == AT for found in lines)
    assert len(lines) == line.count(b"\n") + 2


@settings(max_examples=300, deadline=None)
@example([b"0\r"], "in")
@given(st.lists(st.binary(max_size=30), max_size=12), st.sampled_from(["in", "out", "err"]))
def test_there_is_a_record_for_each_line_however_the_bytes_are_split(pieces: list[bytes], direction: Any) -> None:
    whole = b"".join(pieces)
    lines = framed(*pieces, direction=direction)
    assert lines == framed(whole, direction=direction)
    assert len(lines) == len(whole.split(b"\n")) - (whole.endswith(b"\n") or not whole)


def test_a_line_that_is_too_long_is_cut_and_says_by_how_much() -> None:
    (line, after) = framed(b'"' + b"x" * (3 * LINE_BYTES), b'"\n', b"next\n")
    assert len(line["line"]) + line["cut_bytes"] == 3 * LINE_BYTES + 2
    assert after["line"] == "next"


def test_after_a_gap_it_goes_on_with_a_whole_line() -> None:
    framer = Framer("out", Redactor())
    framer.feed(b"one\nhal", AT)
    framer.gap(1000)
    written = framer.feed(b"f a line\ntwo\n", AT)
    confession, line = [json.loads(found) for found in written.splitlines()]
    assert confession == {"at": AT, "dir": "out", "dropped_bytes": 3 + 1000 + 9}
    assert line["line"] == "two"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 120), max_size=4))
def test_what_a_person_filled_in_is_not_kept_however_it_is_split(places: list[int]) -> None:
    answer = b'{"jsonrpc":"2.0","id":7,"result":{"action":"accept","content":{"pin":"canary-1","age":31337}}}\n'
    cuts = [0, *sorted(min(place, len(answer)) for place in places), len(answer)]
    pieces = [answer[start:end] for start, end in itertools.pairwise(cuts)]
    (line,) = framed(*pieces, direction="in")
    assert line["line"]["result"] == {"action": "accept", "content": {"pin": MARK, "age": MARK}}


# --- files ------------------------------------------------------------------------------------------------------------


async def test_files_and_folders_are_the_owners_alone(tmp_path: Path) -> None:
    async with opened(tmp_path / "captures") as captures:
        tape = captures.of(AGENT, TASK)
        assert tape is not None
        tape.note("out", b"1\n")
        tape.close()
        await everything(captures)
    modes = [path.stat().st_mode & 0o777 for path in (tmp_path / "captures").rglob("*")]
    assert modes == [0o700, 0o600]


@pytest.mark.parametrize("limit_bytes", [1, 100, 65536])
async def test_pages_are_whole_lines_and_none_is_missing(tmp_path: Path, limit_bytes: int) -> None:
    async with opened(tmp_path) as captures:
        tape = captures.of(AGENT, TASK)
        assert tape is not None
        for number in range(50):
            tape.note("out", b"%d\n" % number)
        assert [line["line"] for line in await everything(captures, limit_bytes=limit_bytes)] == list(range(50))


async def test_a_capture_is_bounded_and_rotated(tmp_path: Path) -> None:
    async with opened(tmp_path, agent=20_000) as captures:
        tape = captures.of(AGENT, TASK)
        assert tape is not None
        first = None
        for number in range(2000):
            tape.note("out", b"%d\n" % number)
            if number == 0:
                first = await captures.read(AGENT, TASK, 0, 65536)
        assert first is not None
        page = await captures.read(AGENT, TASK, first.next_offset, 65536)
        lines = await everything(captures)
        files = files_in(tmp_path)
    assert sum(path.stat().st_size for path in files) <= 20_000
    assert len(files) == 2
    assert lines[-1]["line"] == 1999
    assert page is not None
    assert page.dropped_bytes > 0
    assert json.loads(page.lines[0]) == lines[0]


async def test_the_oldest_captures_make_room_for_new_ones(tmp_path: Path) -> None:
    async with opened(tmp_path, agent=10_000, total=30_000) as captures:
        for number in range(6):
            tape = captures.of(f"agent-{number}", TASK)
            assert tape is not None
            for _ in range(10):
                tape.note("out", b'"%s"\n' % (b"x" * 990))
            tape.close()
            await captures.read(f"agent-{number}", TASK, 0, 1)
            date(tmp_path, f"agent-{number}", number)
        kept = {path.name.split(".")[0] for path in files_in(tmp_path)}
        size = sum(path.stat().st_size for path in files_in(tmp_path))
    assert size <= 40_000
    assert "agent-5" in kept
    assert "agent-0" not in kept


async def test_what_the_thread_cannot_keep_up_with_is_dropped_and_confessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "WAITING_BYTES", 100_000)
    async with opened(tmp_path) as captures:
        tape = captures.of(AGENT, TASK)
        assert tape is not None
        for _ in range(100):
            tape.note("out", b'"%s"\n' % (b"x" * 50_000))
        tape.close()
        lines = await everything(captures)
    dropped = sum(line.get("dropped_bytes", 0) for line in lines)
    kept = sum(len(line["line"]) + 3 for line in lines if "line" in line)
    assert dropped > 0
    assert dropped + kept == 100 * 50_003


async def test_a_flood_is_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "FLOOD_BYTES", 10_000)
    monkeypatch.setattr(capture, "FLOOD_BYTES_PER_S", 10_000)
    async with opened(tmp_path) as captures:
        tape = captures.of(AGENT, TASK)
        assert tape is not None
        for _ in range(100):
            tape.note("out", b'"%s"\n' % (b"x" * 997))
        tape.close()
        lines = await everything(captures)
    assert 9 <= sum("line" in line for line in lines) < 100
    assert any("dropped_bytes" in line for line in lines)


async def test_a_full_disk_costs_the_capture_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, full = os.write, [False]

    def write(descriptor: int, data: bytes) -> int:
        if full[0]:
            real(descriptor, data[: len(data) // 2])
            raise OSError(28, "No space left on device")
        return real(descriptor, data)

    monkeypatch.setattr("kandev_host.sessions.capture_files.os.write", write)
    async with opened(tmp_path) as captures:
        tape = captures.of(AGENT, TASK)
        assert tape is not None
        for number in range(3):
            full[0] = number == 1
            tape.note("out", b"%d\n" % number)
            lines = await everything(captures)
    assert [line.get("line") for line in lines] == [0, None, 2]
    assert lines[1]["dropped_bytes"] > 0


async def test_captures_go_with_their_task(tmp_path: Path) -> None:
    async with opened(tmp_path) as captures:
        tape = captures.of(AGENT, TASK)
        assert tape is not None
        tape.note("out", b"1\n")
        tape.close()
        await captures.discard(TASK)
        assert await captures.read(AGENT, TASK, 0, 100) is None
        assert await captures.tasks() == []


async def test_where_it_is_off_nothing_is_written(tmp_path: Path) -> None:
    async with opened(tmp_path / "captures", on=False) as captures:
        assert captures.of(AGENT, TASK) is None
    assert not (tmp_path / "captures").exists()


# --- agents -----------------------------------------------------------------------------------------------------------


async def test_a_canary_is_in_no_capture(open_world: Any, tmp_path: Path) -> None:
    canary = "canary-4f6b2a91"
    steps = [{"text": canary[:7]}, {"text": f"it is {canary}"}, {"stderr": f"key {canary}"}]
    async with opened(tmp_path / "captures") as captures:
        world = await open_world(captures=captures)
        agent_id = await world.start(prompt=steps, env={"SCRIPT_KEY": canary}, env_required=("SCRIPT_KEY",))
        await world.until("acp.result")
        await world.supervisor.stop(agent_id)
        page = await captures.read(agent_id, world.task.id, 0, 262144)
    assert page is not None
    lines = [json.loads(line) for line in page.lines]
    assert {line["dir"] for line in lines} == {"in", "out", "err"}
    assert {line["line"].get("method") for line in lines if line["dir"] == "in"} >= {"initialize", "session/prompt"}
    assert not any(canary in path.read_text() for path in files_in(tmp_path))


def test_the_capture_of_an_agent_that_outlived_its_host_goes_on_behind_what_that_had_kept(tmp_path: Path) -> None:
    for line in (b"one\n", b"two\n"):
        tape = Tape(tmp_path, "a1", 1000)  # never closed: its host died
        tape.write(line)
    first = read(parts(tmp_path, "a1"), 0, 1000)
    second = read(parts(tmp_path, "a1"), first.next_offset, 1000)
    assert (first.lines, second.lines, second.dropped_bytes) == (["one"], ["two"], 0)
