"""Released agents from npm, a fake model server, and a host that runs the agents in its jail, offline."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
CLOSE_TIMEOUT_S = 30


def _module(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# The tests import them by these names.
for _name in ("fake_providers", "fake_models", "released", "runs"):
    _module(_name)


@pytest.fixture(scope="session")
def fake_models() -> Any:
    """The module of the fake model server."""
    return sys.modules["fake_models"]


@pytest.fixture(scope="session")
def models(fake_models: Any) -> Iterator[Any]:
    """The server, on a free port of 127.0.0.1."""
    with fake_models.FakeModels() as server:
        yield server


@pytest.fixture(scope="session")
def programs(npm_folder: Callable[..., Path]) -> Path:
    """The folder of the agents' commands."""
    files = [HERE / "package.json", HERE / "package-lock.json"]
    # Of several workers of pytest, one installs them.
    with (Path(tempfile.gettempdir()) / f"kandev-test-agents-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return npm_folder("agents", files, "ci") / "node_modules/.bin"


@dataclass
class Host:
    """A `kandev-host up`, and what a client needs of it. What it keeps outlives it."""

    data: Path
    url: str = ""
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def token(self) -> str:
        return (self.data / "token").read_text().strip()

    def start(self) -> None:
        command = [sys.executable, "-m", "kandev_host", "up", "--port", "0", "--json"]
        env = {name: value for name, value in os.environ.items() if not name.startswith("KANDEV_")}
        env["KANDEV_HOME"] = str(self.data)
        log = self.data.parent / "host.log"
        with log.open("a") as stderr:
            self.process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=stderr)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, log.read_text()
        self.url = json.loads(line)["url"]

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait(CLOSE_TIMEOUT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture(scope="session")
def new_host(programs: Path, models: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Host]:
    """A host of its own that knows the agents, and does not run yet."""

    def make() -> Host:
        data = tmp_path_factory.mktemp("host") / "data"
        data.mkdir(mode=0o700)
        (data / "config.toml").write_text(sys.modules["released"].settings(programs, models))
        return Host(data)

    return make


@pytest.fixture(scope="session")
def host(new_host: Callable[[], Host]) -> Iterator[Host]:
    """Of all tests that do not harm it."""
    host = new_host()
    host.start()
    yield host
    host.end(signal.SIGTERM)


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make a repository of these files (path → text), committed once."""

    def make(**files: str) -> Path:
        folder = tmp_path_factory.mktemp("repository") / "project"
        for path, text in {"README.md": "# A project\n", **files}.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")
        for arguments in (("init", "-q", "-b", "main"), ("add", "-A"), (*identity, "commit", "-qm", "first")):
            subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)
        return folder

    return make
