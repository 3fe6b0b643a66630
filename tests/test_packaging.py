"""The wheel, and a plain `pip install .`, give a working `kandev-host`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "kandev_host",
    "kandev_sandbox",
    "kandev_agents",
    "kandev_bwrap",
    "kandev_docker",
    "kandev_otel",
    "kandev_places",
    "kandev_prices",
    "kandev_prometheus",
    "kandev_sqlite",
    "kandev_unjailed",
    "kandev_users",
}
ENTRY_POINTS = {"agents", "bwrap", "otel", "prices", "prometheus", "sqlite", "unjailed", "users"}


def run(*command: str, cwd: Path, **env: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **env}, check=False, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def install(python: Path, *what: str, cwd: Path) -> None:
    if uv := shutil.which("uv"):
        run(uv, "pip", "install", "--quiet", "--python", str(python), *what, cwd=cwd)
    else:
        run(str(python), "-m", "pip", "install", "--quiet", *what, cwd=cwd)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean copy of what git holds, so that nothing of the working folder leaks into the wheel."""
    copy = tmp_path_factory.mktemp("source")
    names = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def built(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-d", str(out), cwd=tree)
    return out


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory, built: Path) -> Path:
    """A fresh environment with the wheel installed, as `pipx install 'kandev-host[standard]'` would."""
    # Not the folder that mktemp makes: that is closed, and the uid of a jail of root's must enter an environment.
    venv = tmp_path_factory.mktemp("installed") / "venv"
    run(sys.executable, "-m", "venv", str(venv), cwd=venv.parent)
    wheel = next(built.glob("*.whl"))
    install(venv / "bin/python", f"kandev-host[standard] @ {wheel.as_uri()}", cwd=venv.parent)
    return venv / "bin/python"


def test_the_wheel_holds_import_packages_of_our_names_only(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        tops = {name.split("/")[0] for name in wheel.namelist()}
    ours = {top for top in tops if not top.endswith(".dist-info")}
    assert ours == PACKAGES


def test_the_wheel_brings_what_its_commands_hand_out(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
    assert {
        "kandev_host/config/images/base/Dockerfile",
        "kandev_host/config/images/lean",
        "kandev_host/config/systemd/user/kandev-host.service",
    } <= names


def test_the_source_distribution_holds_what_the_tests_need(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        names = {name.split("/", 1)[1] for name in sdist.getnames() if "/" in name}
    assert {"LICENSE", "README.md", "tox.ini", "Makefile", "tests/test_packaging.py"} <= names


def test_the_installed_command_tells_its_version(python: Path, tmp_path: Path) -> None:
    out = run(str(python.parent / "kandev-host"), "--version", cwd=tmp_path)
    assert out.strip().startswith("kandev-host 0.")


def test_the_installed_host_finds_every_bundled_plugin(python: Path, tmp_path: Path) -> None:
    out = run(str(python.parent / "kandev-host"), "plugins", "--json", cwd=tmp_path, KANDEV_HOME=str(tmp_path / "data"))
    states = {plugin["name"]: plugin["state"] for plugin in json.loads(out)["plugins"]}
    assert set(states) >= ENTRY_POINTS
    assert {states[name] for name in ENTRY_POINTS} == {"active"}


def test_the_installed_host_runs_the_demo_agent_in_a_jail(python: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    run("git", "init", "-q", str(repository), cwd=tmp_path)
    (repository / "README.md").write_text("# A project\n")
    author = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    run("git", "add", "-A", cwd=repository)
    run("git", *author, "commit", "-qm", "first", cwd=repository)
    out = run(
        str(python.parent / "kandev-host"), "run", "write HELLO.md: hello from the wheel", "--agent", "demo",
        "--repo", str(repository), "--json", "--yes", "--policy", "contained",
        cwd=tmp_path, KANDEV_HOME=str(tmp_path / "data"),
    )  # fmt: skip
    summary = json.loads(out.strip().splitlines()[-1])
    assert summary["result"] == "completed"
    assert "hello from the wheel" in summary["diff"]


def test_an_editable_install_works(tree: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", str(tmp_path / "venv"), cwd=tmp_path)
    python = tmp_path / "venv/bin/python"
    install(python, "-e", str(tree), cwd=tmp_path)
    assert run(str(tmp_path / "venv/bin/kandev-host"), "--version", cwd=tmp_path).startswith("kandev-host 0.")
