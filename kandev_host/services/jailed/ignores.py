"""What a .gitignore leaves out (gitignore: pattern format), without git: no file of the workspace steers a program.

Whatever is no valid pattern ignores nothing, so that a snapshot rather holds too much.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

FILE_BYTES = 512 << 10
PATTERNS = 5000
DEEP_STARS = 3
_SPECIAL = re.compile(rb"[*?\[\\]")
_CLASSES = {
    b"alnum": rb"0-9A-Za-z", b"alpha": rb"A-Za-z", b"blank": rb" \t", b"cntrl": rb"\x00-\x1f\x7f", b"digit": rb"0-9",
    b"graph": rb"\x21-\x7e", b"lower": rb"a-z", b"print": rb"\x20-\x7e", b"punct": rb"!-/:-@\[-`{-~",
    b"space": rb" \t-\r", b"upper": rb"A-Z", b"xdigit": rb"0-9A-Fa-f",
}  # fmt: skip


@dataclass(slots=True)
class _Kind:
    """Patterns that mean the same things: of any kind, or of folders alone. `names` match the last part of a path."""

    literal: set[bytes] = field(default_factory=set)
    names: list[bytes] = field(default_factory=list)
    paths: list[bytes] = field(default_factory=list)
    _compiled: tuple[re.Pattern[bytes] | None, re.Pattern[bytes] | None] | None = None

    def matches(self, name: bytes, path: bytes) -> bool:
        if self._compiled is None:
            self._compiled = _any_of(self.names), _any_of(self.paths)
        if name in self.literal:
            return True
        of_name, of_path = self._compiled
        if of_name is not None and of_name.match(name):
            return True
        return of_path is not None and of_path.match(path) is not None


@dataclass(slots=True)
class _Group:
    """Neighbouring patterns that all ignore, or all do not."""

    ignores: bool
    all: _Kind = field(default_factory=_Kind)
    folders: _Kind = field(default_factory=_Kind)

    def matches(self, name: bytes, path: bytes, is_folder: bool) -> bool:
        return self.all.matches(name, path) or (is_folder and self.folders.matches(name, path))


class Rules:
    """One .gitignore."""

    def __init__(self, content: bytes) -> None:
        self._groups: list[_Group] = []
        for line in _lines(content):
            self._add(line)
        self._groups.reverse()

    def ignored(self, name: bytes, path: bytes, is_folder: bool) -> bool | None:
        """By the last pattern that matches; `path` is relative to the folder of the file. None: no word on it."""
        for group in self._groups:
            if group.matches(name, path, is_folder):
                return group.ignores
        return None

    def _add(self, pattern: bytes) -> None:
        ignores = not pattern.startswith(b"!")
        pattern = pattern if ignores else pattern[1:]
        only_folders = pattern.endswith(b"/")
        pattern = pattern[:-1] if only_folders else pattern
        if not pattern:
            return
        anchored = b"/" in pattern
        pattern = pattern[1:] if pattern.startswith(b"/") else pattern
        expression = _translated(pattern)
        if expression is None:
            return
        if not self._groups or self._groups[-1].ignores != ignores:
            self._groups.append(_Group(ignores))
        kind = self._groups[-1].folders if only_folders else self._groups[-1].all
        if anchored:
            kind.paths.append(expression)
        elif _SPECIAL.search(pattern):
            kind.names.append(expression)
        else:
            kind.literal.add(pattern)


def _lines(content: bytes) -> Iterator[bytes]:
    """The patterns, without spaces at their end that are not quoted by a backslash."""
    for line in content[:FILE_BYTES].removeprefix(b"\xef\xbb\xbf").split(b"\n")[:PATTERNS]:
        whole = line.removesuffix(b"\r")
        bare = whole.rstrip(b" ")
        quoted = (len(bare) - len(bare.rstrip(b"\\"))) % 2 == 1
        pattern = bare + b" " if quoted and len(bare) < len(whole) else bare
        if pattern and not whole.startswith(b"#"):
            yield pattern


def _any_of(expressions: list[bytes]) -> re.Pattern[bytes] | None:
    return re.compile(b"|".join(expressions), re.DOTALL) if expressions else None


class _Translation:
    """A regular expression that never tries again what it has passed: each `*` but the last takes the least it can."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._open: list[bytes] | None = None  # what follows a `*`, up to the next one
        self.deep = 0

    def put(self, piece: bytes) -> None:
        (self._parts if self._open is None else self._open).append(piece)

    def star(self) -> None:
        self._close()
        self._open = []

    def deep_star(self, *, last: bool) -> None:
        """A `**` between slashes: any folders; at the end, all that is in one."""
        self._close()
        self.deep += 1
        self._parts.append(b".+" if last else b"(?:.*/)?")

    def _close(self) -> None:
        if self._open is not None:
            self._parts.append(b"(?>[^/]*?" + b"".join(self._open) + b")")
            self._open = None

    def expression(self) -> bytes:
        last = [] if self._open is None else [b"[^/]*", *self._open]
        return b"(?:" + b"".join((*self._parts, *last)) + rb")\Z"


def _translated(pattern: bytes) -> bytes | None:
    """As a regular expression; None if it is no valid pattern, or one that would take too long."""
    made = _Translation()
    at = 0
    while at < len(pattern):
        end = at
        while pattern[end : end + 1] == b"*":
            end += 1
        if end == at:
            piece, at = _piece(pattern, at)
            if piece is None:
                return None
            made.put(piece)
            continue
        begins, follows = at == 0 or pattern[at - 1 : at] == b"/", pattern[end : end + 1]
        if end - at == 2 and begins and follows in (b"", b"/"):
            made.deep_star(last=not follows)
            end += len(follows)
        else:
            made.star()
        at = end
    return made.expression() if made.deep <= DEEP_STARS else None


def _piece(pattern: bytes, at: int) -> tuple[bytes | None, int]:
    """The expression for what begins at `at`, no star, and where the next begins; None if it is no valid pattern."""
    byte = pattern[at : at + 1]
    if byte == b"?":
        return b"[^/]", at + 1
    if byte == b"\\":
        return (re.escape(pattern[at + 1 : at + 2]), at + 2) if at + 1 < len(pattern) else (None, at)
    if byte == b"[":
        return _bracket(pattern, at + 1)
    return re.escape(byte), at + 1


def _bracket(pattern: bytes, at: int) -> tuple[bytes | None, int]:
    negated = pattern[at : at + 1] in (b"!", b"^")
    at += negated
    inside: list[bytes] = []
    first = True
    while first or pattern[at : at + 1] != b"]":
        first = False
        if at >= len(pattern):
            return None, at
        if pattern[at : at + 2] == b"[:":
            end = pattern.find(b":]", at)
            named = _CLASSES.get(pattern[at + 2 : end]) if end > 0 else None
            if named is None:
                return None, at
            inside.append(named)
            at = end + 2
            continue
        low, at = _one(pattern, at)
        high = low
        if pattern[at : at + 1] == b"-" and pattern[at + 1 : at + 2] not in (b"]", b""):
            high, at = _one(pattern, at + 1)
        if not low or not high:
            return None, at
        if low <= high:
            inside.append(b"\\x%02x-\\x%02x" % (low[0], high[0]))
    body = b"".join(inside)
    if not body:
        return (b"[^/]" if negated else b"(?!)"), at + 1
    return b"(?!/)[" + (b"^" if negated else b"") + body + b"]", at + 1


def _one(pattern: bytes, at: int) -> tuple[bytes, int]:
    """The byte at `at`, an escaped one without its backslash; b"" at the end."""
    at += pattern[at : at + 1] == b"\\"
    return pattern[at : at + 1], at + 1
