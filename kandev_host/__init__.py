"""kandev-host: a plugin-driven local agent host with jailed shells.

These names are the plugin API; nothing else is public. They are loaded at first use, so that
`kandev-host --version` stays as quick as Python itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kandev_host.version import __version__

if TYPE_CHECKING:
    from kandev_host import errors, events, models
    from kandev_host.events import Event, event
    from kandev_host.hookspecs import hookimpl
    from kandev_host.interfaces import (
        Action,
        AgentType,
        Authenticator,
        Availability,
        Bus,
        Call,
        Commit,
        Decision,
        Environment,
        Expect,
        Hit,
        JournalState,
        LaunchExtras,
        Mount,
        Owned,
        Page,
        Principal,
        Process,
        ProcessSpec,
        Provider,
        Put,
        Remove,
        Result,
        Runtime,
        Shift,
        Stats,
        Store,
        Subscription,
        Telemetry,
        Trimmed,
    )

_HOMES = {
    "interfaces": (
        "Action AgentType Authenticator Availability Bus Call Commit Decision Environment Expect Hit JournalState "
        "LaunchExtras Mount Owned Page Principal Process ProcessSpec Provider Put Remove Result Runtime Shift Stats "
        "Store Subscription Telemetry Trimmed"
    ),
    "hookspecs": "hookimpl",
    "events": "Event event",
    "": "errors events models",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [
    "Action", "AgentType", "Authenticator", "Availability", "Bus", "Call", "Commit", "Decision", "Environment",
    "Event", "Expect", "Hit", "JournalState", "LaunchExtras", "Mount", "Owned", "Page", "Principal", "Process",
    "ProcessSpec", "Provider", "Put", "Remove", "Result", "Runtime", "Shift", "Stats", "Store", "Subscription",
    "Telemetry", "Trimmed", "__version__", "errors", "event", "events", "hookimpl", "models",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    from importlib import import_module

    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'kandev_host' has no attribute {name!r}")
    if home == "":
        return import_module(f"kandev_host.{name}")
    return getattr(import_module(f"kandev_host.{home}"), name)
