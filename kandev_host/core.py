"""The host's own plugin: memory bus, local token, no prices and the built-in actions, through the hooks of everyone."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import datetime
from typing import Annotated, Any

import msgspec

from kandev_host.bus import open_memory_bus
from kandev_host.hookspecs import hookimpl
from kandev_host.interfaces import Action, Authenticator, Bus, Environment, Price, Prices, Provider, Use


def _open_bus(_settings: None, _environment: Environment) -> AbstractAsyncContextManager[Bus]:
    return open_memory_bus()


def _open_local(settings: LocalSettings, environment: Environment) -> AbstractAsyncContextManager[Authenticator]:
    from kandev_host.gateway.tokens import open_local

    return open_local(settings.remote, environment)


class LocalSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The local token as a guard."""

    remote: Annotated[
        bool,
        msgspec.Meta(
            description="May it guard an address that other machines reach? Whoever has it may do everything."
        ),
    ] = False


class NoPrices:
    """Leaves unpriced what the agents do not price."""

    async def price(self, use: Use, at: datetime) -> Price | None:
        return None


def _open_no_prices(_settings: None, _environment: Environment) -> AbstractAsyncContextManager[Prices]:
    return nullcontext(NoPrices())


@hookimpl
def kandev_buses() -> Iterable[Provider[None, Bus]]:
    return [Provider("memory", _open_bus)]


@hookimpl
def kandev_authenticators() -> Iterable[Provider[LocalSettings, Authenticator]]:
    return [Provider("local", _open_local, settings=LocalSettings)]


@hookimpl
def kandev_prices() -> Iterable[Provider[None, Prices]]:
    return [Provider("none", _open_no_prices)]


@hookimpl
def kandev_actions(services: Any) -> Iterable[Action[Any]]:
    from kandev_host.gateway.actions import core_actions

    return core_actions(services)
