"""The hooks. Synchronous, called once at start-up (the policies: per request); none is `firstresult`.

A hook returns a list (or one item, or None); duplicates of a name are start-up errors. Those of third parties
are called in a thread of their own, and must return within `plugins.hook_timeout_s`.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pluggy

from kandev_host.interfaces import (
    Action,
    AgentType,
    Authenticator,
    Bus,
    Decision,
    LaunchExtras,
    Prices,
    Provider,
    Route,
    Runtime,
    Store,
    Telemetry,
)
from kandev_host.models import AgentInstance, PermissionRequest, Task, Turn

PROJECT = "kandev"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def kandev_agent_types() -> Iterable[AgentType]:
    """Agents that can be started."""
    raise NotImplementedError


@hookspec
def kandev_runtimes() -> Iterable[Provider[Any, Runtime]]:
    """Places where processes run."""
    raise NotImplementedError


@hookspec
def kandev_stores() -> Iterable[Provider[Any, Store]]:
    """Durable storage and search."""
    raise NotImplementedError


@hookspec
def kandev_buses() -> Iterable[Provider[Any, Bus]]:
    """Event delivery."""
    raise NotImplementedError


@hookspec
def kandev_authenticators() -> Iterable[Provider[Any, Authenticator]]:
    """From a bearer token to a Principal."""
    raise NotImplementedError


@hookspec
def kandev_telemetry() -> Iterable[Provider[Any, Telemetry]]:
    """Metrics and spans."""
    raise NotImplementedError


@hookspec
def kandev_prices() -> Iterable[Provider[Any, Prices]]:
    """What tokens cost, where the agent does not say."""
    raise NotImplementedError


@hookspec
def kandev_actions(services: Any) -> Iterable[Action[Any]]:
    """WebSocket actions and their handlers; the core registers its own in the same way."""
    raise NotImplementedError


@hookspec
def kandev_routes(services: Any) -> Iterable[Route]:
    """Extra HTTP routes. The guard stands before them as before every route."""
    raise NotImplementedError


@hookspec
def kandev_lifespan(services: Any) -> AbstractAsyncContextManager[None]:
    """Background work that lives as long as the host."""
    raise NotImplementedError


@hookspec
def kandev_permission_policy(request: PermissionRequest, task: Task) -> Decision | None:
    """Pure. Deny beats ask; an allow has no effect, since preset and rules of the user are a ceiling."""
    raise NotImplementedError


@hookspec
def kandev_prepare_launch(agent: AgentInstance, task: Task) -> LaunchExtras | None:
    """What this launch additionally gets."""
    raise NotImplementedError


@hookspec
def kandev_turn_policy(turn: Turn, task: Task) -> Decision | None:
    """May this turn start? Only deny has an effect here."""
    raise NotImplementedError
