"""Waiting for people: what an agent's activity says meanwhile, and for how long a turn has waited."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from kandev_host.models import Activity
from kandev_host.sessions.logins import Login
from kandev_host.sessions.stage import SessionState, Stage

ASKING = ("waiting_permission", "waiting_elicitation")


class Waiting:
    """`last_answer` is when the agent last ceased to wait for a person, monotonic."""

    def __init__(self, stage: Stage, state: SessionState, login: Login) -> None:
        self._stage = stage
        self._state = state
        self._login = login
        self._since = 0.0
        self._waited_s = 0.0
        self.last_answer = 0.0

    @asynccontextmanager
    async def person(self, activity: Activity) -> AsyncIterator[None]:
        """While this is entered, the agent waits for a person; what overlaps is counted once."""
        state = self._state
        state.asking += 1
        try:
            if state.asking == 1:
                self._since = time.monotonic()
                await self._stage.set_activity(activity)  # while the journal is full it may fail, or be cancelled
            yield
        finally:
            state.asking -= 1
            self.last_answer = time.monotonic()
            if state.asking == 0:
                self._waited_s += self.last_answer - self._since
                if self._stage.current().activity in ASKING:  # else something has happened since
                    await self._stage.set_activity(self._rest())

    def _rest(self) -> Activity:
        """What it does when nobody is asked: it may also ask before its session is open, and between turns."""
        if self._state.watch is not None:
            return "prompting"
        if self._login.wanted:
            return "needs_login"
        return "starting" if self._state.row is None else "idle"

    def begin_turn(self) -> None:
        """A turn counts from its own beginning."""
        self._waited_s = 0.0
        self._since = time.monotonic()

    def waited_ms(self) -> int:
        """For how long the turn has waited for people so far."""
        running = time.monotonic() - self._since if self._state.asking else 0.0
        return round((self._waited_s + running) * 1000)
