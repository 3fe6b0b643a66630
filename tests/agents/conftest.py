"""Released agents from npm, a fake model server, and a host that runs the agents in its jail, offline."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
CLOSE_TIMEOUT_S = 20


def _module(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def fake_models() -> Any:
    """The module of the fake model server."""
    return _module("fake_models")


@pytest.fixture(scope="session")
def models(fake_models: Any) -> Iterator[Any]:
    """The server, on a free port of 127.0.0.1."""
    with fake_models.FakeModels() as server:
        yield server


@pytest.fixture(scope="session")
def programs(npm_folder: Callable[..., Path]) -> Path:
    """The folder of the agents' commands."""
    return npm_folder("agents", [HERE / "package.json"], "install") / "node_modules/.bin"


@dataclass(frozen=True)
class Host:
    """A running `kandev-host up`, and what a client needs of it."""

    url: str
    data: Path

    @property
    def token(self) -> str:
        return (self.data / "token").read_text().strip()


def settings(programs: Path, models: Any) -> str:
    """What a user would write to run the two agents on a model server of this machine."""
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "options": {"baseURL": f"http://{models.address}/v1", "apiKey": "fake"},
        "models": {"m": {"name": "m", "limit": {"context": 200000, "output": 8000}, "cost": {"input": 1, "output": 2}}},
    }
    opencode = {"model": "fake/m", "small_model": "fake/m", "provider": {"fake": provider}}
    return f"""
[agents.opencode]
command = ["{programs}/opencode", "acp"]
allow = ["{models.address}"]
env = {{ OPENCODE_DISABLE_MODELS_FETCH = "1" }}

[agents.opencode.files]
".config/opencode/opencode.json" = '{json.dumps(opencode)}'

[agents.claude]
command = ["{programs}/claude-agent-acp"]
allow = ["{models.address}"]
env = {{ ANTHROPIC_BASE_URL = "http://{models.address}", ANTHROPIC_API_KEY = "fake" }}
"""


@pytest.fixture(scope="session")
def host(programs: Path, models: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    data = tmp_path_factory.mktemp("host") / "data"
    data.mkdir(mode=0o700)
    (data / "config.toml").write_text(settings(programs, models))
    log = data.parent / "host.log"
    command = [sys.executable, "-m", "kandev_host", "up", "--port", "0", "--json"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("KANDEV_")}
    env["KANDEV_HOME"] = str(data)
    with log.open("w") as stderr, subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=stderr) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, log.read_text()
        yield Host(json.loads(line)["url"], data)
        process.send_signal(signal.SIGTERM)
        process.wait(CLOSE_TIMEOUT_S)


@pytest.fixture
def repository(tmp_path: Path) -> Callable[..., Path]:
    """Make a repository of these files (path → text), committed once."""

    def make(**files: str) -> Path:
        folder = tmp_path / "project"
        for path, text in {"README.md": "# A project\n", **files}.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")
        for arguments in (("init", "-q", "-b", "main"), ("add", "-A"), (*identity, "commit", "-qm", "first")):
            subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)
        return folder

    return make
