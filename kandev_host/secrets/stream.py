"""Secrets are taken out of a stream that comes in pieces, cut anywhere. Pure."""

from __future__ import annotations

import re

from kandev_host.secrets import Known, Redactor
from kandev_host.secrets.redactor import MARK

# What may go on to be a key of a known form, at the very end. A longer one is no key.
_KEY_BYTES = 512
_BEGUN = re.compile(
    rb"(?:s(?:k(?:-[A-Za-z0-9_-]*)?)?"
    rb"|g(?:h(?:p(?:_[A-Za-z0-9]*)?)?)?"
    rb"|g(?:i(?:t(?:h(?:u(?:b(?:_(?:p(?:a(?:t(?:_[A-Za-z0-9_]*)?)?)?)?)?)?)?)?)?)?"
    rb"|k(?:d(?:_[A-Za-z0-9_.-]*)?)?"
    rb"|A(?:I(?:z(?:a[A-Za-z0-9_-]*)?)?)?"
    rb"|e(?:a(?:r(?:e(?:r(?: +[A-Za-z0-9._~+/=-]*)?)?)?)?)?"
    rb"|e(?:y(?:J[A-Za-z0-9._-]*)?)?"
    rb"|:(?:/(?:/[^\s/@\"'\\<>]*)?)?)\Z"
)


class Stream:
    """One stream. What may be the beginning of a secret is held back: never more than the longest one, less a byte.

    Whoever shows the stream calls `pause` when nothing has come for a while, so that nobody waits for a held word: of a
    secret whose beginning was shown so, the rest is still taken out.
    """

    def __init__(self, redactor: Redactor | Known) -> None:
        self._known = redactor
        self._held = b""
        self._shown = b""  # what was shown at a pause, and may be the beginning of a secret

    @property
    def holds(self) -> bool:
        """Is anything held back?"""
        return bool(self._held)

    def feed(self, data: bytes) -> bytes:
        """What of the stream may be shown now."""
        redactor = self._known.now
        data = self._held + data
        self._held = b""
        if self._shown and data:
            rest = rest_of(self._shown, data, redactor)
            if rest is None:
                self._held = data
                return b""
            self._shown = b""
            data = (MARK.encode() if rest else b"") + data[rest:]
        data = redactor.clean_values(data)
        if held := begun(data, redactor):
            data, self._held = data[:-held], data[-held:]
        return redactor.clean(data)

    def pause(self) -> bytes:
        """What was held back: it is to be shown although its rest may still come."""
        held, self._held = self._held, b""
        if held:
            self._shown = (self._shown + held)[-self._known.now.longest :]
        return self._known.now.clean(held)

    def finish(self) -> bytes:
        """What was held back, at the end of the stream."""
        held, self._held, self._shown = self._held, b"", b""
        return self._known.now.clean(held)


def rest_of(shown: bytes, data: bytes, redactor: Redactor) -> int | None:
    """How many bytes of `data` are the rest of a secret that began in what was `shown` before; None: it may go on."""
    waits, last = False, shown[-1:]
    for needle in redactor.needles if shown else ():
        size = needle.rfind(last, 0, min(len(needle) - 1, len(shown))) + 1
        while size:
            if shown.endswith(needle[:size]):
                rest = needle[size:]
                if data.startswith(rest):
                    return len(rest)
                waits = waits or rest.startswith(data)
            size = needle.rfind(last, 0, size - 1) + 1
    return None if waits else 0


def begun(data: bytes, redactor: Redactor) -> int:
    """How many bytes at the end may be the beginning of a secret."""
    longest = 0
    last = data[-1:]
    for needle in redactor.needles if data else ():
        size = needle.rfind(last, 0, len(needle) - 1) + 1
        while size > longest:
            if data.endswith(needle[:size]):
                longest = size
                break
            size = needle.rfind(last, 0, size - 1) + 1
    key = _BEGUN.search(data, max(0, len(data) - _KEY_BYTES))
    return longest if key is None else max(longest, len(data) - key.start())
