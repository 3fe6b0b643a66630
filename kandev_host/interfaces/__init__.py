"""The seams of the house: what a provider must do to replace storage, bus, runtime, authentication or telemetry.

Data goes in and data comes out; no SQL, no host pid and no callback crosses a seam, so that another database or
a container engine fits behind it. The contract suites in `kandev_host.testing` hold an implementation to this.
"""

from __future__ import annotations

from kandev_host.interfaces.actions import (
    Action,
    Authenticator,
    Call,
    Credentials,
    Decision,
    Gauges,
    LaunchExtras,
    Logging,
    LogLine,
    Principal,
    Route,
    Telemetry,
    Tracing,
    Watching,
)
from kandev_host.interfaces.agents import AgentType, Dialect, Network
from kandev_host.interfaces.files import FileContent, FileEntry, FileKind, PlaceUse
from kandev_host.interfaces.images import Image, Images, Pull, Pulling, Tell
from kandev_host.interfaces.issuers import Issued, Issuer, Refused
from kandev_host.interfaces.network import NetworkDecision
from kandev_host.interfaces.prices import Price, Prices, Use
from kandev_host.interfaces.processes import Mount, Owned, Process, ProcessSpec, Result, Stats
from kandev_host.interfaces.providers import Availability, Environment, Provider
from kandev_host.interfaces.roles import ALL_BOARDS, ROLES, SCOPES, Role, scopes_of
from kandev_host.interfaces.runtimes import Runtime
from kandev_host.interfaces.shells import CommandResult, Job, OnOutput, Shell, Stream, Terminal
from kandev_host.interfaces.storage import (
    Append,
    Bus,
    Change,
    Commit,
    Expect,
    Hit,
    JournalState,
    Late,
    Op,
    Page,
    Put,
    Remove,
    Shift,
    Store,
    Subscription,
    Trimmed,
    UsageGroup,
    UsageSum,
)
from kandev_host.interfaces.upkeep import Progress, StoreReport, Upkeep

__all__ = [
    "ALL_BOARDS",
    "ROLES",
    "SCOPES",
    "Action",
    "AgentType",
    "Append",
    "Authenticator",
    "Availability",
    "Bus",
    "Call",
    "Change",
    "CommandResult",
    "Commit",
    "Credentials",
    "Decision",
    "Dialect",
    "Environment",
    "Expect",
    "FileContent",
    "FileEntry",
    "FileKind",
    "Gauges",
    "Hit",
    "Image",
    "Images",
    "Issued",
    "Issuer",
    "Job",
    "JournalState",
    "Late",
    "LaunchExtras",
    "LogLine",
    "Logging",
    "Mount",
    "Network",
    "NetworkDecision",
    "OnOutput",
    "Op",
    "Owned",
    "Page",
    "PlaceUse",
    "Price",
    "Prices",
    "Principal",
    "Process",
    "ProcessSpec",
    "Progress",
    "Provider",
    "Pull",
    "Pulling",
    "Put",
    "Refused",
    "Remove",
    "Result",
    "Role",
    "Route",
    "Runtime",
    "Shell",
    "Shift",
    "Stats",
    "Store",
    "StoreReport",
    "Stream",
    "Subscription",
    "Telemetry",
    "Tell",
    "Terminal",
    "Tracing",
    "Trimmed",
    "Upkeep",
    "UsageGroup",
    "UsageSum",
    "Use",
    "Watching",
    "scopes_of",
]
