"""kandev_sandbox: run a command, and all that it starts, in a jail of Linux namespaces (bubblewrap).

It stands alone: nothing of kandev-host is imported. Start with `examine` (can this machine do it?), describe the
place with a `Policy`, and enter `open_jail`.
"""

from __future__ import annotations

from kandev_sandbox.bwrap import Bwrap, inspect
from kandev_sandbox.cgroups import Cgroups
from kandev_sandbox.doctor import Finding, Report, examine
from kandev_sandbox.egress.decisions import Decision
from kandev_sandbox.egress.gate import Gate
from kandev_sandbox.egress.presets import PRESETS
from kandev_sandbox.egress.rules import expand as expand_allow
from kandev_sandbox.endings import Ending
from kandev_sandbox.errors import (
    ForwardFailed,
    JailUnavailable,
    PolicyError,
    ProgramMissing,
    ProgramNotFound,
    ProgramRefused,
    SandboxError,
    SharedFile,
    ShellEnded,
    SpawnFailed,
    StagingFailed,
    UidsExhausted,
)
from kandev_sandbox.jail import Jail, open_jail
from kandev_sandbox.launch import Streams
from kandev_sandbox.policy import HOME, WORKSPACE, Bind, Limits, Policy
from kandev_sandbox.programs import Program, resolve
from kandev_sandbox.records import Jailed, Owner, end, jails, leftovers
from kandev_sandbox.shell import Job, OnOutput, Shell, ShellResult
from kandev_sandbox.sweeping import sweep
from kandev_sandbox.uids import Uids, give

__all__ = [
    "HOME", "PRESETS", "WORKSPACE", "Bind", "Bwrap", "Cgroups", "Decision", "Ending", "Finding", "ForwardFailed",
    "Gate", "Jail", "JailUnavailable", "Jailed", "Job", "Limits", "OnOutput", "Owner", "Policy", "PolicyError",
    "Program", "ProgramMissing", "ProgramNotFound", "ProgramRefused", "Report", "SandboxError", "SharedFile",
    "Shell", "ShellEnded", "ShellResult", "SpawnFailed", "StagingFailed", "Streams", "Uids", "UidsExhausted", "end",
    "examine", "expand_allow", "give", "inspect", "jails", "leftovers", "open_jail", "resolve", "sweep",
]  # fmt: skip
