"""Processes that are measured: the host as users start it, and the bare servers it is held against."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import aiohttp

UNLIMITED = {"KANDEV_GATEWAY__REQUESTS_PER_S": "1000000", "KANDEV_GATEWAY__REQUEST_BURST": "1000000"}


@cache
def _bytecode() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="kandev-bench-pyc-")


def environment(**more: str) -> dict[str, str]:
    """The caller's, less its KANDEV_ settings, for both sides of a row.

    An installed Python program has its bytecode on the disk. A checkout may have none (PYTHONDONTWRITEBYTECODE, an
    owner other than root), and would be measured compiling: so here all write and read one folder.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KANDEV_")}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    return {**kept, "PYTHONPYCACHEPREFIX": _bytecode().name, **more}


@dataclass(frozen=True)
class Server:
    url: str
    token: str
    pid: int


@contextmanager
def started(command: list[str], env: dict[str, str], home: Path) -> Iterator[Server]:
    """Start it and wait for the line of JSON that tells its address."""
    with (home / "log").open("w") as log:
        process = subprocess.Popen(
            command,
            env=environment(**env),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=Path(__file__).parents[1],
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise RuntimeError((home / "log").read_text())
        token = home / "data/token"
        yield Server(json.loads(line)["url"], token.read_text().strip() if token.exists() else "", process.pid)
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()


@contextmanager
def host(
    config: str = "", env: dict[str, str] | None = None, before: Callable[[Path], None] | None = None
) -> Iterator[Server]:
    """`kandev-host up` on a free port, in a data folder of its own, which `before` may fill."""
    with tempfile.TemporaryDirectory(prefix="kandev-bench-") as folder:
        home = Path(folder)
        if before is not None:
            (home / "data").mkdir(mode=0o700)
            before(home / "data")
        (home / "config.toml").write_text(config)
        command = [
            sys.executable,
            "-m",
            "kandev_host",
            "up",
            "--port",
            "0",
            "--json",
            "--config",
            str(home / "config.toml"),
        ]
        with started(command, {**UNLIMITED, "KANDEV_HOME": str(home / "data"), **(env or {})}, home) as server:
            yield server


@contextmanager
def bare(module: str) -> Iterator[Server]:
    """A floor: `python -m benchmarks.MODULE`, which prints its address."""
    with (
        tempfile.TemporaryDirectory(prefix="kandev-bench-") as folder,
        started([sys.executable, "-m", f"benchmarks.{module}"], {}, Path(folder)) as server,
    ):
        yield server


@asynccontextmanager
async def connected(server: Server) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """One socket, logged in, without compression."""
    headers = {"Authorization": f"Bearer {server.token}"} if server.token else {}
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{server.url}/ws", headers=headers, compress=0) as socket,
    ):
        yield socket
