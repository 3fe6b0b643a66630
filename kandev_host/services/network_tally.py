"""Counting network decisions by kind, within bounds that a hostile agent cannot make anybody else pay for. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from time import monotonic

import msgspec

from kandev_host.interfaces import NetworkDecision
from kandev_host.protocol.notifications import NetworkNotice

KINDS = 64
OWNERS = 1024
FORGOTTEN_S = 600.0
OTHERS = "*"

_Owner = tuple[str | None, str | None, str | None]
_Kind = tuple[str, int, bool, bool]


class _Counted(msgspec.Struct):
    """The last decision of a kind, how many (and bytes) are not written yet, and when one was seen (monotonic, s)."""

    decision: NetworkDecision
    unwritten: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    seen_at: float = 0.0

    def take(self, kind: _Kind) -> NetworkNotice | None:
        """What is not written yet, which then counts as written."""
        if not (self.unwritten or self.sent_bytes or self.received_bytes):
            return None
        notice = _told(self.decision, kind, self.unwritten, self.sent_bytes, self.received_bytes)
        self.unwritten = self.sent_bytes = self.received_bytes = 0
        return notice


class _Known(msgspec.Struct):
    kinds: dict[_Kind, _Counted] = msgspec.field(default_factory=dict)


class Tally:
    """The first decision of a kind waits in `first`, its repeats in `repeats`.

    An owner (an agent's run, a shell, else a task) has at most 64 kinds; those beyond are two more, one for what was
    allowed and one for what was not, whose host is `*`. A kind that is silent for 10 minutes is forgotten.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._owners: OrderedDict[_Owner, _Known] = OrderedDict()
        self._first: list[NetworkNotice] = []

    def add(self, decision: NetworkDecision) -> bool:
        """Count it. True if it is the first of its kind."""
        known = self._known(decision)
        # A connection that failed is another kind than one that was made.
        kind = (decision.host, decision.port, decision.allowed, decision.address is None)
        if kind not in known.kinds and len(known.kinds) >= KINDS:
            kind = (OTHERS, 0, decision.allowed, False)
        counted = known.kinds.get(kind)
        is_new = counted is None
        if counted is None:
            counted = known.kinds[kind] = _Counted(decision)
            self._first += [] if decision.ended else [_told(decision, kind, 1)]
        elif not decision.ended:
            counted.unwritten += 1
            counted.decision = decision
        counted.sent_bytes += decision.sent_bytes
        counted.received_bytes += decision.received_bytes
        counted.seen_at = self._clock()
        return is_new

    def first(self) -> list[NetworkNotice]:
        """Those that are new since the last call."""
        found, self._first = self._first, []
        return found

    def repeats(self) -> list[NetworkNotice]:
        """What was counted since the last call; what is long silent is forgotten."""
        found = []
        late = self._clock() - FORGOTTEN_S
        for owner, known in list(self._owners.items()):
            for kind, counted in list(known.kinds.items()):
                notice = counted.take(kind)
                if notice is not None:
                    found.append(notice)
                elif counted.seen_at < late:
                    del known.kinds[kind]
            if not known.kinds:
                del self._owners[owner]
        return found

    def _known(self, decision: NetworkDecision) -> _Known:
        labels = decision.labels
        owner = (labels.get("task_id"), labels.get("agent_id"), labels.get("shell_id"))
        known = self._owners.setdefault(owner, _Known())
        self._owners.move_to_end(owner)
        if len(self._owners) > OWNERS:
            _, gone = self._owners.popitem(last=False)
            for kind, counted in gone.kinds.items():
                notice = counted.take(kind)
                if notice is not None:
                    self._first.append(notice)
        return known


def _told(decision: NetworkDecision, kind: _Kind, count: int, sent: int = 0, received: int = 0) -> NetworkNotice:
    others = kind[0] == OTHERS
    return NetworkNotice(
        allowed=decision.allowed,
        host=kind[0],
        port=kind[1],
        protocol=decision.protocol,
        reason="further hosts, counted together" if others else decision.reason,
        rule=None if others else decision.rule,
        address=None if others else decision.address,
        how_to_allow=None if others else decision.how_to_allow,
        count=count,
        sent_bytes=sent,
        received_bytes=received,
        task_id=decision.labels.get("task_id"),
        agent_id=decision.labels.get("agent_id"),
        shell_id=decision.labels.get("shell_id"),
    )
