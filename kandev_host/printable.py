"""Text from agents, made safe for a terminal: what could move the cursor, hide or reorder text is shown, not obeyed."""

from __future__ import annotations

import unicodedata

# Other (control, format, surrogate, private, unassigned) and the two line separators; tags and bidi marks are formats.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# Joins emoji and shapes several scripts; it cannot reorder text.
_KEPT = frozenset("\u200d")


def printable(text: str, *, lines: bool = False) -> str:
    r"""Escape every character that a terminal may obey, as in `\x1b`; with `lines`, newline and tab stay."""
    if text.isascii() and text.isprintable():
        return text
    kept = _KEPT | {"\n", "\t"} if lines else _KEPT
    return "".join(
        char if char in kept or unicodedata.category(char) not in _UNSAFE else _escaped(char) for char in text
    )


def _escaped(char: str) -> str:
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
