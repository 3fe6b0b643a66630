"""jail_spawn: the full profile of kandev_sandbox running `true`, against bare bwrap with the same mounts.

As root both sides drop to the jail's uid, ours through a staged namespace; as an ordinary user neither does.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measure import Measure, Row
from kandev_sandbox import Bwrap, Policy, examine, open_jail
from kandev_sandbox.argv import Descriptors, environment, options
from kandev_sandbox.layout import Layout

SPAWNS = 30
SRT_SPAWNS = 5
UID = 1_999_999_999
TRUE = "/usr/bin/true"


async def jail_ms(policy: Policy, bwrap: Bwrap) -> float:
    """Median milliseconds from asking for a jail until its command has ended and nothing is left."""
    times = []
    for _ in range(SPAWNS):
        start = time.perf_counter()
        async with open_jail(policy, [TRUE], bwrap=bwrap) as jail:
            await jail.wait()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def bare_ms(policy: Policy, bwrap: Bwrap) -> float:
    """The same from a plain `subprocess.run` of bwrap: no filter, no limits, no record, no hold, no guardian."""
    folders = [folder for folder in (policy.workspace, policy.home, policy.tmp) if folder is not None]
    sources = {folder: str(folder) for folder in folders}
    arguments = options(policy, Layout.detect(), sources, Descriptors(0, 0, 0, {}), env=environment(policy, {}))
    arguments = arguments[: arguments.index("--seccomp")]
    command = [*dropping(policy), str(bwrap.path), *arguments, "--", TRUE]
    times = []
    for _ in range(SPAWNS):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def dropping(policy: Policy) -> list[str]:
    """As root, bwrap is not run as root: here with setpriv(1), as one would by hand."""
    if policy.uid is None:
        return []
    return ["setpriv", f"--reuid={policy.uid}", f"--regid={policy.uid}", "--clear-groups", "--"]


@contextmanager
def opened() -> Iterator[tuple[Measure, Measure]]:
    bwrap = asyncio.run(examine()).chosen()
    with tempfile.TemporaryDirectory(prefix="kandev-bench-") as folder:
        Path(folder).chmod(0o711)  # so that the floor's dropped uid reaches them; ours would without
        places = [Path(folder) / name for name in ("workspace", "home", "tmp")]
        root = os.geteuid() == 0
        for place in places:
            place.mkdir()
            if root:
                os.chown(place, UID, UID)
        workspace, home, tmp = places
        policy = Policy(workspace=workspace, home=home, tmp=tmp, uid=UID if root else None)
        yield (lambda: asyncio.run(jail_ms(policy, bwrap)), lambda: bare_ms(policy, bwrap))


def srt_ms() -> float:
    """Anthropic's sandbox-runtime (npm), with its own settings."""
    times = []
    with tempfile.TemporaryDirectory(prefix="kandev-bench-") as folder:
        env = os.environ | {"TMPDIR": folder}  # each run leaves a socket there
        for _ in range(SRT_SPAWNS):
            start = time.perf_counter()
            subprocess.run(["srt", TRUE], check=True, stdin=subprocess.DEVNULL, capture_output=True, env=env)
            times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


@contextmanager
def against_srt() -> Iterator[tuple[Measure, Measure]]:
    with opened() as (ours, _):
        yield ours, srt_ms


def without_srt() -> str | None:
    """`npm install @anthropic-ai/sandbox-runtime`, and its bin folder in PATH; it needs socat and ripgrep."""
    return None if shutil.which("srt") else "srt is not installed"


ROWS = (
    Row(
        "jail_spawn",
        "the full profile running true, against bare bwrap with the same mounts, as the same user",
        "ms",
        "≤ 1.3",
        opened,
    ),
    Row("jail_vs_srt", "the same against srt (npm) running true", "ms", "≤ 0.1", against_srt, without_srt),
)
