"""What the agent does to the workspace: list, search, read and write files below one root, and run a command."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

FILES_LIMIT = 2000
SEARCHED_LIMIT = 500
HITS_LIMIT = 20
TEXT_LIMIT_BYTES = 256 << 10
OUTPUT_LIMIT_BYTES = 16 << 10
_PASSED_OVER = {"node_modules", "__pycache__", "venv", "target", "dist", "build"}


class ToolError(Exception):
    """A tool could not do it; the text is for the user."""


def resolve(root: Path, path: str) -> Path:
    """The file of this name, links followed. Raises `ToolError` unless it lies below `root`."""
    try:
        real = (root / path).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise ToolError(f"{path}: {error}") from error
    if not real.is_relative_to(root.resolve()):
        raise ToolError(f"{path} is outside of the workspace")
    return real


def files(root: Path) -> list[str]:
    """Files below `root`, sorted, relative; hidden folders and those that hold no sources are passed over."""
    found: list[str] = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _PASSED_OVER)
        found += (os.path.relpath(os.path.join(folder, name), root) for name in sorted(names))
        if len(found) >= FILES_LIMIT:
            break
    return found[:FILES_LIMIT]


def read(root: Path, path: str) -> str:
    """The text of a regular file. Raises `ToolError`: absent, a FIFO, too large, or not UTF-8."""
    target = resolve(root, path)
    try:
        # A FIFO put there meanwhile must not hold the agent up: opened without waiting, and looked at before reading.
        handle = os.open(target, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise ToolError(f"{path}: {error.strerror}") from error
    with open(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise ToolError(f"{path} is not a regular file")
        if status.st_size > TEXT_LIMIT_BYTES:
            raise ToolError(f"{path} is larger than {TEXT_LIMIT_BYTES} bytes")
        try:
            return file.read().decode()
        except UnicodeDecodeError as error:
            raise ToolError(f"{path} is not text") from error


def read_or_none(root: Path, path: str) -> str | None:
    """Like `read`, but None when there is no such file yet."""
    return read(root, path) if resolve(root, path).exists() else None


def search(root: Path, names: Iterable[str], words: Sequence[str]) -> list[tuple[str, int, str]]:
    """Lines that hold one of the words: (file, line from 1, text). Files that cannot be read are passed over."""
    hits: list[tuple[str, int, str]] = []
    for name in list(names)[:SEARCHED_LIMIT]:
        try:
            lines = read(root, name).splitlines()
        except ToolError:
            continue
        for number, line in enumerate(lines, 1):
            if any(word in line.lower() for word in words):
                hits.append((name, number, line.strip()[:120]))
                break
        if len(hits) >= HITS_LIMIT:
            break
    return hits


def write(root: Path, path: str, text: str) -> None:
    """Write the whole file, making its folders. Raises `ToolError`."""
    target = resolve(root, path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ToolError(f"{path}: {error.strerror}") from error


class Command:
    """A shell command that runs, in a process group of its own. `output` is the end of what it printed so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.output = ""

    async def progress(self) -> AsyncIterator[str]:
        """Yield `output` each time there is more."""
        assert self._process.stdout is not None
        kept = b""
        while chunk := await self._process.stdout.read(65536):
            kept = (kept + chunk)[-OUTPUT_LIMIT_BYTES:]
            self.output = kept.decode(errors="replace")
            yield self.output

    async def wait(self) -> int:
        return await self._process.wait()


@asynccontextmanager
async def run(root: Path, command: str) -> AsyncIterator[Command]:
    """Run it with /bin/sh. Leaving the context kills what still runs, which a cancelled turn does."""
    process = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", command, cwd=root, start_new_session=True,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield Command(process)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
