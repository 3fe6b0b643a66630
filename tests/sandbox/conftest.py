from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from kandev_sandbox import Bwrap, Jail, Policy, SandboxError, Uids, inspect, open_jail
from kandev_sandbox.doctor import candidates
from kandev_sandbox.pipes import PipeReader

ROOT = Path(__file__).resolve().parents[2]
AS_ROOT = os.geteuid() == 0
DEADLINE_S = 90


def _usable() -> list[Path]:
    found = []
    for path in candidates():
        try:
            inspect(path)
        except SandboxError:
            continue
        found.append(path)
    return found


@pytest.fixture
def bwraps() -> list[Bwrap]:
    return [inspect(path) for path in _usable()]


@pytest.fixture(params=_usable() or [Path("/usr/bin/bwrap")], ids=str)
def bwrap(request: pytest.FixtureRequest) -> Bwrap:
    return inspect(request.param)


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Sandbox:
    bwrap: Bwrap
    policy: Policy

    @asynccontextmanager
    async def open(self, *command: str, **options: Any) -> AsyncIterator[Jail]:
        names = {name: options.pop(name) for name in list(options) if name in Policy.__dataclass_fields__}
        async with open_jail(replace(self.policy, **names), command, bwrap=self.bwrap, **options) as jail:
            yield jail

    async def run(self, *command: str, **options: Any) -> Done:
        with anyio.fail_after(DEADLINE_S):
            async with self.open(*command, **options) as jail:
                assert jail.stdin is not None
                await jail.stdin.aclose()
                out, err = await everything(jail.stdout), await everything(jail.stderr)
                return Done(await jail.wait(), out.decode(), err.decode())

    async def sh(self, script: str, **options: Any) -> Done:
        return await self.run("/bin/sh", "-c", script, **options)


async def everything(stream: PipeReader | None) -> bytes:
    assert stream is not None
    return b"".join([chunk async for chunk in stream])


@pytest.fixture
def sandbox(bwrap: Bwrap, tmp_path: Path) -> Sandbox:
    folders = [tmp_path / "data" / name for name in ("workspace", "home", "tmp")]
    uid = Uids(tmp_path / "uids").of(folders[0]) if AS_ROOT else None
    for folder in folders:
        folder.mkdir(parents=True, mode=0o700)
        if uid is not None:
            os.chown(folder, uid, uid)
    (tmp_path / "data").chmod(0o700)
    return Sandbox(bwrap, Policy(workspace=folders[0], home=folders[1], tmp=folders[2], uid=uid))


class Watch:
    """Finds processes by a word of their command line, and waits for their end."""

    def pids(self, word: str) -> list[int]:
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    arguments = (entry / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if word.encode() in arguments:
                    found.append(int(entry.name))
        return found

    def ended(self, pids: list[int], timeout_s: float) -> bool:
        for pid in pids:
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            try:
                if not select.select([descriptor], [], [], timeout_s)[0]:
                    return False
            finally:
                os.close(descriptor)
        return True


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def host() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a Python program, as a host that can be killed."""
    started: list[subprocess.Popen[str]] = []

    def start(program: str, *arguments: str) -> subprocess.Popen[str]:
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "sandbox"), *filter(None, sys.path)])}
        process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True, env=env, cwd=ROOT
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.send_signal(signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
