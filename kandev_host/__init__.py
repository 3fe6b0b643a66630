"""kandev-host: a plugin-driven local agent host with jailed shells.

These names are the plugin API; nothing else is public. They are loaded at first use, so that
`kandev-host --version` stays as quick as Python itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kandev_host.version import __version__

if TYPE_CHECKING:
    from kandev_host import errors, events, metrics, models, secrets
    from kandev_host.events import Event, event
    from kandev_host.gateway.tokens import TokenFile
    from kandev_host.hookspecs import hookimpl
    from kandev_host.interfaces import (
        Action,
        AgentType,
        Authenticator,
        Availability,
        Bus,
        Call,
        CommandResult,
        Commit,
        Credentials,
        Decision,
        Environment,
        Expect,
        FileContent,
        FileEntry,
        Gauges,
        Hit,
        Image,
        Images,
        Job,
        JournalState,
        LaunchExtras,
        Mount,
        NetworkDecision,
        OnOutput,
        Owned,
        Page,
        PlaceUse,
        Price,
        Prices,
        Principal,
        Process,
        ProcessSpec,
        Progress,
        Provider,
        Pull,
        Pulling,
        Put,
        Remove,
        Result,
        Route,
        Runtime,
        Shell,
        Shift,
        Stats,
        Store,
        StoreReport,
        Subscription,
        Telemetry,
        Tell,
        Terminal,
        Trimmed,
        Upkeep,
        UsageGroup,
        UsageSum,
        Use,
        Watching,
    )
    from kandev_host.models import UsageReading

_HOMES = {
    "interfaces": (
        "Action AgentType Authenticator Availability Bus Call CommandResult Commit Credentials Decision Environment "
        "Expect FileContent FileEntry Gauges Hit Image Images Job JournalState LaunchExtras Mount NetworkDecision "
        "OnOutput Owned Page PlaceUse Price Prices Principal Process ProcessSpec Progress Provider Pull Pulling Put "
        "Remove Result Route Runtime Shell Shift Stats Store StoreReport Subscription Telemetry Tell Terminal Trimmed "
        "Upkeep UsageGroup UsageSum Use Watching"
    ),
    "hookspecs": "hookimpl",
    "gateway.tokens": "TokenFile",
    "events": "Event event",
    "models": "UsageReading",
    "": "errors events metrics models secrets",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [
    "Action", "AgentType", "Authenticator", "Availability", "Bus", "Call", "CommandResult", "Commit", "Credentials",
    "Decision", "Environment", "Event", "Expect", "FileContent", "FileEntry", "Gauges", "Hit", "Image", "Images", "Job",
    "JournalState", "LaunchExtras", "Mount", "NetworkDecision", "OnOutput", "Owned", "Page", "PlaceUse", "Price",
    "Prices", "Principal", "Process", "ProcessSpec", "Progress", "Provider", "Pull", "Pulling", "Put", "Remove",
    "Result", "Route", "Runtime", "Shell", "Shift", "Stats", "Store", "StoreReport", "Subscription", "Telemetry",
    "Tell", "Terminal", "TokenFile", "Trimmed", "Upkeep", "UsageGroup", "UsageReading", "UsageSum", "Use", "Watching",
    "__version__",
    "errors", "event", "events", "hookimpl", "metrics", "models", "secrets",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    from importlib import import_module

    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'kandev_host' has no attribute {name!r}")
    if home == "":
        return import_module(f"kandev_host.{name}")
    return getattr(import_module(f"kandev_host.{home}"), name)
