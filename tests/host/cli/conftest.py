"""The command line as a user calls it: a process of its own, a data folder of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kandev_host.cli.app import run


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out.splitlines()[-1])


@pytest.fixture
def answered() -> type[Done]:
    return Done


Command = Callable[..., Done]


@pytest.fixture
def kandev(tmp_path: Path) -> Command:
    """Run `kandev-host` with these arguments; `stdin` and more environment by keyword."""

    def run(*arguments: str, stdin: str = "", **env: str) -> Done:
        done = subprocess.run(
            [sys.executable, "-m", "kandev_host", *arguments],
            input=stdin,
            env={**os.environ, "KANDEV_HOME": str(tmp_path / "data"), "COLUMNS": "200", **env},
            cwd=tmp_path,
            check=False,
            capture_output=True,
            text=True,
            timeout=100,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "README.md").write_text("# A project\n")
    author = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    for command in (["init", "-q"], ["add", "-A"], [*author, "commit", "-qm", "first"]):
        subprocess.run(["git", *command], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data folder of a host that runs."""
    folder = tmp_path_factory.mktemp("host")
    settings = {"KANDEV_ORCHESTRATOR__AUTO_START": "false", "KANDEV_ORCHESTRATOR__BACKOFF_S": "0.1"}
    env = {**os.environ, "KANDEV_HOME": str(folder / "data"), **settings}
    command = [sys.executable, "-m", "kandev_host", "up", "--port", "0", "--json"]
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    json.loads(process.stdout.readline())
    yield folder / "data"
    process.terminate()
    process.wait(60)
    process.stdout.close()


@pytest.fixture
def ask(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """A command in this process, with its exit status and what it printed."""
    monkeypatch.setenv("KANDEV_HOME", str(home))

    def ask(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        status = run(list(words))
        shown = capsys.readouterr()
        return status, shown.out + shown.err

    return ask
