"""How often, and how many at once."""

from __future__ import annotations

import ipaddress
import time
from collections import Counter
from collections.abc import Callable

from kandev_host.errors import Busy, RateLimited

# Of each kind. Whoever was not heard of for longest is forgotten, and begins anew with a whole burst.
REMEMBERED = 4096
V6_PREFIX = 64


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


class RateLimits:
    """A `RateLimit` for each name, of which the last so many are remembered. `change` begins anew."""

    def __init__(self, rate_per_s: float, burst: int) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._of: dict[str, RateLimit] = {}

    def change(self, rate_per_s: float, burst: int) -> None:
        if (rate_per_s, burst) != (self._rate_per_s, self._burst):
            self._rate_per_s, self._burst = rate_per_s, burst
            self._of.clear()

    def admit(self, name: str) -> float:
        """0 when one more of this name may pass now, else the seconds to wait."""
        limit = self._of.pop(name, None) or RateLimit(self._rate_per_s, self._burst)
        if len(self._of) >= REMEMBERED:
            del self._of[next(iter(self._of))]
        self._of[name] = limit
        return limit.admit(time.monotonic())

    def check(self, name: str) -> None:
        """Raises `RateLimited` where `admit` says to wait."""
        if wait := self.admit(name):
            raise RateLimited(round(wait, 3))


def address_of(peer: str | None) -> str:
    """What an address counts as: one of version 6 with all that its owner usually has; "" is the Unix socket."""
    if not peer:
        return ""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return peer
    if isinstance(address, ipaddress.IPv4Address):
        return peer
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, V6_PREFIX), strict=False).network_address)


class Seats:
    """Open sockets: in all, of one address, of one principal, and of those of an address that are nobody's yet."""

    def __init__(self, total: int, per_principal: int, per_address: int) -> None:
        self.change(total, per_principal, per_address)
        self._of_address: Counter[str] = Counter()
        self._of_holder: Counter[str] = Counter()
        self._working: Counter[str] = Counter()

    def change(self, total: int, per_principal: int, per_address: int) -> None:
        """Other bounds: whoever has a seat keeps it."""
        self._total = total
        self._per_principal = per_principal
        self._per_address = per_address

    @property
    def taken(self) -> int:
        return self._of_address.total()

    def take(self, principal_id: str | None, address: str) -> Seat:
        """Raises `Busy` when there is no seat. None is a socket that has yet to log in."""
        if self.taken >= self._total:
            raise Busy(f"All {self._total} sockets are taken (gateway.sockets_total)")
        if self._of_address[address] >= self._per_address:
            raise Busy(f"All {self._per_address} sockets of one address are taken (gateway.sockets_per_address)")
        holder = _holder(principal_id, address)
        self._hold(holder)
        self._of_address[address] += 1
        return Seat(self, holder, address)

    def _hold(self, holder: str) -> None:
        if self._of_holder[holder] >= self._per_principal:
            raise Busy(f"All {self._per_principal} sockets of one principal are taken (gateway.sockets_per_principal)")
        self._of_holder[holder] += 1

    def _leave(self, holder: str, address: str) -> None:
        _less(self._of_holder, holder)
        _less(self._of_address, address)


class Seat:
    """One socket's. `leave` it once, or call once what `closed` returns."""

    __slots__ = ("_address", "_holder", "_seats")

    def __init__(self, seats: Seats, holder: str, address: str) -> None:
        self._seats = seats
        self._holder = holder
        self._address = address

    def move(self, principal_id: str) -> None:
        """The socket logged in. Raises `Busy` when its principal has no seat left; it then keeps the nameless one."""
        holder = _holder(principal_id, self._address)
        self._seats._hold(holder)
        _less(self._seats._of_holder, self._holder)
        self._holder = holder

    def leave(self) -> None:
        self._seats._leave(self._holder, self._address)

    def closed(self) -> Callable[[], None]:
        """The socket is closed, and what it began may still be at work; call what is returned when that is done.

        Its seat is free for another one, unless as many closed sockets as there are seats are at work: then it keeps
        its seat that long. So whoever comes and goes begins no more than twice what the seats allow.
        """
        seats, working, holder = self._seats, self._seats._working, self._holder
        if working[holder] >= seats._per_principal or working.total() >= seats._total:
            return self.leave
        self.leave()
        working[holder] += 1
        return lambda: _less(working, holder)


def _holder(principal_id: str | None, address: str) -> str:
    return f"principal {principal_id}" if principal_id is not None else f"address {address}"


def _less(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
