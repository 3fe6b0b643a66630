"""shell_run, shell_run_files, snapshot: what the host does in a workspace around commands and turns, by the socket.

Each against what it would be without: a host that does not look for changed files, and git by hand.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.measure import Measure, Row
from benchmarks.servers import Server, connected, host

RUNS = 30
SNAPSHOTS = 10
FILES = 1000
UNAUDITED = "[shells]\naudit_files = false\n"
MAKE = f"mkdir -p d && cd d && for n in $(seq {FILES}); do echo $n > f$n; done"

Ask = Callable[..., Awaitable[Any]]


def asking(socket: aiohttp.ClientWebSocketResponse) -> Ask:
    """One request at a time; raises for an error."""
    count = 0

    async def ask(action: str, **payload: Any) -> Any:
        nonlocal count
        count += 1
        await socket.send_json({"type": "request", "id": f"{action}-{count}", "action": action, "payload": payload})
        while True:
            reply = await socket.receive_json()
            if reply.get("id") != f"{action}-{count}":
                continue
            if reply["type"] == "error":
                raise RuntimeError(reply)
            return reply["payload"]

    return ask


async def run_ms(server: Server, files: int) -> float:
    """Median milliseconds of `shell.run` of `:` in a warm shell, in a workspace of so many files."""
    async with connected(server) as socket:
        ask = asking(socket)
        shell = (await ask("shell.open"))["shell"]["id"]
        if files:
            await ask("shell.run", shell_id=shell, command=MAKE)
        await ask("shell.run", shell_id=shell, command=":")
        times = []
        for _ in range(RUNS):
            start = time.perf_counter()
            await ask("shell.run", shell_id=shell, command=":")
            times.append((time.perf_counter() - start) * 1e3)
        await ask("shell.close", shell_id=shell)
    return statistics.median(times)


def looked(files: int) -> Callable[[], Any]:
    @contextmanager
    def opened() -> Iterator[tuple[Measure, Measure]]:
        with host() as ours, host(UNAUDITED) as floor:
            yield lambda: asyncio.run(run_ms(ours, files)), lambda: asyncio.run(run_ms(floor, files))

    return opened


async def snapshot_ms(server: Server, task: str, shell: str) -> float:
    """Median milliseconds of a snapshot after one file has changed, as the end of a turn takes it."""
    async with connected(server) as socket:
        ask = asking(socket)
        times = []
        for _ in range(SNAPSHOTS):
            await ask("shell.run", shell_id=shell, command="date +%N >> d/f1")
            start = time.perf_counter()
            await ask("workspace.snapshot", task_id=task)
            times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


async def prepared(server: Server) -> tuple[str, str]:
    """A task with a workspace of a thousand files, and a shell in it."""
    async with connected(server) as socket:
        ask = asking(socket)
        board = (await ask("board.create", name="bench"))["board"]["id"]
        task = (await ask("task.create", board_id=board, title="bench", description=""))["task"]["id"]
        shell = (await ask("shell.open", task_id=task))["shell"]["id"]
        await ask("shell.run", shell_id=shell, command=MAKE)
        await ask("workspace.snapshot", task_id=task)
    return task, shell


def by_hand_ms(folder: Path) -> float:
    """`git add` and `git commit` of the same change, without a jail."""
    times = []
    for _ in range(SNAPSHOTS):
        with (folder / "d/f1").open("a") as file:
            file.write(f"{time.time_ns()}\n")
        start = time.perf_counter()
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "--message=turn")
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def git(folder: Path, *arguments: str) -> None:
    who = ("-c", "user.name=bench", "-c", "user.email=bench@localhost.invalid", "-c", "gc.auto=0")
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


@contextmanager
def snapshots() -> Iterator[tuple[Measure, Measure]]:
    with host(UNAUDITED) as server, tempfile.TemporaryDirectory(prefix="kandev-bench-") as name:
        folder = Path(name)
        subprocess.run(["/bin/sh", "-c", MAKE], cwd=folder, check=True)
        git(folder, "init", "--quiet")
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "--message=start")
        task, shell = asyncio.run(prepared(server))
        yield lambda: asyncio.run(snapshot_ms(server, task, shell)), lambda: by_hand_ms(folder)


ROWS = (
    Row("shell_run", "shell.run of `:`, against a host that does not look for files", "ms", "≤ 1.5", looked(0)),
    Row("shell_run_files", f"the same in a workspace of {FILES:,} files", "ms", "≤ 4", looked(FILES)),
    Row("snapshot", f"one changed file of {FILES:,}, against git add and commit by hand", "ms", "≤ 10", snapshots),
)
