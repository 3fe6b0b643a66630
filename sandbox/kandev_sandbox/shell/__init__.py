"""A persistent jailed shell, and what its commands leave behind."""

from __future__ import annotations

from kandev_sandbox.shell.control import sweep
from kandev_sandbox.shell.enclosure import Enclosure
from kandev_sandbox.shell.jobs import Job
from kandev_sandbox.shell.result import OnOutput, ShellResult, Stream
from kandev_sandbox.shell.session import Change, Opener, Shell
from kandev_sandbox.shell.terminal import Terminal, open_terminal

__all__ = [
    "Change", "Enclosure", "Job", "OnOutput", "Opener", "Shell", "ShellResult", "Stream", "Terminal", "open_terminal",
    "sweep",
]  # fmt: skip
