from __future__ import annotations

import pytest

from kandev_host.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ä 漢字 👍🏽", "plain ä 漢字 👍🏽"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x9b31m", "\\x9b31m"),
        ("a\u202eb", "a\\u202eb"),
        ("a\u2066b", "a\\u2066b"),
        ("a\U000e0041b", "a\\U000e0041b"),
        ("a\rb\bc\x00\x7f", "a\\x0db\\x08c\\x00\\x7f"),
        ("\ud800", "\\ud800"),
        ("a\nb\tc", "a\\x0ab\\x09c"),
        ("a\u2028b", "a\\u2028b"),
    ],
)
def test_what_a_terminal_would_obey_is_shown(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_lines_may_stay_lines() -> None:
    assert printable("a\nb\tc\r", lines=True) == "a\nb\tc\\x0d"
