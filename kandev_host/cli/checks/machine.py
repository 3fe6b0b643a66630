"""The machine: its disk, clock, limits, and git."""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from kandev_host.cli.checks import Check, Look

if TYPE_CHECKING:
    from kandev_host.settings.load import Loaded

GIT_TIMEOUT_S = 5.0
GIT_WANTED = (2, 35)
FILES_WANTED = 8192
CLOCK_SLACK_S = 120.0
RELEASED_S = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
INOTIFY = {"max_user_watches": 65_536, "max_user_instances": 128}
PROC = Path("/proc/sys/fs/inotify")


def looks(loaded: Loaded) -> dict[str, Look]:
    return {
        "machine": _machine,
        "disk": lambda: disk(loaded),
        "git": git,
        "clock": lambda: clock(loaded),
        "open files": open_files,
        "inotify": inotify,
    }


def _machine() -> Iterator[Check]:
    python = f"Python {platform.python_version()}, {platform.system()} {platform.release()} {platform.machine()}"
    yield Check("machine", "ok", python)


def disk(loaded: Loaded) -> Iterator[Check]:
    folder = loaded.data_dir
    while not folder.exists():
        folder = folder.parent
    free, wanted = shutil.disk_usage(folder).free, loaded.settings.server.disk_low_bytes
    found = f"{free / (1 << 30):.1f} GiB free at {loaded.data_dir}"
    if free >= wanted:
        yield Check("disk", "ok", found)
        return
    yield Check(
        "disk",
        "warning",
        f"{found}, less than {wanted / (1 << 30):.1f}",
        "make room: kandev-host workspace delete TASK; or bound it: [workspace] quota_bytes, [journal]"
        " events_limit_bytes; or set [server] disk_low_bytes",
        "with a full disk every write is refused: agents stop, and nothing new is recorded",
    )


def git() -> Iterator[Check]:
    program = shutil.which("git", path=os.defpath + ":/usr/local/bin")
    why = "the workspaces of tasks are clones that git makes, in their jail"
    if program is None:
        yield Check("git", "warning", "not in /usr/bin: workspaces need it in their jail", "apt-get install git", why)
        return
    done = subprocess.run(
        [program, "--version"], check=False, capture_output=True, text=True, timeout=GIT_TIMEOUT_S, cwd="/"
    )
    version = re.search(r"(\d+)\.(\d+)", done.stdout)
    told = f"{program} {done.stdout.strip().removeprefix('git version ')}"
    wanted = ".".join(map(str, GIT_WANTED))
    if version is None:
        yield Check("git", "warning", f"{program} does not run: {done.stderr.strip()}", "apt-get install git", why)
    elif (int(version[1]), int(version[2])) < GIT_WANTED:
        why = "older ones leave out settings that keep a repository from running programs"
        yield Check("git", "warning", f"{told}, older than {wanted}", f"install git {wanted} or newer", why)
    else:
        yield Check("git", "ok", told)


def clock(loaded: Loaded) -> Iterator[Check]:
    at = time.time()
    why = "certificates, tokens and how long things are kept go by it"
    fix = "timedatectl set-ntp true"
    newest = max((_changed(loaded.data_dir / name) for name in ("token", "kandev.db", "host.lock")), default=0.0)
    if at < RELEASED_S:
        yield Check("clock", "warning", f"it says {datetime.fromtimestamp(at, UTC):%Y-%m-%d}", fix, why)
    elif newest - at > CLOCK_SLACK_S:
        found = f"it is {(newest - at) / 60:.0f} minutes behind the last change of {loaded.data_dir}"
        yield Check("clock", "warning", found, fix, why)
    else:
        yield Check("clock", "ok", f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC")


def _changed(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0


def open_files() -> Iterator[Check]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard >= FILES_WANTED:
        yield Check("open files", "ok", "unlimited" if hard == resource.RLIM_INFINITY else f"up to {hard}")
        return
    yield Check(
        "open files",
        "warning",
        f"at most {hard}, fewer than {FILES_WANTED}",
        "LimitNOFILE=65536 in the unit of systemd, or as root: ulimit -Hn 65536",
        "each socket and each pipe of an agent needs one: without, nobody can connect and nothing starts",
    )


def inotify() -> Iterator[Check]:
    low = {}
    for name, wanted in INOTIFY.items():
        try:
            found = int((PROC / name).read_text())
        except (OSError, ValueError):
            continue
        if found < wanted:
            low[name] = (found, wanted)
    if not low:
        yield Check("inotify", "ok", "room for watchers")
        return
    yield Check(
        "inotify",
        "warning",
        ", ".join(f"fs.inotify.{name} is {found}" for name, (found, _) in low.items()),
        "; ".join(f"sysctl -w fs.inotify.{name}={wanted}" for name, (_, wanted) in low.items()),
        "development servers and test runners that agents start watch files, and fail without",
    )
