"""What the gateway needs of the services below it."""

from __future__ import annotations

from typing import Protocol

from kandev_host.gateway.receipts import Recorder
from kandev_host.gateway.subscriptions import Audiences, JournalView
from kandev_host.interfaces import Bus, Store
from kandev_host.services.agent_tokens import AgentTokens
from kandev_host.services.ownership import Ownership


class Recording(JournalView, Recorder, Protocol):
    """The journal, as the gateway sees it."""


class Floors(Protocol):
    @property
    def store(self) -> Store: ...

    @property
    def bus(self) -> Bus: ...

    @property
    def journal(self) -> Recording: ...

    @property
    def audiences(self) -> Audiences: ...

    @property
    def ownership(self) -> Ownership: ...

    @property
    def agent_tokens(self) -> AgentTokens: ...
