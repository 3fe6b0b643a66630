"""Reading what a shell tells of its state: as data, whatever a command has forged."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kandev_sandbox.shell.capture import Capture
from kandev_sandbox.shell.state import State, quoted, told

TOLD = b"0022\n%s\0/workspace\n\0/usr\0"


def exports(text: bytes) -> dict[bytes, bytes] | None:
    state = told(TOLD % text)
    return None if state is None else dict(state.env)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"export A='b'\n", b"b"),
        (b"export A=plain/x-1\n", b"plain/x-1"),
        (b"export A='it'\"'\"'s'\n", b"it's"),
        (b"export A='it'\\''s'\n", None),  # no shell writes it so; a backslash outside of quotes is not read
        (b'declare -x A="a\\"b\\$c\\\\d"\n', b'a"b$c\\d'),
        (b"declare -x A=$'a\\nb\\E\\001\\x41\\u00e9\\'\\\\'\n", b"a\nb\x1b\x01A\xc3\xa9'\\"),
        (b"export A=''\n", b""),
        (b"export A=\n", b""),
    ],
)
def test_each_way_of_quoting_is_read(text: bytes, value: bytes | None) -> None:
    assert exports(text) == (None if value is None else {b"A": value})


def test_what_has_no_value_and_what_is_an_array_is_left_out() -> None:
    assert exports(b"export B\ndeclare -ax C=([0]=\"x\")\nexport A='b'\n") == {b"A": b"b"}


@pytest.mark.parametrize(
    "text",
    [b"", b"0022\n", b"\0\0\0\0", TOLD % b"rm -rf /\n", TOLD % b"export A='b'; rm x\n", TOLD % b"export A='b",
     TOLD % b"export A=$(id)\n", TOLD % b"export A=`id`\n", b"99\n\0/w\n\0\0", b"0022\n\0relative\n\0\0",
     (TOLD % b"")[:-1], TOLD % b"" + b"x", TOLD % b"export 1A='b'\n"],
)  # fmt: skip
def test_anything_else_is_no_state(text: bytes) -> None:
    assert told(text) is None


@given(st.binary(max_size=300))
def test_no_text_makes_it_fail(text: bytes) -> None:
    told(text)
    told(TOLD % text)


@given(st.text(alphabet="export A='\"\\$\n\0()`x0", max_size=60))
def test_no_text_like_the_right_one_makes_it_fail(text: str) -> None:
    assert isinstance(told(TOLD % text.encode()), State | None)


@pytest.mark.parametrize("shell", ["sh", "bash"])
@settings(deadline=None)  # each example is a process
@given(value=st.binary(max_size=40).filter(lambda value: b"\0" not in value))
def test_a_quoted_word_is_that_word_to_a_shell(shell: str, value: bytes) -> None:
    done = subprocess.run([shell, "-c", b"printf %s " + quoted(value)], check=True, capture_output=True, env={})
    assert done.stdout == value


@given(st.lists(st.binary(max_size=50), max_size=30), st.integers(0, 60))
def test_a_capture_keeps_the_head_and_the_tail(chunks: list[bytes], limit: int) -> None:
    capture = Capture(limit)
    for chunk in chunks:
        capture.add(chunk)
    whole = b"".join(chunks)
    head = limit - limit // 2
    expected = whole if len(whole) <= limit else whole[:head] + whole[len(whole) - limit // 2 :]
    assert (capture.value(), capture.total) == (expected, len(whole))
