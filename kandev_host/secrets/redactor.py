"""Takes secrets out of bytes, of text and of JSON. Pure.

Two kinds are known: exact values, in the spellings in which programs repeat them, and what looks like a key whoever it
belongs to. None has a newline in it, so that a line is all that has to be seen at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from copy import copy
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from kandev_host.secrets.spellings import spellings

if TYPE_CHECKING:
    from ahocorasick_rs import BytesAhoCorasick

MARK = "[redacted]"
_MARK = MARK.encode()
_WINDOW_BYTES = 64 << 10
# Of so few needles, a search for each is the quicker one in a long text.
_FEW, _SHORT_BYTES = 16, 4 << 10

Replace = bytes | Callable[[re.Match[bytes]], bytes]
Pattern = tuple[bytes, re.Pattern[bytes], Replace]


def _unless_in_a_word(match: re.Match[bytes]) -> bytes:
    """`sk-…` also ends words, as in task-…; an escape such as \\n before it is no letter."""
    text, start = match.string, match.start()
    before = text[start - 1 : start]
    escaped = text[start - 2 : start - 1] == b"\\" or text[start - 6 : start - 4] == b"\\u"
    return match[0] if before.isalnum() and not escaped else _MARK


def _any(pattern: re.Pattern[bytes], instead: Replace, text: bytes) -> bool:
    if not callable(instead):
        return pattern.search(text) is not None
    return any(instead(match) != match[0] for match in pattern.finditer(text))


def _if_signed(match: re.Match[bytes]) -> bytes:
    return match[0] if match[1] is None else _MARK


# What each begins with is looked for first: a search for bytes is several times as fast as a pattern.
_PATTERNS: tuple[Pattern, ...] = (
    (b"sk-", re.compile(rb"sk-[A-Za-z0-9_-]{16,}"), _unless_in_a_word),
    (b"ghp_", re.compile(rb"ghp_[A-Za-z0-9]{16,}"), _MARK),
    (b"kd_", re.compile(rb"kd_[A-Za-z0-9_.-]{43,}"), _MARK),  # our own: keys and refresh tokens
    (b"github_pat_", re.compile(rb"github_pat_[A-Za-z0-9_]{16,}"), _MARK),
    (b"AIza", re.compile(rb"AIza[A-Za-z0-9_-]{20,}"), _MARK),
    (b"earer ", re.compile(rb"earer +[A-Za-z0-9._~+/=-]{8,}"), b"earer " + _MARK),
    # What only begins like a JWT is one match too: else each eyJ in it would be a reason to read on to its end.
    (b"eyJ", re.compile(rb"eyJ[A-Za-z0-9_-]{5,}(\.[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]*)?"), _if_signed),
    # A password in a URL, as git repeats them: user:password@host.
    (b"@", re.compile(rb"(://[^\s/:@\"'\\<>]{0,256}:)[^\s/@\"'\\<>]{1,4096}(?=@)"), lambda found: found[1] + _MARK),
)
_BEGINNINGS = tuple(begins for begins, _, _ in _PATTERNS)
_OVERLAP_BYTES = max(map(len, _BEGINNINGS)) - 1
_KEY_FIRSTS = frozenset("sgAek:")
_KEY_CHARS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_~+/=-:")
_KEY_BEGINS = re.compile("sk-|ghp_|kd_|github_pat_|AIza|earer |eyJ|:/")
# JSON may spell any character so; json.dumps does it to what is not ASCII, others to + or &.
_ESCAPED = re.compile(rb"\\u00[2-7]")
_ESCAPED_ANY = re.compile(rb"\\u(?!00[01])")


class Redactor:
    """Takes out these values, and what looks like a key."""

    def __init__(self, secrets: Collection[str] = (), *, unasked: Collection[str] = ()) -> None:
        """Those of them that are `unasked` stay in what somebody is asked to allow."""
        self._patterns: tuple[Pattern, ...] = _PATTERNS
        self._asked = tuple(secret for secret in secrets if secret not in unasked) if unasked else None
        needles = {needle for secret in secrets for needle in spellings(secret)}
        self._needles = tuple(sorted((needle for needle in needles if needle not in _MARK), key=len, reverse=True))
        self._escaped = _ESCAPED if all(needle.isascii() for needle in self._needles) else _ESCAPED_ANY
        self.longest = max((len(needle) for needle in self._needles), default=0)
        spelled = [needle.decode("utf-8", "replace") for needle in self._needles]
        self._firsts = _KEY_FIRSTS | {text[0] for text in spelled}
        self._chars = _KEY_CHARS | {char for text in spelled for char in text}
        self._pairs = {text[at : at + 2] for text in spelled for at in range(len(text) - 1)}

    @property
    def now(self) -> Redactor:
        """Itself: see `Known.now`."""
        return self

    @cached_property
    def of_values(self) -> Redactor:
        """The same without what looks like a key: for what somebody is asked to allow.

        Whoever writes that could make any part of it look like a key, and so hide it from the one who is asked.
        """
        if self._asked is not None:
            return Redactor(self._asked).of_values
        self._search  # noqa: B018 - made once for both
        found = copy(self)
        found._patterns = ()
        return found

    @property
    def needles(self) -> tuple[bytes, ...]:
        """Every spelling that is looked for, the longest first."""
        return self._needles

    @cached_property
    def _search(self) -> BytesAhoCorasick | None:
        """All spellings at once: what it costs to look hardly grows with their number."""
        if not self._needles:
            return None
        from ahocorasick_rs import BytesAhoCorasick

        return BytesAhoCorasick(self._needles)

    @cached_property
    def _signs(self) -> BytesAhoCorasick:
        """The same with what each kind of key begins with: mostly the one look that a text needs."""
        from ahocorasick_rs import BytesAhoCorasick

        return BytesAhoCorasick((*self._needles, *_BEGINNINGS))

    def found(self, text: bytes) -> bool:
        """Is there anything in it that `clean` might take out? What costs least, for text that mostly has nothing."""
        return self._signed(text) and (
            self._found_values(text)
            or any(begins in text and _any(pattern, instead, text) for begins, pattern, instead in self._patterns)
        )

    def _signed(self, text: bytes) -> bool:
        look = self._signs.find_matches_as_indexes
        return bool(look(text) if len(text) <= _WINDOW_BYTES else any(look(part) for _, part in self._windows(text)))

    def _found_values(self, text: bytes) -> bool:
        search = self._search
        if search is None:
            return False
        if len(text) <= _SHORT_BYTES:
            return bool(search.find_matches_as_indexes(text))
        if len(self._needles) <= _FEW:
            return any(needle in text for needle in self._needles)
        return any(search.find_matches_as_indexes(window) for _, window in self._windows(text))

    def found_json(self, text: bytes) -> bool:
        """The same of JSON, which may spell a secret in escapes."""
        return self.found(text) or (b"\\u" in text and self._escaped.search(text) is not None)

    def may_begin(self, text: str) -> bool:
        """May the end of it be the beginning of a secret? True more often than it is so: see `stream.begun`.

        For messages in pieces, where it must be quick. `Bearer` and a token behind it in another piece are not joined.
        """
        last = text[-1:]
        if last not in self._chars:  # as a space or the end of a sentence, which most chunks end with
            return False
        return last in self._firsts or text[-2:] in self._pairs or _KEY_BEGINS.search(text) is not None

    def clean(self, text: bytes) -> bytes:
        """Text of any form without them. What was JSON may not be so any more: then see `clean_json`."""
        if not self._signed(text):
            return text
        text = self.clean_values(text)
        for begins, pattern, instead in self._patterns:
            if begins in text:
                text = pattern.sub(instead, text)
        return text

    def clean_values(self, text: bytes) -> bytes:
        """Without the values; what looks like a key stays. Of those that overlap nothing is left."""
        if not self._found_values(text):
            return text
        kept, at = [], 0
        for start, end in self._spans(text):
            kept += [text[at:start], _MARK]
            at = end
        return b"".join((*kept, text[at:]))

    def _spans(self, text: bytes) -> Iterator[tuple[int, int]]:
        """Where the values stand, in order; those that overlap are one."""
        search = self._search
        if search is None:
            return
        first, last = 0, 0
        for place, window in self._windows(text):
            matches = search.find_matches_as_indexes(window, overlapping=True)
            # What begins behind the window is found in the next one as well, and then with all that overlaps it.
            for start, end in sorted(
                (place + start, place + end) for _, start, end in matches if start < _WINDOW_BYTES
            ):
                if start >= last:
                    if last:
                        yield first, last
                    first = start
                last = max(last, end)
        if last:
            yield first, last

    def _windows(self, text: bytes) -> Iterator[tuple[int, bytes]]:
        """Parts of it, each with where it begins: a text full of values is not held once more as a list of them."""
        size = _WINDOW_BYTES + max(self.longest - 1, _OVERLAP_BYTES)
        for place in range(0, len(text), _WINDOW_BYTES):
            yield place, text[place : place + size]

    def clean_text(self, text: str) -> str:
        """The same of a string."""
        raw = text.encode("utf-8", "surrogatepass")
        return self.clean(raw).decode("utf-8", "replace") if self.found(raw) else text

    def clean_json(self, line: bytes) -> bytes:
        """A JSON text without them, still JSON. For the few that `clean` would break, as it is much slower.

        A value that is part of a number or of JSON's own signs takes the whole with it.
        """
        try:
            kept = msgspec.json.encode(self.clean_value(msgspec.json.decode(line)))
        except (msgspec.MsgspecError, RecursionError, UnicodeError):
            return msgspec.json.encode(MARK)
        return kept if self.clean(kept) == kept else msgspec.json.encode(MARK)

    def clean_value(self, value: Any) -> Any:
        """What JSON was decoded to, without them: in its strings, its keys and its numbers."""
        match value:
            case str():
                return self.clean_text(value)
            case dict():
                return {self.clean_value(key): self.clean_value(item) for key, item in value.items()}
            case list():
                return [self.clean_value(item) for item in value]
            case bool() | None:
                return value
        written = msgspec.json.encode(value)
        return value if self.clean(written) == written else MARK
