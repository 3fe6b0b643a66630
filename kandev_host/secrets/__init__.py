"""The secrets that this process knows, and the one place where they are taken out of what is kept, told and logged.

Whoever hands a secret on registers it first (`register`); the journal, the log, captures, shells and answers to clients
go through `known`. A process has one such list, as it has one log: two hosts in it, as in tests, share it.

What people type for an agent is looked for in what is of that agent and its task alone (`register_for`, `Known.of`):
whoever may answer an agent's form chooses those values, and must not thereby hide what others do, say or are asked.
"""

from __future__ import annotations

import logging
import re
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from kandev_host.secrets.redactor import MARK, Redactor
from kandev_host.secrets.spellings import SHORTEST

__all__ = [
    "LIMIT",
    "MARK",
    "OWNERS",
    "OWN_CHARS",
    "SHORTEST",
    "Known",
    "KnownOf",
    "Redactor",
    "forget",
    "in_use",
    "known",
    "looks_secret",
    "register",
    "register_for",
]

log = logging.getLogger(__name__)

LIMIT = 500
LIMIT_CHARS = 16 << 10
# What is of single agents and tasks: so many of them, so many characters for each, and so many redactors at a time.
OWNERS, OWN_CHARS, OWN_REDACTORS = 2000, 4096, 32
# Tokens in the plural are those of models, and are counted.
_WORDS = re.compile(r"secret|password|passwd|token(?!s)|[_-]key|apikey|credential|private|auth", re.I)


class _Redacting(ABC):
    """What a `Redactor` does, with what is known at this moment: `now` never changes, so threads may use it."""

    @property
    @abstractmethod
    def now(self) -> Redactor: ...

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


class Known(_Redacting):
    """The values, each with what it is. `now` is the redactor of those that are looked for everywhere."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}
        self._own: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        self._made: OrderedDict[str, tuple[Redactor, Redactor]] = OrderedDict()
        self._lock = threading.Lock()
        self._hosts = 0
        self._now = Redactor()

    @property
    def now(self) -> Redactor:
        return self._now

    def register(self, value: str, why: str) -> None:
        """From now on this value is taken out; `why` says what it is, for the log, and is not secret.

        Nothing for a value shorter than SHORTEST bytes, which would tear holes everywhere. Of more than LIMIT values
        the one that was registered longest ago is forgotten, and the log says so.
        """
        value = value[:LIMIT_CHARS]
        if _is_short(value):
            return
        forgotten = None
        with self._lock:
            new = value not in self._values
            self._values.pop(value, None)
            self._values[value] = why
            if len(self._values) > LIMIT:
                forgotten = self._values.pop(next(iter(self._values)))
            if new:
                self._now = Redactor(self._values)
        if forgotten is not None:
            log.warning("More than %s secrets are known: the oldest is not looked for any more (%s)", LIMIT, forgotten)

    def register_for(self, owners: Collection[str], values: Collection[str]) -> None:
        """From now on these are taken out of what is of these owners (agents, tasks), and of nothing else.

        Of more than OWN_CHARS characters the values that came first are not looked for any more.
        """
        values = [value for value in values if not _is_short(value) and len(value) <= OWN_CHARS]
        if not values:
            return
        with self._lock:
            for owner in owners:
                own = dict.fromkeys((*reversed(values), *reversed(self._own.get(owner, ()))))
                kept, room = [], OWN_CHARS
                for value in own:
                    room -= len(value)
                    if room < 0:
                        break
                    kept.append(value)
                self._own[owner] = tuple(reversed(kept))
                self._own.move_to_end(owner)
                self._made.pop(owner, None)
            while len(self._own) > OWNERS:
                self._made.pop(self._own.popitem(last=False)[0], None)

    def of(self, *owners: str | None) -> Redactor:
        """For what is said by, kept and told of the first of them that has something of its own, else `now`."""
        if not self._own:
            return self._now
        found = next((owner for owner in owners if owner in self._own), None)
        return self._now if found is None else self._redactor_of(found)

    @property
    def any_own(self) -> bool:
        """Is anything known of single owners?"""
        return bool(self._own)

    def _redactor_of(self, owner: str) -> Redactor:
        with self._lock:
            now = self._now
            made = self._made.get(owner)
            if made is None or made[0] is not now:
                own = self._own.get(owner, ())
                made = self._made[owner] = (now, Redactor((*self._values, *own), unasked=_in_words(own)))
                if len(self._made) > OWN_REDACTORS:
                    self._made.popitem(last=False)
            self._made.move_to_end(owner)
            return made[1]

    def forget(self, value: str) -> None:
        """It opens nothing any more."""
        with self._lock:
            if self._values.pop(value[:LIMIT_CHARS], None) is not None:
                self._now = Redactor(self._values)

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
                    for values in (self._values, self._own, self._made):
                        values.clear()
                    self._now = Redactor()


class KnownOf(_Redacting):
    """The same for one agent, whatever is registered for it later."""

    def __init__(self, *owners: str) -> None:
        self._owners = owners

    @property
    def now(self) -> Redactor:
        # Asked for each piece that an agent says; mostly nothing has been typed for anybody.
        return known.of(*self._owners) if known.any_own else known.now


def _is_short(value: str) -> bool:
    return len(value.encode("utf-8", "surrogateescape")) < SHORTEST


def _in_words(values: Collection[str]) -> list[str]:
    """Those with blanks in them, as commands have."""
    return [value for value in values if len(value.split()) > 1]


known = Known()
register = known.register
register_for = known.register_for
forget = known.forget
in_use = known.in_use


def looks_secret(name: str) -> bool:
    """Does a variable, header, option or field of this name hold a secret, as far as names tell?"""
    return _WORDS.search(name) is not None
