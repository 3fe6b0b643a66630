"""The seams of the house: what a provider must do to replace storage, bus, runtime, authentication or telemetry.

Data goes in and data comes out; no SQL, no host pid and no callback crosses a seam, so that another database or
a container engine fits behind it. The contract suites in `kandev_host.testing` hold an implementation to this.
"""

from __future__ import annotations

from kandev_host.interfaces.actions import Action, Authenticator, Call, Decision, LaunchExtras, Principal, Telemetry
from kandev_host.interfaces.agents import AgentType, Dialect, Network
from kandev_host.interfaces.providers import Availability, Environment, Provider
from kandev_host.interfaces.runtimes import Mount, Owned, Process, ProcessSpec, Result, Runtime, Stats
from kandev_host.interfaces.storage import (
    Bus,
    Change,
    Commit,
    Expect,
    Hit,
    JournalState,
    Op,
    Page,
    Put,
    Remove,
    Shift,
    Store,
    Subscription,
    Trimmed,
)

__all__ = [
    "Action",
    "AgentType",
    "Authenticator",
    "Availability",
    "Bus",
    "Call",
    "Change",
    "Commit",
    "Decision",
    "Dialect",
    "Environment",
    "Expect",
    "Hit",
    "JournalState",
    "LaunchExtras",
    "Mount",
    "Network",
    "Op",
    "Owned",
    "Page",
    "Principal",
    "Process",
    "ProcessSpec",
    "Provider",
    "Put",
    "Remove",
    "Result",
    "Runtime",
    "Shift",
    "Stats",
    "Store",
    "Subscription",
    "Telemetry",
    "Trimmed",
]
