from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from kandev_sandbox import amounts

ROOT = Path(__file__).resolve().parents[2]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: --own")


def cli(*arguments: str, cwd: Path = ROOT, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "sandbox"), *filter(None, sys.path)])}
    command = [*before, sys.executable, "-m", "kandev_sandbox", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=cwd, timeout=90, check=False)


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


@as_root
@pytest.mark.parametrize(
    "wrong",
    [
        ("--allow", "pypi.org"),
        ("--network", "allowlist", "--allow", "?"),
        ("--ro", "/nowhere/at/all"),
        ("--protect", "missing"),
        ("--memory", "1"),
        ("--env", "=v"),
    ],
    ids=" ".join,
)
def test_nothing_changes_hands_for_an_option_that_is_wrong(tmp_path: Path, wrong: tuple[str, ...]) -> None:
    assert cli("run", "--own", *wrong, "--", "true", cwd=tmp_path).returncode == 125
    assert tmp_path.stat().st_uid == 0


@as_root
def test_nothing_changes_hands_for_a_command_that_is_not_there(tmp_path: Path) -> None:
    assert cli("run", "--own", "--", "no-such-command", cwd=tmp_path).returncode == 125
    assert tmp_path.stat().st_uid == 0


def test_the_version_is_that_of_the_package() -> None:
    done = cli("--version")
    assert (done.returncode, done.stdout) == (0, f"kandev-sandbox {version('kandev-host')}\n")


@pytest.mark.parametrize("hidden", ["true", "chmod 0 /workspace", "exec 3< file; rm file"])
def test_a_disk_limit_ends_the_command_and_is_told(folder: Path, hidden: str) -> None:
    script = f"head -c 3000000 /dev/zero > file; {hidden}; sleep 60"
    done = cli("run", "--disk", "2m", "--", "sh", "-c", script, cwd=folder)
    folder.chmod(0o700)
    assert done.returncode == 137
    assert "disk limit of 2.0 MiB" in done.stderr


def test_a_folder_that_holds_too_much_already_starts_nothing(folder: Path) -> None:
    (folder / "file").write_bytes(b"x" * 3_000_000)
    done = cli("run", "--disk", "2m", "--", "touch", "made", cwd=folder)
    assert done.returncode == 125
    assert "fix: allow more, or delete some of it" in done.stderr
    assert not (folder / "made").exists()


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


def test_a_time_limit_ends_the_command_and_is_told(folder: Path) -> None:
    done = cli("run", "--timeout", "0.2", "--", "sleep", "60", cwd=folder)
    assert done.returncode == 137
    assert "time limit" in done.stderr


def test_a_memory_limit_holds(folder: Path) -> None:
    """By a control group, or else for each process by its own limit."""
    script = "x = bytearray(400 << 20); x[::4096] = b'x' * len(x[::4096]); print('had it all')"
    done = cli("run", "--memory", "100m", "--", "/usr/bin/python3", "-c", script, cwd=folder)
    assert done.returncode != 0
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("flag", "value", "words"), [("--memory", "much", "512m"), ("--timeout", "soon", "90s"), ("--pids", "1", "or more")]
)
def test_an_amount_that_is_none_is_refused_with_an_example(folder: Path, flag: str, value: str, words: str) -> None:
    done = cli("run", flag, value, "--", "true", cwd=folder)
    assert done.returncode != 0
    assert words in done.stderr


@pytest.mark.parametrize(("text", "found"), [("4096", 4096), ("1k", 1024), ("1.5g", 3 << 29), ("2GiB", 2 << 30)])
def test_sizes_are_read_in_binary_units(text: str, found: int) -> None:
    assert amounts.size(text) == found


def test_a_protected_path_cannot_be_changed(folder: Path) -> None:
    (folder / "kept").write_text("kept")
    (folder / "kept").chmod(0o666)
    done = cli("run", "--protect", "kept", "--", "sh", "-c", "echo x > kept", cwd=folder)
    assert done.returncode != 0
    assert (folder / "kept").read_text() == "kept"


def test_gits_configuration_opens_only_when_told_to(folder: Path) -> None:
    subprocess.run(["git", "init", "-q", folder], check=True, timeout=90)
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", "70001:70001", folder], check=True, timeout=90)
    command = ("--", "git", "config", "a.b", "c")
    assert cli("run", *command, cwd=folder).returncode != 0
    assert cli("run", "--no-pin-git", *command, cwd=folder).returncode == 0


@pytest.mark.parametrize("option", ["--ro", "--protect"])
def test_a_path_that_is_not_there_is_not_left_out_silently(folder: Path, option: str) -> None:
    done = cli("run", option, "missing", "--", "true", cwd=folder)
    assert done.returncode == 125
    assert f"{option} missing" in done.stderr


def test_a_link_is_not_protected_silently(folder: Path) -> None:
    (folder / "there").touch()
    (folder / "link").symlink_to("there")
    assert cli("run", "--protect", "link", "--", "true", cwd=folder).returncode == 125


def test_a_workspace_that_is_missing_ends_with_125_and_the_fix(folder: Path) -> None:
    done = cli("run", "--workspace", "missing", "--", "true", cwd=folder)
    assert done.returncode == 125
    assert done.stderr.splitlines()[1] == f"fix: create it: mkdir -p {folder}/missing"


def test_a_variable_that_the_caller_does_not_have_stays_unset(folder: Path) -> None:
    assert cli("run", "--env", "NO_SUCH", "--", "sh", "-c", "echo ${NO_SUCH-unset}", cwd=folder).stdout == "unset\n"


def test_options_of_the_command_without_two_dashes_are_told_of_them(folder: Path) -> None:
    done = cli("run", "ls", "-la", cwd=folder)
    assert done.returncode == 2
    assert "write -- before the command" in done.stderr


def test_a_word_before_the_options_is_told_where_they_belong(folder: Path) -> None:
    done = cli("run", "folder", "--timeout", "1m", "--", "ls", cwd=folder)
    assert done.returncode == 2
    assert "the options of run before that" in done.stderr


@as_root
def test_root_without_the_capability_to_set_limits_sets_them_too(folder: Path) -> None:
    """As root of most containers: CAP_SYS_RESOURCE."""
    without = ("setpriv", "--bounding-set=-sys_resource", "--")
    done = cli("run", "--", "sh", "-c", "ulimit -Hn; ulimit -Hc", cwd=folder, before=without)
    assert done.stdout.split() == ["4096", "0"], done.stderr
