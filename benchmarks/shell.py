"""shell_command, shell_fork, output_stream: the persistent jailed shell; shell_vs_docker where docker works.

The floor of shell_command is the naive loop: one unjailed `/bin/sh`, a mark echoed after each command, read from a
pipe. It forks nothing for a builtin, and any hostile command breaks it. shell_fork compares with what each command
really costs: a fresh shell.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.jail import UID
from benchmarks.measure import Measure, Row
from kandev_sandbox import Policy
from kandev_sandbox.shell import Stream
from kandev_sandbox.sync import Shell

COMMANDS = 200
EXECS = 10
BYTES = 100_000_000
IMAGE = "kandev-bench"
# The socket of the Docker daemon to measure, as /run/docker.sock; else the one that `docker` uses by itself.
SOCKET = "KANDEV_BENCH_DOCKER_SOCKET"


def median_us(times: int, once: Callable[[], object]) -> float:
    """Median microseconds of one call."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        once()
        taken.append((time.perf_counter() - start) * 1e6)
    return statistics.median(taken)


@contextmanager
def jailed() -> Iterator[Shell]:
    """A warm shell. Its commands are measured inside its own event loop where that matters."""
    with tempfile.TemporaryDirectory(prefix="kandev-bench-") as folder:
        root = os.geteuid() == 0
        if root:
            os.chown(folder, UID, UID)
        with Shell.under(Policy(workspace=Path(folder), uid=UID if root else None)) as shell:
            shell.run(":")
            yield shell


def commands_us(shell: Shell) -> float:
    """As an asynchronous caller has it: without the hop between two threads of the synchronous twin."""
    portal, inner = shell.inside

    async def measured() -> float:
        taken = []
        for _ in range(COMMANDS):
            start = time.perf_counter()
            await inner.run(":")
            taken.append((time.perf_counter() - start) * 1e6)
        return statistics.median(taken)

    return portal.call(measured)


@contextmanager
def naive() -> Iterator[Callable[[], None]]:
    """One unjailed shell over pipes, and a mark after each command."""
    with subprocess.Popen(["/bin/sh"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def once() -> None:
            stdin.write(b":\necho mark $?\n")
            while not stdout.read(4096).endswith(b"\n"):
                pass

        yield once
        stdin.close()


@contextmanager
def against_naive() -> Iterator[tuple[Measure, Measure]]:
    with jailed() as shell, naive() as once:
        yield (lambda: commands_us(shell), lambda: median_us(COMMANDS, once))


def fresh() -> None:
    subprocess.run(["/bin/sh", "-c", ":"], check=True, stdin=subprocess.DEVNULL, capture_output=True)


@contextmanager
def against_fork() -> Iterator[tuple[Measure, Measure]]:
    with jailed() as shell:
        yield (lambda: commands_us(shell), lambda: median_us(COMMANDS, fresh))


def streamed_mb_s(shell: Shell) -> float:
    """Megabytes a second, each chunk handed to a receiver."""
    portal, inner = shell.inside

    async def measured() -> float:
        size = 0

        async def on_output(stream: Stream, chunk: bytes) -> None:
            nonlocal size
            size += len(chunk)

        start = time.perf_counter()
        await inner.run(f"head -c {BYTES} /dev/zero", on_output=on_output)
        assert size == BYTES
        return BYTES / 1e6 / (time.perf_counter() - start)

    return portal.call(measured)


def piped_mb_s() -> float:
    start = time.perf_counter()
    with subprocess.Popen(["head", "-c", str(BYTES), "/dev/zero"], stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        size = 0
        while chunk := process.stdout.read(65536):
            size += len(chunk)
    assert size == BYTES
    return BYTES / 1e6 / (time.perf_counter() - start)


@contextmanager
def stream() -> Iterator[tuple[Measure, Measure]]:
    with jailed() as shell:
        yield (lambda: streamed_mb_s(shell), piped_mb_s)


def docker(*arguments: str | Path) -> list[str | Path]:
    """A command of the client, to the daemon that is measured."""
    socket = os.environ.get(SOCKET)
    return ["docker", *(("--host", f"unix://{socket}") if socket else ()), *arguments]


def without_docker() -> str | None:
    if shutil.which("docker") is None:
        return "docker is not installed"
    asked = subprocess.run(docker("version"), check=False, capture_output=True, timeout=10)
    return None if asked.returncode == 0 else "no Docker daemon answers"


@contextmanager
def against_docker() -> Iterator[tuple[Measure, Measure]]:
    """A container of nothing but this machine's shell and `true`, made from a tar archive: nothing is fetched."""
    with tempfile.TemporaryDirectory(prefix="kandev-bench-") as folder:
        files = ["/bin/sh", "/bin/true", "/bin/sleep"]
        libraries = subprocess.run(["ldd", *files], check=True, capture_output=True, text=True).stdout.split()
        files += sorted({word for word in libraries if word.startswith("/") and not word.endswith(":")})
        archive = Path(folder, "root.tar")
        subprocess.run(["tar", "-chf", archive, *files], check=True, capture_output=True)
        subprocess.run(docker("import", archive, IMAGE), check=True, capture_output=True)
        started = subprocess.run(
            docker("run", "-d", "--rm", "--network", "none", IMAGE, "/bin/sleep", "600"),
            check=True,
            capture_output=True,
            text=True,
        )
        container = started.stdout.strip()
        try:
            command = docker("exec", container, "/bin/true")
            with jailed() as shell:
                yield (
                    lambda: commands_us(shell),
                    lambda: median_us(EXECS, lambda: subprocess.run(command, check=True, capture_output=True)),
                )
        finally:
            subprocess.run(docker("rm", "-f", container), check=True, capture_output=True)
            subprocess.run(docker("rmi", IMAGE), check=True, capture_output=True)


ROWS = (
    Row(
        "shell_command",
        "`:` in a warm jailed shell, a fresh shell each, against a mark echoed by one unjailed shell",
        "µs",
        "≤ 2",
        against_naive,
    ),
    Row("shell_fork", "the same against subprocess.run of an unjailed sh -c :", "µs", "≤ 1.5", against_fork),
    Row("output_stream", "100 MB out of a jailed shell to a receiver, against a pipe", "MB/s", "≥ 0.3", stream),
    Row(
        "shell_vs_docker",
        "`:` in a warm jailed shell against docker exec CONTAINER true",
        "µs",
        "≤ 0.02",
        against_docker,
        without_docker,
    ),
)
