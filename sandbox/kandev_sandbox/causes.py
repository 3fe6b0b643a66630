"""From what bwrap said, and what this kernel forbids, to the exact cause and the exact fix."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from kandev_sandbox.errors import SandboxError

APPARMOR_PROFILE = """\
abi <abi/4.0>,
include <tunables/global>
profile kandev-bwrap {path} flags=(unconfined) {{
  userns,
  include if exists <local/kandev-bwrap>
}}
"""
_CONTAINER_FIX = (
    "start the container with --security-opt seccomp=unconfined --security-opt apparmor=unconfined "
    "--security-opt systempaths=unconfined, or run outside of it"
)

MOUNTS = (
    "User namespaces are for bubblewrap alone here ({}). A jail that finds a folder swapped for a link while it is "
    "built does not start, but bubblewrap may have made an empty file or folder where the link led."
)
MOUNTS_FIX = (
    "start the host as root (its jails run as uids of their own), or, where AppArmor is the cause, as root: "
    "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
)


@dataclass(frozen=True, slots=True)
class Kernel:
    """The switches that decide about unprivileged namespaces; None where this kernel has no such switch."""

    userns_clone: int | None = None
    max_user_namespaces: int | None = None
    apparmor_restricts: int | None = None
    container: bool = False

    @classmethod
    def read(cls) -> Kernel:
        return cls(
            _number("/proc/sys/kernel/unprivileged_userns_clone"),
            _number("/proc/sys/user/max_user_namespaces"),
            _number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
            os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv"),
        )


def explain(error: SandboxError, path: Path, kernel: Kernel) -> tuple[str, str | None]:
    """(reason, fix) of a probe jail that failed with this binary. An error that brings its own fix keeps it."""
    if error.fix is not None:
        return error.reason, error.fix
    if kernel.userns_clone == 0:
        return "This kernel forbids user namespaces to ordinary users.", "sysctl -w kernel.unprivileged_userns_clone=1"
    if kernel.max_user_namespaces == 0:
        return "This kernel allows no user namespaces.", "sysctl -w user.max_user_namespaces=15000"
    said = error.reason
    if kernel.apparmor_restricts == 1 and _is_permission(said):
        return "AppArmor forbids user namespaces to bubblewrap (Ubuntu 24.04's default).", _apparmor_fix(path)
    if "SECCOMP" in said:
        return f"This kernel cannot filter system calls: {said}", "use a kernel with CONFIG_SECCOMP_FILTER"
    if "proc" in said and _is_permission(said):
        return f"A fresh /proc is refused, as inside of most containers: {said}", _CONTAINER_FIX
    if "namespace" in said and ("No space left" in said or "Resource temporarily unavailable" in said):
        return f"The limit of user namespaces is reached: {said}", "sysctl -w user.max_user_namespaces=15000"
    if _is_permission(said) and kernel.container:
        return f"This container forbids namespaces: {said}", _CONTAINER_FIX
    return said, None


def _is_permission(said: str) -> bool:
    return any(words in said for words in ("Operation not permitted", "Permission denied", "No permissions"))


def _apparmor_fix(path: Path) -> str:
    profile = APPARMOR_PROFILE.format(path=path)
    return (
        f"as root, write this to /etc/apparmor.d/kandev-bwrap:\n{profile}"
        "then: apparmor_parser -r /etc/apparmor.d/kandev-bwrap"
    )


def _number(path: str) -> int | None:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):
        return None
