"""The secrets that this process knows, and the one place where they are taken out of what is kept, told and logged.

Whoever hands a secret on registers it first (`register`); the journal, the log, captures, shells and answers to clients
go through `known`. A process has one such list, as it has one log: two hosts in it, as in tests, share it.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kandev_host.secrets.redactor import MARK, Redactor
from kandev_host.secrets.spellings import SHORTEST

__all__ = [
    "LIMIT",
    "MARK",
    "SHORTEST",
    "Known",
    "Redactor",
    "forget",
    "in_use",
    "known",
    "looks_secret",
    "register",
]

log = logging.getLogger(__name__)

LIMIT = 500
LIMIT_CHARS = 16 << 10
# Tokens in the plural are those of models, and are counted.
_WORDS = re.compile(r"secret|password|passwd|token(?!s)|[_-]key|apikey|credential|private|auth", re.I)


class Known:
    """The values, each with what it is. `now` is the redactor of all; it never changes, so threads may use it."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}
        self._lock = threading.Lock()
        self._hosts = 0
        self.now = Redactor()

    def register(self, value: str, why: str) -> None:
        """From now on this value is taken out; `why` says what it is, for the log, and is not secret.

        Nothing for a value shorter than SHORTEST bytes, which would tear holes everywhere. Of more than LIMIT values
        the one that was registered longest ago is forgotten, and the log says so.
        """
        value = value[:LIMIT_CHARS]
        if len(value.encode("utf-8", "surrogateescape")) < SHORTEST:
            return
        forgotten = None
        with self._lock:
            new = value not in self._values
            self._values.pop(value, None)
            self._values[value] = why
            if len(self._values) > LIMIT:
                forgotten = self._values.pop(next(iter(self._values)))
            if new:
                self.now = Redactor(self._values)
        if forgotten is not None:
            log.warning("More than %s secrets are known: the oldest is not looked for any more (%s)", LIMIT, forgotten)

    def forget(self, value: str) -> None:
        """It opens nothing any more."""
        with self._lock:
            if self._values.pop(value[:LIMIT_CHARS], None) is not None:
                self.now = Redactor(self._values)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Within this a host lives; all is forgotten when the last one of the process has gone."""
        with self._lock:
            self._hosts += 1
        try:
            yield
        finally:
            with self._lock:
                self._hosts -= 1
                if not self._hosts:
                    self._values.clear()
                    self.now = Redactor()

    # What a `Redactor` does, with what is known at this moment.

    @property
    def longest(self) -> int:
        """Bytes of the longest spelling."""
        return self.now.longest

    def found(self, text: bytes) -> bool:
        return self.now.found(text)

    def clean(self, text: bytes) -> bytes:
        return self.now.clean(text)

    def clean_text(self, text: str) -> str:
        return self.now.clean_text(text)

    def clean_json(self, line: bytes) -> bytes:
        return self.now.clean_json(line)

    def clean_value(self, value: Any) -> Any:
        return self.now.clean_value(value)


known = Known()
register = known.register
forget = known.forget
in_use = known.in_use


def looks_secret(name: str) -> bool:
    """Does a variable, header, option or field of this name hold a secret, as far as names tell?"""
    return _WORDS.search(name) is not None
