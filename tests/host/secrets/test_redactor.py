"""Values in bytes: all of them are taken out, wherever they stand and however they overlap, and nothing else is."""

from __future__ import annotations

from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kandev_host.secrets import MARK, Redactor, redactor

# Few letters, so that values overlap, and are parts of each other.
values = st.lists(st.text("ab", min_size=6, max_size=12), min_size=1, max_size=30, unique=True)


def expected(text: bytes, needles: tuple[bytes, ...]) -> bytes:
    """Each byte on its own: is it in a value? Values that touch without overlapping are two."""
    places = [(at, at + len(each)) for each in needles for at in range(len(text)) if text.startswith(each, at)]
    merged: list[tuple[int, int]] = []
    for start, end in sorted(places):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    out, at = b"", 0
    for start, end in merged:
        out += text[at:start] + MARK.encode()
        at = end
    return out + text[at:]


@settings(max_examples=400, deadline=None)
@given(
    values=values,
    text=st.text("ab.", max_size=120),
    window=st.integers(1, 40),
    few=st.sampled_from([0, 1000]),
    short=st.sampled_from([0, 1000]),
)
def test_what_is_in_a_value_is_taken_out_and_the_rest_stays(
    values: list[str], text: str, window: int, few: int, short: int
) -> None:
    """However long the parts are that it is looked through in, and whichever search is used."""
    with patch.multiple(redactor, _WINDOW_BYTES=window, _FEW=few, _SHORT_BYTES=short):
        made = Redactor(values)
        raw = text.encode()
        clean = made.clean_values(raw)
        assert clean == expected(raw, made.needles)
        assert made.found(raw) == (clean != raw)
        assert made.of_values.clean(raw) == clean


@pytest.mark.parametrize("count", [1, 30])
def test_a_value_across_two_parts_of_a_long_text_is_taken_out(count: int) -> None:
    made = Redactor([f"c4nary-{number:010d}" for number in range(count)])
    for before in (redactor._WINDOW_BYTES - 5, redactor._WINDOW_BYTES, 2 * redactor._WINDOW_BYTES - 1):
        text = b"." * before + b"c4nary-0000000000" + b"." * 100_000
        assert made.clean(text) == b"." * before + MARK.encode() + b"." * 100_000


@pytest.mark.parametrize("values", [(), ("c4nary-0000000000",)])
def test_a_key_across_two_parts_of_a_long_text_is_taken_out(values: tuple[str, ...]) -> None:
    made, key = Redactor(values), b"github_pat_0123456789abcdefghij"
    for before in range(redactor._WINDOW_BYTES - len(key), redactor._WINDOW_BYTES + 1):
        text = b"." * before + key + b"." * 100
        assert made.found(text)
        assert made.clean(text) == b"." * before + MARK.encode() + b"." * 100


@pytest.mark.timeout(30)
def test_p18_a_text_full_of_values_is_looked_through_in_time() -> None:
    made = Redactor([f"{number:06d}" for number in range(60)] + ["aaaaaa"])
    assert made.clean(b"a" * (4 << 20)) == MARK.encode()
    assert made.clean(b"000001." * 600_000) == (MARK.encode() + b".") * 600_000
