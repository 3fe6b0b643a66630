"""Framing and decoding of JSON-RPC lines."""

from __future__ import annotations

import contextlib
import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from kandev_host.protocol import jsonrpc

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=10,
)


def split(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(edges)]


@given(
    st.lists(st.binary().map(lambda line: line.replace(b"\n", b"")), max_size=8), st.lists(st.integers(0), max_size=8)
)
def test_any_chunking_gives_the_same_lines(lines: list[bytes], cuts: list[int]) -> None:
    framer = jsonrpc.Lines(1 << 20)
    found = [line for chunk in split(b"".join(line + b"\n" for line in lines), cuts) for line in framer.feed(chunk)]
    assert found == [line for line in lines if line.strip()]


@given(st.lists(st.integers(1, 40), max_size=12), st.lists(st.integers(0), max_size=8))
def test_exactly_the_lines_over_the_limit_are_dropped(sizes: list[int], cuts: list[int]) -> None:
    framer = jsonrpc.Lines(20)
    found = [line for chunk in split(b"".join(b"x" * n + b"\n" for n in sizes), cuts) for line in framer.feed(chunk)]
    assert [len(line) for line in found] == [n for n in sizes if n <= 20]
    assert len(framer.take_dropped()) == sum(n > 20 for n in sizes)


def test_an_endless_line_is_not_held() -> None:
    framer = jsonrpc.Lines(1000)
    for _ in range(1000):
        assert framer.feed(b"x" * 1000) == []
    assert sum(map(len, framer._parts)) <= 2000
    assert framer.feed(b'\n{"a":1}\n') == [b'{"a":1}']


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_no_line_raises_anything_but_bad_line(line: bytes) -> None:
    with contextlib.suppress(jsonrpc.BadLine):
        jsonrpc.decode(line)


@given(json_values)
def test_params_come_back_as_they_were(params: Any) -> None:
    line = jsonrpc.notification("session/update", params)
    assert json.loads(bytes(jsonrpc.decode(line).params)) == params


@pytest.mark.parametrize(
    "line",
    [
        b"42",
        b"[]",
        b"null",
        b"{}",
        b"garbage",
        b'{"jsonrpc":"2.0"}',
        b'{"jsonrpc":"2.0","id":1}',
        b'{"method":"x"}',
        b'{"jsonrpc":"2.0","method":"x","params":"\xff"}',
        b'{"jsonrpc":"2.0","method":"x","id":1.5}',
        b'{"jsonrpc":"2.0","method":"x","params":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"jsonrpc":"2.0","method":"x","params":' + b"[" * 512 + b"]" * 512 + b"}",
    ],
)
def test_what_is_no_message_is_a_bad_line(line: bytes) -> None:
    with pytest.raises(jsonrpc.BadLine):
        jsonrpc.decode(line)


def test_many_brackets_are_not_deep() -> None:
    line = b'{"jsonrpc":"2.0","method":"x","params":["[[[", ' + b"[]," * 2000 + b'"]]]"]}'
    assert jsonrpc.decode(line).method == "x"


@pytest.mark.parametrize("id", [0, 7, "a", None])
def test_any_id_is_an_id(id: jsonrpc.Id) -> None:
    message = jsonrpc.decode(json.dumps({"jsonrpc": "2.0", "id": id, "method": "x"}).encode())
    assert message.id is not UNSET
    assert message.id == id


def test_half_a_character_becomes_the_replacement_character() -> None:
    line = rb'{"jsonrpc":"2.0","method":"x","params":["\ud83d","\ud83d\ude00","\\ud83d"]}'
    assert json.loads(bytes(jsonrpc.decode(line).params)) == ["�", "😀", "\\ud83d"]


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (b'{"jsonrpc":"2.0","id":3,"result":{"a":"xxx', (3, True)),
        (b'{ "id" : "x", "method": "fs/', ("x", False)),
        (b'{"jsonrpc":"2.0","method":"session/update","par', None),
    ],
)
def test_the_head_of_a_dropped_line_tells_whom_it_concerned(head: bytes, found: Any) -> None:
    assert jsonrpc.head_id(head) == found
