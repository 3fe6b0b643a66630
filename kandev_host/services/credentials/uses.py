"""Every access to a credential, in the journal before it happens; and how many there may be."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable

import msgspec

from kandev_host.errors import KandevError
from kandev_host.events import Event, event
from kandev_host.log_ids import bound
from kandev_host.protocol.actions.credentials import CredentialVerb
from kandev_host.protocol.notifications import CredentialNotice
from kandev_host.services.credentials.grants import Grant

log = logging.getLogger(__name__)
USES_PER_S = 2.0
USES_AT_ONCE = 120

Told = Callable[[CredentialNotice], Awaitable[None]]
"""Writes it down. What it raises keeps the credential from being used."""


def credential_event(notice: CredentialNotice, board_id: str | None = None) -> Event:
    return event("credential.used", notice, task_id=notice.task_id, agent_id=notice.agent_id, board_id=board_id)


def log_refusal(notice: CredentialNotice) -> None:
    if not notice.allowed:
        with bound(task_id=notice.task_id or "", agent_id=notice.agent_id or ""):
            log.info("Credential %s refused: %s", notice.name, notice.reason)


class Allowance:
    """So many requests at once, refilled slowly: an agent that asks for ever cannot fill the journal."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left = float(USES_AT_ONCE)
        self._at = clock()

    def take(self) -> bool:
        now = self._clock()
        self._left = min(float(USES_AT_ONCE), self._left + (now - self._at) * USES_PER_S)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Uses(msgspec.Struct, frozen=True):
    """The accesses of one agent, or of the clone of a task, to one repository."""

    grant: Grant
    task_id: str
    agent_id: str | None
    told: Told
    allowance: Allowance

    async def tell(
        self,
        verb: CredentialVerb | None,
        reason: str,
        *,
        allowed: bool = True,
        sent_bytes: int = 0,
        received_bytes: int = 0,
    ) -> None:
        """Raises what keeps it from being written."""
        await self.told(
            CredentialNotice(
                name=self.grant.name,
                way="git",
                what=self.grant.url,
                verb=verb,
                allowed=allowed,
                reason=reason,
                sent_bytes=sent_bytes,
                received_bytes=received_bytes,
                task_id=self.task_id,
                agent_id=self.agent_id,
            )
        )

    async def ended(self, verb: CredentialVerb, sent_bytes: int, received_bytes: int) -> None:
        """How much it was. That it began is written already, so a journal that refuses now stops nothing."""
        try:
            await self.tell(verb, "ended", sent_bytes=sent_bytes, received_bytes=received_bytes)
        except KandevError as error:
            log.error("credential %s: the end of a transfer was not written: %s", self.grant.name, error.message)
