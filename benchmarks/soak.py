"""A soak: a real host under a mixed load for as long as KANDEV_SOAK_S says (600 s), in rounds, looked at after each.

python -m benchmarks.soak                     the table; ends with 1 when something leaks
python -m benchmarks.soak --json soak.json    all that was seen, too

Leaks are judged by what is there at rest, between the rounds: descriptors, tasks of the event loop, threads, and
processes. Memory, database and WAL grow with what is stored: their slopes are told, not judged.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

from benchmarks.servers import Server, host
from benchmarks.slopes import Series
from benchmarks.soak_load import Load, make_repository

SOAK_S = float(os.environ.get("KANDEV_SOAK_S", "600"))
ROUND_S = 8.0
LEAST_ROUNDS = 3
# At rest is where a look finds least: what ends by itself, as a kept-alive connection does, has the time to.
LOOKS = 8
LOOK_S = 0.5
UNDER_LOAD_S = 1.0
MIB = 1 << 20
# Unit, and by how much it may rise in a whole run; None is told, not judged.
SERIES = {
    "descriptors": ("", 6.0),
    "tasks": ("", 6.0),
    "threads": ("", 8.0),
    "processes": ("", 2.0),
    "rss": ("MiB", None),
    "database": ("MiB", None),
    "wal": ("MiB", None),
}
CONFIG = '[use]\ntelemetry = ["prometheus"]\n[orchestrator]\nauto_start = false\n'

Look = dict[str, float]


def descendants(pid: int) -> int:
    children = defaultdict(list)
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                stat = (folder / "stat").read_text()
            except OSError:
                continue
            children[int(stat.rpartition(")")[2].split()[1])].append(int(folder.name))
    found = list(children[pid])
    for each in found:
        found += children[each]
    return len(found)


def tasks_of(server: Server) -> float:
    """As the host itself counts them; the request that asks is one of them, each time."""
    request = Request(f"{server.url}/metrics", headers={"Authorization": f"Bearer {server.token}"})
    with urlopen(request, timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    return float(next(line for line in lines if line.startswith("kandev_asyncio_tasks ")).split()[1])


def look(server: Server, home: Path) -> Look:
    process = Path(f"/proc/{server.pid}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    sizes = {file.name: file.stat().st_size for file in home.glob("*.db*")}
    return {
        "tasks": tasks_of(server),
        "descriptors": len(list((process / "fd").iterdir())),
        "threads": int(status["Threads"]),
        "processes": descendants(server.pid),
        "rss": int(status["VmRSS"].split()[0]) * 1024 / MIB,
        "database": sum(size for name, size in sizes.items() if name.endswith(".db")) / MIB,
        "wal": sum(size for name, size in sizes.items() if name.endswith("-wal")) / MIB,
    }


class Soak:
    def __init__(self, server: Server, home: Path, repository: Path) -> None:
        self.server = server
        self.home = home
        self.load = Load(server, repository)
        self.at_rest: list[tuple[float, Look]] = []
        self.most: Look = dict.fromkeys(SERIES, 0.0)

    async def run(self, seconds: float) -> None:
        began = time.monotonic()
        while time.monotonic() - began < seconds or len(self.at_rest) < LEAST_ROUNDS:
            async with asyncio.TaskGroup() as tasks:
                watching = tasks.create_task(self._watch())
                await self.load.round(ROUND_S)
                watching.cancel()
            self.at_rest.append((time.monotonic() - began, await self.rest()))

    async def rest(self) -> Look:
        """The least of each, over some looks."""
        looks = []
        for _ in range(LOOKS):
            await asyncio.sleep(LOOK_S)
            looks.append(await self._look())
        return {name: min(each[name] for each in looks) for name in SERIES}

    async def _look(self) -> Look:
        return await asyncio.to_thread(look, self.server, self.home)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(UNDER_LOAD_S)
            seen = await self._look()
            self.most = {name: max(self.most[name], seen[name]) for name in SERIES}

    def series(self) -> list[Series]:
        return [
            Series(name, unit, [(when, seen[name]) for when, seen in self.at_rest], self.most[name], allowance)
            for name, (unit, allowance) in SERIES.items()
        ]


@contextmanager
def soaking() -> Iterator[Soak]:
    """A host to soak."""
    homes: list[Path] = []
    with tempfile.TemporaryDirectory(prefix="kandev-soak-") as name:
        repository = make_repository(Path(name) / "repository")
        with host(CONFIG, before=homes.append) as server:
            yield Soak(server, homes[0], repository)


def table(series: list[Series]) -> str:
    lines = [
        "| | at rest, median of the first, second and last third | slope per hour | most under load | |",
        "|---|---|---|---|---|",
    ]
    for each in series:
        thirds = ", ".join(f"{value:,.4g}" for value in each.thirds)
        verdict = "LEAKS" if each.leaks else "" if each.allowance is None else "no leak"
        name = f"{each.name} ({each.unit})" if each.unit else each.name
        lines.append(f"| {name} | {thirds} | {each.per_hour:+,.3g} | {each.most:,.4g} | {verdict} |")
    return "\n".join(lines)


def noticed(latencies_s: list[float]) -> str:
    if not latencies_s:
        return "A client beside them was not answered."
    ordered = sorted(latencies_s)
    p50, p99, most = (ordered[min(int(len(ordered) * part), len(ordered) - 1)] * 1e3 for part in (0.5, 0.99, 1.0))
    return f"A healthy client beside them waited {p50:.1f} ms (p50), {p99:.1f} ms (p99), {most:.1f} ms at most."


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=SOAK_S, metavar="N", help=f"default {SOAK_S:g}")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    with soaking() as soak:
        asyncio.run(soak.run(options.seconds))
    series = soak.series()
    print(table(series))
    print(", ".join(f"{count} {name}" for name, count in sorted(soak.load.done.items())) + ".")
    print(noticed(soak.load.latencies_s))
    if options.json is not None:
        seen = {
            "series": [each.plain() for each in series],
            "done": soak.load.done,
            "latencies_s": soak.load.latencies_s,
        }
        options.json.write_text(json.dumps(seen))
    return int(any(each.leaks for each in series))


if __name__ == "__main__":
    sys.exit(main())
