"""A third party's agent: its own distribution, installed beside the host, found by its entry point, and run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HELLO = Path(__file__).parent / "kandev_hello"


def run(*command: str, cwd: Path, **env: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **env}, check=False, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a fresh environment with the host and the plugin, each from a clean copy of its sources."""
    folder = tmp_path_factory.mktemp("third-party")
    names = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / "source" / name)
    run(sys.executable, "-m", "venv", str(folder / "venv"), cwd=folder)
    bin_folder = folder / "venv/bin"
    what = (f"kandev-host[standard] @ {(folder / 'source').as_uri()}", str(HELLO))
    if uv := shutil.which("uv", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))):
        run(uv, "pip", "install", "--quiet", "--python", str(bin_folder / "python"), *what, cwd=folder)
    else:
        run(str(bin_folder / "python"), "-m", "pip", "install", "--quiet", *what, cwd=folder)
    return bin_folder


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "README.md").write_text("# A project\n")
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")
    for arguments in (("init", "-q", "-b", "main"), ("add", "-A"), (*identity, "commit", "-qm", "first")):
        run("git", *arguments, cwd=folder)
    return folder


def test_the_plugin_is_fourteen_lines_of_code_or_less() -> None:
    lines = (HELLO / "kandev_hello.py").read_text().splitlines()
    assert len([line for line in lines if line.strip()]) <= 14


def test_the_installed_plugin_is_listed_with_its_distribution(scripts: Path, tmp_path: Path) -> None:
    listed = run(str(scripts / "kandev-host"), "plugins", "--json", cwd=tmp_path, KANDEV_HOME=str(tmp_path / "data"))
    (plugin,) = (entry for entry in json.loads(listed)["plugins"] if entry["name"] == "hello")
    assert (plugin["distribution"], plugin["version"]) == ("kandev-hello", "1.0")
    assert (plugin["state"], plugin["provides"]["agent"]) == ("active", ["hello"])


def test_its_agent_works_on_a_repository(scripts: Path, repository: Path, tmp_path: Path) -> None:
    out = run(
        str(scripts / "kandev-host"), "run", "Greet me", "--agent", "hello", "--repo", str(repository),
        cwd=tmp_path, KANDEV_HOME=str(tmp_path / "data"),
    )  # fmt: skip
    assert "Hello! You said:" in out
    assert "HELLO.txt" in out
    assert not (repository / "HELLO.txt").exists()
