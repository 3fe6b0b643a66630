from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: --own")


def cli(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "sandbox"), *filter(None, sys.path)])}
    command = [sys.executable, "-m", "kandev_sandbox", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=cwd, timeout=30, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "folder"
    path.mkdir()
    if os.geteuid() == 0:
        os.chown(path, 70_001, 70_001)
    return path


def test_run_answers_with_the_commands_exit_code_and_output(folder: Path) -> None:
    done = cli("run", "--", "sh", "-c", "echo out; echo err >&2; touch made; exit 4", cwd=folder)
    assert (done.returncode, done.stdout, done.stderr) == (4, "out\n", "err\n")
    assert (folder / "made").stat().st_uid == folder.stat().st_uid


def test_run_shows_what_it_is_told_to(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "a").write_text("text")
    arguments = ("--ro", str(tmp_path / "lib"), "--env", "K=v", "--", "sh", "-c", f"cat {tmp_path}/lib/a; echo $K")
    assert cli("run", *arguments, cwd=folder).stdout == "textv\n"


def test_a_script_of_the_workspace_runs_from_there(folder: Path) -> None:
    (folder / "go").write_text("#!/bin/sh\npwd\n")
    (folder / "go").chmod(0o755)
    assert cli("run", "--", "./go", cwd=folder).stdout == "/workspace\n"


def test_a_wrong_setting_ends_with_125_and_the_fix(folder: Path) -> None:
    done = cli("run", "--allow", "localhost:1", "--", "true", cwd=folder)
    assert done.returncode == 125
    assert "fix: write it as 127.0.0.1:PORT" in done.stderr


@as_root
def test_roots_own_folder_is_not_given_away_unasked(tmp_path: Path) -> None:
    done = cli("run", "--", "true", cwd=tmp_path)
    assert done.returncode == 125
    assert "--own" in done.stderr
    assert tmp_path.stat().st_uid == 0


def test_doctor_speaks_json(bwrap: object) -> None:
    done = cli("doctor", "--json")
    assert json.loads(done.stdout)["ok"] is True
    assert done.returncode == 0


def test_doctor_without_bwrap_ends_with_1_and_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KANDEV_BWRAP", "/nowhere")
    done = cli("doctor")
    assert done.returncode == 1
    assert "fix: unset KANDEV_BWRAP" in done.stdout


def test_help_shows_examples() -> None:
    assert "kandev-sandbox run --workspace ~/src/app -- npm test" in cli("run", "--help").stdout
