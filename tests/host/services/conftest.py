from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from kandev_agents import kandev_prepare_launch
from kandev_bwrap import BwrapSettings
from kandev_bwrap import open_runtime as open_bwrap
from kandev_host import AgentType, Environment, Principal
from kandev_host.events import Event, MemoryBus
from kandev_host.journal import Journal
from kandev_host.models import LOCAL_USER_ID
from kandev_host.services import Services, build_services
from kandev_host.sessions.permissions import PermissionBroker
from kandev_host.sessions.supervisor import AgentSupervisor
from kandev_host.settings import Settings
from kandev_sqlite import SqliteSettings, open_store

ME = Principal(LOCAL_USER_ID, "user", "local", frozenset({"*"}))


class House:
    """The services over the real store, journal, supervisor and jail; `events` are all that the bus delivered."""

    def __init__(self, services: Services) -> None:
        self.me = ME
        self.services = services
        self.events: list[Event] = []
        self.arrived = anyio.Event()
        services.bus.subscribe(["*"], self._take)

    def _take(self, item: Event) -> None:
        self.events.append(item)
        self.arrived.set()
        self.arrived = anyio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.services, name)


@asynccontextmanager
async def opened(data: Path, agent_types: list[AgentType], settings: Settings) -> AsyncIterator[House]:
    os.makedirs(data, mode=0o711, exist_ok=True)
    environment = Environment(str(data), "0")
    async with open_store(SqliteSettings(), environment) as store, Journal(store, bus := MemoryBus()) as journal:
        broker = PermissionBroker(store, journal, settings=settings.permissions)
        async with (
            open_bwrap(BwrapSettings(), environment) as runtime,
            AgentSupervisor(journal, broker, settings.session) as supervisor,
        ):
            services = build_services(
                settings,
                store=store,
                journal=journal,
                bus=bus,
                runtimes={"bwrap": runtime},
                agent_types={agent_type.name: agent_type for agent_type in agent_types},
                broker=broker,
                supervisor=supervisor,
                prepare_launch=[kandev_prepare_launch],
            )
            async with services:
                yield House(services)


@pytest.fixture
def open_house() -> Any:
    return opened


@pytest.fixture
async def house(tmp_path: Path, anyio_backend: str) -> AsyncIterator[House]:
    async with opened(tmp_path / "data", [], Settings()) as made:
        yield made
