"""jail_beside_container: the same through both runtimes of the host, kandev_bwrap and kandev_docker, in turn.

Ours is the jail, the floor a container of a real engine: the one whose socket KANDEV_BENCH_DOCKER_SOCKET names, else a
dockerd that is started for the time. Its image is the lean one (config/images/lean), made of this machine's packages.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import kandev_bwrap
import kandev_docker
from benchmarks.measure import Measure, Row
from benchmarks.shell import SOCKET
from kandev_host import Environment, Process, ProcessSpec, Runtime
from kandev_sandbox.processes import children, parent_of

GROUP = "jail_beside_container"
IMAGE = "kandev-bench-base"
SPAWNS, COMMANDS, TURNS, AGENTS = 10, 100, 200, 5
LEAN = Path(__file__).parents[1] / "config/images/lean"
LEAN_S = 600
PYTHON = "/usr/bin/python3"  # Debian's, in both
# As little of an agent as answers prompts.
AGENT = """
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    told = {"jsonrpc": "2.0", "id": asked["id"], "result": {"stopReason": "end_turn"}}
    print(json.dumps(told), flush=True)
"""
Measured = Callable[[Runtime], Awaitable[float]]


@cache
def engine() -> str:
    """The socket of the engine, which has the image."""
    socket = os.environ.get(SOCKET)
    if socket is None:
        from tests.docker.dockerd import Dockerd

        own = Dockerd()
        atexit.register(own.close)
        own.start()
        socket = own.socket
    there = subprocess.run(
        ["curl", "-sf", "--unix-socket", socket, f"http://docker/images/{IMAGE}/json"], check=False, capture_output=True
    )
    if there.returncode != 0:
        command = [sys.executable, LEAN, "--cache", Path.home() / ".cache/kandev-bench/lean", "--tag", IMAGE]
        command += ["--engine", f"unix://{socket}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=LEAN_S)
    return socket


def missing() -> str | None:
    if os.geteuid() != 0:
        return "this needs root, as the engine does"
    if shutil.which("bwrap") is None or not os.access(PYTHON, os.X_OK):
        return f"bubblewrap or {PYTHON} is not installed"
    return None if os.environ.get(SOCKET) or shutil.which("dockerd") else "dockerd is not installed"


@asynccontextmanager
async def opened(kind: str, folder: Path) -> AsyncIterator[Runtime]:
    """The runtime with a place, and with what its first start leaves warm."""
    home = Environment(str(folder / kind), "0")
    settings: Any
    if kind == "jail":
        (provider, *_), settings = kandev_bwrap.kandev_runtimes(), kandev_bwrap.BwrapSettings()
    else:
        (provider, *_) = kandev_docker.kandev_runtimes()
        settings = kandev_docker.DockerSettings(socket=engine(), image=IMAGE, pull="never")
    async with provider.open(settings, home) as runtime:
        await runtime.prepare("w1")
        await runtime.run(spec("true"))
        yield runtime


def spec(*command: str) -> ProcessSpec:
    return ProcessSpec(workspace_id="w1", command=command)


def both(measured: Measured) -> Callable[[], Any]:
    @contextmanager
    def setup() -> Iterator[tuple[Measure, Measure]]:
        with tempfile.TemporaryDirectory(prefix="kandev-bench-") as folder:
            Path(folder).chmod(0o711)

            async def once(kind: str) -> float:
                async with opened(kind, Path(folder)) as runtime:
                    return await measured(runtime)

            yield (lambda: asyncio.run(once("jail")), lambda: asyncio.run(once("container")))

    return setup


async def spawn_ms(runtime: Runtime) -> float:
    times = []
    for _ in range(SPAWNS):
        start = time.perf_counter()
        async with runtime.spawn(spec("true")) as process:
            await process.wait()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


async def command_us(runtime: Runtime) -> float:
    times = []
    async with runtime.open_shell(spec("/bin/sh")) as shell:
        await shell.run(":")
        for _ in range(COMMANDS):
            start = time.perf_counter()
            await shell.run(":")
            times.append((time.perf_counter() - start) * 1e6)
    return statistics.median(times)


async def asked(process: Process, number: int) -> None:
    """A prompt, until the whole line of its answer is there."""
    request = {"jsonrpc": "2.0", "id": number, "method": "session/prompt", "params": {"sessionId": "s", "prompt": []}}
    await process.send(json.dumps(request).encode() + b"\n")
    line = b""
    while not line.endswith(b"\n"):
        more = await process.receive()
        assert more, "the agent ended"
        line += more


async def turn_us(runtime: Runtime) -> float:
    times = []
    async with runtime.spawn(spec(PYTHON, "-c", AGENT)) as process:
        await asked(process, 0)
        for number in range(TURNS):
            start = time.perf_counter()
            await asked(process, number)
            times.append((time.perf_counter() - start) * 1e6)
    return statistics.median(times)


async def idle_mib(runtime: Runtime) -> float:
    """What an agent that waits for its next prompt has added to the processes around it, itself among them."""
    before = pss_mib(around([]))
    async with AsyncExitStack() as stack:
        agents = []
        for _ in range(AGENTS):
            agents.append(await stack.enter_async_context(runtime.spawn(spec(PYTHON, "-c", AGENT))))
            await asked(agents[-1], 0)
        return (pss_mib(around(agents)) - before) / AGENTS


def around(agents: list[Any]) -> set[int]:
    """This process and its children, which are the jails; the engine and its own; the shims of the containers."""
    roots = {os.getpid(), *engine_pids()}
    for agent in agents:
        init = getattr(agent, "init", None)
        shim = None if init is None else parent_of(init.pid)
        roots |= {shim} if shim is not None else set()
    found: set[int] = set()
    while roots:
        pid = roots.pop()
        if pid not in found:
            found.add(pid)
            roots |= set(children(pid))
    return found


@cache
def engine_pids() -> tuple[int, ...]:
    import socket
    import struct

    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(engine())
        pid, _, _ = struct.unpack("3i", asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return (pid,) if pid > 0 else ()


def pss_mib(pids: set[int]) -> float:
    """Their memory; what several share counts in parts."""
    kib = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        kib += int(next(line for line in lines if line.startswith("Pss:")).split()[1])
    return kib / 1024


ROWS = (
    Row(f"{GROUP}_spawn", "true, from asking until nothing is left", "ms", "≤ 0.2", both(spawn_ms), missing),
    Row(f"{GROUP}_command", "`:` in a warm shell", "µs", "≤ 1", both(command_us), missing),
    Row(f"{GROUP}_acp", "a prompt to an agent, and its answer", "µs", "≤ 1", both(turn_us), missing),
    Row(
        f"{GROUP}_memory",
        "memory that an idle agent adds, all processes around it",
        "MiB",
        "≤ 1",
        both(idle_mib),
        missing,
    ),
)
