"""A stream in pieces: no secret is in what is shown, however it was cut, and everything else is there."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from kandev_host.secrets import MARK, Redactor
from kandev_host.secrets.stream import Stream

words = st.text("abcXYZ019+/=-é&% ", min_size=6, max_size=24).filter(lambda text: len(text.strip().encode()) >= 6)
plain = st.binary(max_size=200)


def shown(stream: Stream, data: bytes, cuts: list[int], pauses: frozenset[int] = frozenset()) -> bytes:
    """What is shown of data in these pieces, with a pause behind those of these numbers."""
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    out = b""
    for number, (start, end) in enumerate(pairwise(edges)):
        out += stream.feed(data[start:end])
        if number in pauses:
            out += stream.pause()
    return out + stream.finish()


# Most words are spelled with a letter of the mark at an end, and are left out.
@settings(max_examples=400, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(
    secrets=st.lists(words, min_size=1, max_size=3),
    around=st.lists(plain, min_size=4, max_size=4),
    spelling=st.integers(0, 30),
    cuts=st.lists(st.integers(0, 700), max_size=8),
)
def test_no_secret_is_shown_however_it_is_spelled_and_split(
    secrets: list[str], around: list[bytes], spelling: int, cuts: list[int]
) -> None:
    redactor = Redactor(secrets)
    assume(redactor.needles)
    spelled = [redactor.needles[(spelling + place) % len(redactor.needles)] for place in range(3)]
    assume(not any(needle[:1] in MARK.encode() or needle[-1:] in MARK.encode() for needle in redactor.needles))
    data = b"".join(part for pair in zip(around, [*spelled, b""], strict=True) for part in pair)
    out = shown(Stream(redactor), data, cuts)
    assert not any(needle in out for needle in redactor.needles)


@settings(max_examples=400, deadline=None)
@given(
    data=plain, secret=words, cuts=st.lists(st.integers(0, 300), max_size=8), pauses=st.frozensets(st.integers(0, 8))
)
def test_what_holds_no_secret_comes_out_byte_for_byte(
    data: bytes, secret: str, cuts: list[int], pauses: frozenset[int]
) -> None:
    redactor = Redactor([secret])
    assume(not redactor.found(data))
    assert shown(Stream(redactor), data, cuts, pauses) == data


@settings(max_examples=200, deadline=None)
@given(cut=st.integers(1, 23), before=st.sampled_from([b"", b"key=", b"c4nary"]))
def test_of_a_secret_whose_beginning_was_shown_at_a_pause_the_rest_is_not(cut: int, before: bytes) -> None:
    secret = b"c4nary-0123456789-abcdef"
    stream = Stream(Redactor([secret.decode()]))
    out = stream.feed(before + secret[:cut]) + stream.pause()
    out += stream.feed(secret[cut:] + b" end") + stream.finish()
    assert out == before + secret[:cut] + MARK.encode() + b" end"


def test_no_more_is_held_back_than_the_longest_secret_less_a_byte() -> None:
    redactor = Redactor(["c4nary-0123456789-abcdef"])
    stream = Stream(redactor)
    for needle in redactor.needles:
        for size in range(len(needle)):
            fed = b"." * 40 + needle[:size]
            held = len(fed) - len(stream.feed(fed))
            assert held <= redactor.longest - 1
            stream.finish()


@pytest.mark.parametrize(
    "key",
    [
        "sk-ant-api03-abcdefghijklmnop",
        "ghp_0123456789abcdefABCDEF0123456789abcd",
        "kd_Acxkr-pMoRgqKzKix-o2h6o-PnTX2o0ybdY-_0bQ_hA",
    ],
)
@pytest.mark.parametrize("size", [1, 3, 7])
def test_what_looks_like_a_key_is_taken_out_of_pieces(key: str, size: int) -> None:
    stream, data = Stream(Redactor()), f"key: {key}\n".encode()
    out = b"".join(stream.feed(data[at : at + size]) for at in range(0, len(data), size)) + stream.finish()
    assert out == b"key: [redacted]\n"


def test_what_begins_like_a_key_is_shown_at_a_pause() -> None:
    stream = Stream(Redactor())
    assert stream.feed(b"proceed? y/n: s") == b"proceed? y/n: "
    assert stream.pause() == b"s"
    assert stream.feed(b"ure\n") == b"ure\n"
