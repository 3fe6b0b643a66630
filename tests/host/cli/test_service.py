"""`kandev-host service`: what it writes, what it asks systemd, and what it leaves alone."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from kandev_host.cli import service
from kandev_host.cli.app import run

FAKE = """#!/bin/sh
echo "$@" >> {log}
case "$*" in
  *is-enabled*) echo enabled;;
  *is-active*) echo {active}; exit {code};;
esac
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("KANDEV_HOME", raising=False)
    monkeypatch.delenv("KANDEV_CONFIG", raising=False)
    monkeypatch.setattr(service, "RUNNING", tmp_path / "not-there")
    return tmp_path


@pytest.fixture
def unit(home: Path) -> Path:
    return home / "config/systemd/user/kandev-host.service"


@pytest.fixture
def systemd(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A manager that runs, and writes down what it is asked."""
    log = home / "asked"
    log.touch()
    (home / "bin").mkdir()
    program = home / "bin" / "systemctl"
    program.write_text(FAKE.format(log=log, active="active", code=0))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(service, "RUNNING", home)
    return log


def asked(log: Path) -> list[str]:
    lines = log.read_text().splitlines()
    log.write_text("")
    return lines


def test_a_unit_of_the_user_is_written_and_started(unit: Path, systemd: Path) -> None:
    assert run(["service", "install", "--user"]) == 0
    assert "Delegate=cpu memory pids\n" in unit.read_text()
    assert asked(systemd) == [
        "--user daemon-reload",
        "--user enable kandev-host.service",
        "--user restart kandev-host.service",
    ]


def test_a_second_time_nothing_is_written_or_restarted(unit: Path, systemd: Path) -> None:
    run(["service", "install", "--user"])
    asked(systemd)
    before = unit.stat()
    assert run(["service", "install", "--user"]) == 0
    assert unit.stat() == before
    assert asked(systemd)[-1] == "--user start kandev-host.service"


def test_it_starts_the_command_that_was_called(unit: Path, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    program = home / "bin%" / "kandev-host"
    program.parent.mkdir()
    program.touch(mode=0o755)
    monkeypatch.setattr(sys, "argv", [str(program)])
    run(["service", "install", "--user", "--config", str(home / "my team.toml"), "--data-dir", str(home / "data")])
    wanted = f'ExecStart={home}/bin%%/kandev-host up "--config={home}/my team.toml" --data-dir={home}/data\n'
    assert wanted in unit.read_text()


def test_it_has_the_places_that_the_environment_names(
    unit: Path, monkeypatch: pytest.MonkeyPatch, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KANDEV_HOME", str(home / "mine"))
    monkeypatch.setenv("KANDEV_CONFIG", str(home / "mine.toml"))
    monkeypatch.setenv("KANDEV_SERVER__PORT", "9000")
    run(["service", "install", "--user"])
    assert f" up --config={home}/mine.toml --data-dir={home}/mine\n" in unit.read_text()
    assert "KANDEV_SERVER__PORT" in capsys.readouterr().err
    run(["service", "install", "--user", "--data-dir", str(home / "other")])
    assert f"--data-dir={home}/other\n" in unit.read_text()
    run(["service", "install", "--system", "--root", str(home), "--force"])
    assert f"--data-dir={home}/mine" in capsys.readouterr().err
    assert "StateDirectory=kandev-host\n" in (home / "etc/systemd/system/kandev-host.service").read_text()


def test_what_was_changed_is_kept(unit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["service", "install", "--user"])
    changed = unit.read_text().replace("RestartSec=2", "RestartSec=9")
    unit.write_text(changed)
    assert run(["service", "install", "--user"]) == 1
    assert run(["service", "uninstall", "--user"]) == 1
    assert "--force" in capsys.readouterr().err
    assert unit.read_text() == changed


def test_what_somebody_else_wrote_is_kept(unit: Path) -> None:
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\nExecStart=/bin/true\n")
    assert run(["service", "install", "--user"]) == 1
    assert unit.read_text() == "[Service]\nExecStart=/bin/true\n"


def test_force_writes_over_what_was_changed(unit: Path) -> None:
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\n")
    assert run(["service", "install", "--user", "--force"]) == 0
    assert "ExecStart=" in unit.read_text()


def test_what_an_older_version_wrote_is_replaced(unit: Path, home: Path) -> None:
    run(["service", "install", "--user", "--data-dir", str(home / "old")])
    assert run(["service", "install", "--user"]) == 0
    assert str(home / "old") not in unit.read_text()


def test_a_dry_run_shows_the_unit_and_changes_nothing(
    unit: Path, systemd: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["service", "install", "--user", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert f"Would write {unit}\n" in shown
    assert "Would run systemctl --user enable kandev-host.service\n" in shown
    assert "\n[Service]\n" in shown
    assert not unit.exists()
    assert asked(systemd) == []


def test_json_tells_every_step(unit: Path, systemd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["service", "install", "--user", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["unit"], told["scope"], told["was"]) == (str(unit), "user", "missing")
    assert told["steps"][0] == f"Write {unit}"


def test_where_systemd_does_not_run_the_unit_is_only_written(unit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["service", "install", "--user"]) == 0
    assert unit.exists()
    assert "systemd does not run here" in capsys.readouterr().out


def test_what_systemd_says_against_it_is_told(
    unit: Path, systemd: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "bin" / "systemctl").write_text("#!/bin/sh\necho 'Failed to connect to bus' >&2\nexit 1\n")
    assert run(["service", "install", "--user"]) == 1
    assert "systemctl --user daemon-reload: Failed to connect to bus" in capsys.readouterr().err


def test_it_is_stopped_before_its_unit_is_deleted(unit: Path, systemd: Path) -> None:
    run(["service", "install", "--user"])
    asked(systemd)
    assert run(["service", "uninstall", "--user"]) == 0
    assert not unit.exists()
    assert asked(systemd) == ["--user disable --now kandev-host.service", "--user daemon-reload"]
    assert run(["service", "uninstall", "--user"]) == 0


def test_status_tells_whether_it_runs(
    unit: Path, systemd: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["service", "install", "--user"])
    capsys.readouterr()
    assert run(["service", "status", "--user", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["active"] == "active"
    (home / "bin" / "systemctl").write_text(FAKE.format(log=systemd, active="failed", code=3))
    assert run(["service", "status", "--user"]) == 1


def test_status_of_a_unit_that_is_not_there_says_how_to_write_it(
    unit: Path, systemd: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not unit.exists()
    run(["service", "status", "--user"])
    assert "kandev-host service install" in capsys.readouterr().err


def test_the_unit_of_the_machine_keeps_its_data_under_var(home: Path) -> None:
    assert run(["service", "install", "--system", "--root", str(home), "--force"]) == 0
    text = (home / "etc/systemd/system/kandev-host.service").read_text()
    assert "StateDirectory=kandev-host\n" in text


def test_another_data_folder_goes_before_that_under_var(home: Path) -> None:
    run(["service", "install", "--system", "--root", str(home), "--force", "--data-dir", "/srv/kandev"])
    text = (home / "etc/systemd/system/kandev-host.service").read_text()
    assert "StateDirectory" not in text
    assert "KANDEV_HOME" not in text
    assert "up --data-dir=/srv/kandev\n" in text


def test_root_runs_nothing_that_others_can_change(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = home / "kandev-host"
    program.touch()
    program.chmod(0o777)
    monkeypatch.setattr(sys, "argv", [str(program)])
    assert run(["service", "install", "--system", "--root", str(home)]) == 1
    assert "can be changed by others than root" in capsys.readouterr().err
    assert not (home / "etc").exists()


def test_another_root_is_not_for_a_user(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["service", "install", "--user", "--root", str(home)]) == 2
    assert "--system" in capsys.readouterr().err
