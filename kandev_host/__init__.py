"""kandev-host: a plugin-driven local agent host with jailed shells.

These names are the plugin API; nothing else is public. They are loaded at first use, so that
`kandev-host --version` stays as quick as Python itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kandev_host.version import __version__

if TYPE_CHECKING:
    from kandev_host import errors, events, metrics, models, secrets, tracing
    from kandev_host.events import Event, event
    from kandev_host.gateway.tokens import TokenFile, load_token
    from kandev_host.hookspecs import hookimpl
    from kandev_host.interfaces import (
        ROLES,
        Action,
        AgentType,
        Append,
        Authenticator,
        Availability,
        Bus,
        Call,
        CommandResult,
        Commit,
        Container,
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
        Issued,
        Issuer,
        Job,
        JournalState,
        LaunchExtras,
        Logging,
        LogLine,
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
        Refused,
        Remove,
        Result,
        Role,
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
        Tracing,
        Trimmed,
        Upkeep,
        UsageGroup,
        UsageSum,
        Use,
        Watching,
        scopes_of,
    )
    from kandev_host.models import UsageReading

_HOMES = {
    "interfaces": (
        "Action AgentType Append Authenticator Availability Bus Call CommandResult Commit Container "
        "Credentials Decision Environment Expect FileContent FileEntry Gauges Hit Image Images Issued Issuer Job "
        "JournalState LaunchExtras LogLine Logging Mount NetworkDecision OnOutput Owned Page PlaceUse Price "
        "Prices Principal Process ProcessSpec Progress Provider Pull Pulling Put ROLES Refused Remove Result Role "
        "Route Runtime Shell Shift Stats Store StoreReport Subscription Telemetry Tell Terminal Tracing "
        "Trimmed Upkeep UsageGroup UsageSum Use Watching scopes_of"
    ),
    "hookspecs": "hookimpl",
    "gateway.tokens": "TokenFile load_token",
    "events": "Event event",
    "models": "UsageReading",
    "": "errors events metrics models secrets tracing",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [
    "ROLES", "Action", "AgentType", "Append", "Authenticator", "Availability", "Bus", "Call", "CommandResult",
    "Commit", "Container", "Credentials", "Decision", "Environment", "Event", "Expect", "FileContent", "FileEntry",
    "Gauges", "Hit", "Image", "Images", "Issued", "Issuer", "Job", "JournalState", "LaunchExtras", "LogLine", "Logging",
    "Mount", "NetworkDecision", "OnOutput", "Owned", "Page", "PlaceUse", "Price", "Prices", "Principal", "Process",
    "ProcessSpec", "Progress", "Provider", "Pull", "Pulling", "Put", "Refused", "Remove", "Result", "Role", "Route",
    "Runtime", "Shell", "Shift", "Stats", "Store", "StoreReport", "Subscription", "Telemetry", "Tell", "Terminal",
    "TokenFile", "Tracing", "Trimmed", "Upkeep", "UsageGroup", "UsageReading", "UsageSum", "Use", "Watching",
    "__version__", "errors", "event", "events", "hookimpl", "load_token", "metrics", "models", "scopes_of", "secrets",
    "tracing",
]  # fmt: skip


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    from importlib import import_module

    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'kandev_host' has no attribute {name!r}")
    if home == "":
        return import_module(f"kandev_host.{name}")
    return getattr(import_module(f"kandev_host.{home}"), name)
