"""Log-ins by name and password: what an authenticator does besides that hands out tokens of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from kandev_host.interfaces.actions import Principal


@dataclass(frozen=True, slots=True)
class Issued:
    """What a log-in gets. `token` is what `authenticate` knows, as `principal`, until `principal.expires_at`.

    `refresh_token` is good for one `refresh`, which brings the next one; None where there is no refreshing.
    """

    principal: Principal
    token: str = field(repr=False)
    refresh_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """A log-in that got nothing, of somebody who is known by `name`: for the audit, never for whoever asked.

    `principal` only of who showed a credential that was theirs, as a refresh token that was used before.
    """

    name: str
    principal: Principal | None = None


@runtime_checkable
class Issuer(Protocol):
    """An `Authenticator` that also lets people in by name and password (`auth.login`, `auth.refresh`, `POST /login`).

    Several may ask at once. The host delays and counts failures, as of `authenticate`; right ones it never does. What
    it costs to look at a password is the issuer's to bound: a flood of wrong ones must not keep a right one out.
    """

    async def log_in(self, name: str, password: str, address: str) -> Issued | Refused | None:
        """None for what is not right, or `Refused` where somebody has that name.

        Takes as long for a name that nobody has as for a wrong password.
        """
        ...

    async def refresh(self, refresh_token: str, address: str) -> Issued | Refused | None:
        """None for a token that is not good, or not any more; `Refused` for one whose use has ended its log-in."""
        ...
