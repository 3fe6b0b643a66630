"""A real host in a process of its own, as a user starts it."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

AUTHOR = {
    "GIT_AUTHOR_NAME": "Test",
    "GIT_AUTHOR_EMAIL": "test@example.org",
    "GIT_COMMITTER_NAME": "Test",
    "GIT_COMMITTER_EMAIL": "test@example.org",
}


# Of the 10 s in which a host ends; beside others it may take longer.
STOP_S = 60.0


@cache
def bytecode() -> tempfile.TemporaryDirectory[str]:
    """Where all hosts of these tests keep theirs."""
    return tempfile.TemporaryDirectory(prefix="kandev-test-pyc-")


@dataclass
class HostProcess:
    """`kandev-host up` on a free port, with a data folder that outlives it."""

    home: Path
    env: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None
    url: str = ""
    recovered: dict[str, Any] = field(default_factory=dict)

    def start(self) -> None:
        command = [sys.executable, "-m", "kandev_host", "up", "--port", "0", "--json"]
        # Most tests start agents by hand; those of the queue say so.
        by_hand = {"KANDEV_ORCHESTRATOR__AUTO_START": "false", "KANDEV_SERVER__STOP_TIMEOUT_S": str(STOP_S)}
        around = {name: value for name, value in os.environ.items() if not name.startswith("KANDEV_TEST_")}
        # An installed host has its bytecode; one of a checkout may have none, and would be compiled at each start.
        around.pop("PYTHONDONTWRITEBYTECODE", None)
        around["PYTHONPYCACHEPREFIX"] = bytecode().name
        env = {**around, "KANDEV_HOME": str(self.home), **by_hand, **self.env}
        log = (self.home.parent / "host.log").open("a")
        self.process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=log, text=True)
        log.close()
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, (self.home.parent / "host.log").read_text()
        ready = json.loads(line)
        self.url, self.recovered = ready["url"], ready["recovered"]

    @property
    def token(self) -> str:
        return (self.home / "token").read_text().strip()

    def log(self) -> str:
        return (self.home.parent / "host.log").read_text()

    def kill(self) -> None:
        """As a power cut would: no clean-up of any kind."""
        assert self.process is not None
        self.process.kill()
        self.ended(STOP_S)

    def stop(self) -> int:
        if self.process is None or self.process.poll() is not None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        return self.ended(STOP_S)

    def ended(self, timeout_s: float) -> int:
        assert self.process is not None
        assert self.process.stdout is not None
        status = self.process.wait(timeout_s)
        self.process.stdout.close()
        return status


@dataclass(frozen=True)
class SmallDisk:
    """A file system of 16 MiB."""

    folder: Path

    @property
    def _filler(self) -> Path:
        return self.folder / "filler"

    def fill(self) -> None:
        """To its last byte."""
        descriptor = os.open(self._filler, os.O_WRONLY | os.O_CREAT)
        try:
            while True:
                os.write(descriptor, b"x" * 4096)
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017
        finally:
            os.close(descriptor)

    def make_room(self) -> None:
        self._filler.unlink()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    if os.geteuid() != 0:
        pytest.skip("a small file system needs root to be mounted")
    disk = SmallDisk(tmp_path / "disk")
    disk.folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(disk.folder)], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk.folder)], check=True)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[HostProcess]:
    host = HostProcess(tmp_path / "data")
    host.start()
    yield host
    host.stop()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A small repository of a user's, with two commits."""
    folder = tmp_path / "project"
    env = {**os.environ, **AUTHOR, "GIT_CONFIG_GLOBAL": "/dev/null"}

    def git(*arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=folder, env=env, check=True, capture_output=True)

    folder.mkdir()
    git("init", "-q", "-b", "main")
    (folder / "README.md").write_text("# A project\n\nIt greets.\n")
    (folder / "hello.py").write_text("print('hello')\n")
    git("add", "-A")
    git("commit", "-qm", "first")
    (folder / "hello.py").write_text("print('hello, world')\n")
    git("commit", "-qam", "second")
    return folder


MakeHost = Callable[..., HostProcess]


@pytest.fixture(scope="module")
def make_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeHost]:
    """Start a host with these settings (TOML) and this environment; stopped at the module's end."""
    hosts: list[HostProcess] = []

    def make(config: str = "", **env: str) -> HostProcess:
        folder = tmp_path_factory.mktemp("host")
        (folder / "settings.toml").write_text(config)
        host = HostProcess(folder / "data", {"KANDEV_CONFIG": str(folder / "settings.toml"), **env})
        hosts.append(host)
        host.start()
        return host

    yield make
    for host in hosts:
        host.stop()


@pytest.fixture(scope="module")
def one_host(make_host: MakeHost, request: pytest.FixtureRequest) -> HostProcess:
    """One host for all tests of a module; its environment is the module's `HOST_ENV`, if it has one."""
    return make_host(**getattr(request.module, "HOST_ENV", {}))
