"""How often, and how many at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from kandev_host.errors import Busy


class RateLimit:
    """`rate_per_s` in the long run, `burst` at once (a leaky bucket kept as one time stamp: GCRA).

    The libraries answer neither "now or not" in one step nor how long to wait, and cost two calls a message.
    """

    __slots__ = ("_burst_s", "_full_at", "_interval_s")

    def __init__(self, rate_per_s: float, burst: int) -> None:
        self._interval_s = 1.0 / rate_per_s
        self._burst_s = self._interval_s * (burst - 1)
        self._full_at = 0.0

    def admit(self, now: float) -> float:
        """0 when one more may pass at `now` (monotonic seconds), else the seconds to wait; a refusal costs nothing."""
        full_at = max(self._full_at, now)
        wait = full_at - now - self._burst_s
        if wait > 0:
            return wait
        self._full_at = full_at + self._interval_s
        return 0.0

    def charge(self, requests: int) -> None:
        """What was admitted last counts as so many more; at most a whole burst."""
        self._full_at += min(requests * self._interval_s, self._burst_s)


class Seats:
    """Open sockets: in all, of one principal, and of those who have not said yet who they are."""

    def __init__(self, total: int, per_principal: int) -> None:
        self._total = total
        self._per_principal = per_principal
        self._taken: Counter[str | None] = Counter()
        self._working: Counter[str | None] = Counter()

    @property
    def taken(self) -> int:
        return self._taken.total()

    def take(self, principal_id: str | None) -> None:
        """Raises `Busy` when there is no seat. None is a socket that has yet to log in."""
        if self.taken >= self._total:
            raise Busy(f"All {self._total} sockets are taken (gateway.sockets_total)")
        self._take(principal_id)

    def move(self, principal_id: str) -> None:
        """A socket logged in. Raises `Busy` when its principal has no seat left; it then keeps the nameless one."""
        self._take(principal_id)
        self.leave(None)

    def leave(self, principal_id: str | None) -> None:
        self._taken[principal_id] -= 1
        if not self._taken[principal_id]:
            del self._taken[principal_id]

    def closed(self, principal_id: str | None) -> Callable[[], None]:
        """A socket is closed, and what it began may still be at work; call what is returned when that is done.

        Its seat is free for another one, unless as many closed sockets as there are seats are at work: then it keeps
        its seat that long. So whoever comes and goes begins no more than twice what the seats allow.
        """
        working = self._working
        if working[principal_id] >= self._per_principal or working.total() >= self._total:
            return lambda: self.leave(principal_id)
        self.leave(principal_id)
        working[principal_id] += 1
        return lambda: self._done(principal_id)

    def _done(self, principal_id: str | None) -> None:
        self._working[principal_id] -= 1
        if not self._working[principal_id]:
            del self._working[principal_id]

    def _take(self, principal_id: str | None) -> None:
        if self._taken[principal_id] >= self._per_principal:
            raise Busy(f"All {self._per_principal} sockets of one principal are taken (gateway.sockets_per_principal)")
        self._taken[principal_id] += 1
