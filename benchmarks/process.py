"""host_start, cli_start and idle_memory: the host as a process."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

from benchmarks.measure import Measure, Row, both
from benchmarks.servers import bare, environment, host


def command_ms(*command: str) -> Measure:
    def measured() -> float:
        start = time.perf_counter()
        subprocess.run(command, env=environment(), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return (time.perf_counter() - start) * 1e3

    return measured


def host_ready_ms() -> float:
    """From the start of the process until /health answers."""
    start = time.perf_counter()
    with host() as server, urlopen(Request(f"{server.url}/health"), timeout=10) as answer:
        assert answer.status == 200
        return (time.perf_counter() - start) * 1e3


def rss_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1]) / 1024


@contextmanager
def idle() -> Iterator[tuple[Measure, Measure]]:
    with host(), bare("echo"):
        pass  # the first start compiles, and keeps the memory that it needed for that
    with host() as ours, bare("echo") as floor:
        for server in (ours, floor):
            urlopen(f"{server.url}/health", timeout=10).close()
        yield (lambda: rss_mib(ours.pid), lambda: rss_mib(floor.pid))


IMPORTS = "import aiohttp.web, apsw, msgspec"
ROWS = (
    Row(
        "host_start",
        "kandev-host up until /health answers, against importing its libraries",
        "ms",
        "≤ 2",
        both(host_ready_ms, command_ms(sys.executable, "-c", IMPORTS)),
    ),
    Row(
        "cli_start",
        "kandev-host --version against python -c pass",
        "ms",
        "≤ 4",
        both(
            command_ms(str(Path(sys.executable).parent / "kandev-host"), "--version"),
            command_ms(sys.executable, "-c", "pass"),
        ),
    ),
    Row("idle_memory", "resident memory of an idle host against a bare aiohttp application", "MiB", "≤ 1.6", idle),
)
