"""The units of systemd, read by systemd itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kandev_host.cli.app import run

ROOT = Path(__file__).resolve().parents[2]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it is about the service of the machine")


@pytest.fixture(params=["user", "system"])
def unit(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One as `service install` writes it."""
    monkeypatch.setattr(sys, "argv", [str(Path(sys.executable).parent / "kandev-host")])
    monkeypatch.setattr("kandev_host.cli.service.RUNNING", tmp_path / "not-there")
    if request.param == "system":
        assert run(["service", "install", "--system", "--root", str(tmp_path), "--force"]) == 0
        return tmp_path / "etc/systemd/system/kandev-host.service"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert run(["service", "install", "--user"]) == 0
    return tmp_path / "systemd/user/kandev-host.service"


def verify(path: Path, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    scope = ["--user"] if "user" in path.parts else []
    command = ["systemd-analyze", "verify", "--man=no", "--generators=no", *scope, str(path)]
    told = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    return subprocess.run(command, env=told, check=False, capture_output=True, text=True, timeout=60)


def test_systemd_finds_nothing_wrong(unit: Path, tmp_path: Path) -> None:
    done = verify(unit, tmp_path)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_systemd_would_find_a_setting_that_there_is_not(unit: Path, tmp_path: Path) -> None:
    unit.write_text(unit.read_text().replace("OOMPolicy=continue", "OOMPolicy=continues\nDelegates=yes"))
    said = verify(unit, tmp_path).stderr
    assert "continues" in said
    assert "Delegates" in said


def test_the_unit_of_the_machine_is_less_exposed_than_that_of_a_user(tmp_path: Path) -> None:
    """systemd's own measure of what a service could do: 10 is everything."""
    levels = {scope: exposure(ROOT / f"config/systemd/{scope}/kandev-host.service") for scope in ("system", "user")}
    assert levels["system"] < levels["user"]


def exposure(path: Path) -> float:
    command = ["systemd-analyze", "security", "--no-pager", "--offline=yes", str(path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    return float(done.stdout.strip().splitlines()[-1].partition(": ")[2].split()[0])


@as_root
def test_a_jail_can_be_made_under_what_the_unit_of_the_machine_holds_back(tmp_path: Path) -> None:
    """Its mounts and capabilities, made here as systemd makes them; doctor runs a real jail."""
    text = (ROOT / "config/systemd/system/kandev-host.service").read_text()
    assert "\nProtectSystem=full\n" in text
    lines = [line.partition("=~")[2] for line in text.splitlines() if line.startswith("CapabilityBoundingSet=~")]
    gone = ",".join(f"-{name.removeprefix('CAP_').lower()}" for name in " ".join(lines).split())
    script = (
        "set -e; mount --make-rslave /;"
        ' for folder in /usr /boot /etc; do mount --bind "$folder" "$folder"; mount -o remount,bind,ro "$folder"; done;'
        ' ! touch /etc/kandev-test 2>/dev/null; exec setpriv --bounding-set="$0" "$@"'
    )
    host = Path(sys.executable).parent / "kandev-host"
    command = ["unshare", "-m", "sh", "-c", script, gone, host, "doctor", "--json", "--data-dir", tmp_path]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=100)
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["runtime bwrap"]["state"] == "ok", checks["runtime bwrap"]
    assert "mounts: full" in checks["runtime bwrap"]["found"]


def test_the_page_names_every_setting_that_the_unit_of_the_machine_has() -> None:
    page = (ROOT / "docs/service.md").read_text()
    text = (ROOT / "config/systemd/system/kandev-host.service").read_text()
    hardening = text.partition("and these are gone.\n")[2].partition("# Deliberately")[0]
    for line in hardening.splitlines():
        assert f"`{line}`" in page or line.startswith("CapabilityBoundingSet=~"), line


def test_the_page_names_everything_that_is_left_out() -> None:
    page = (ROOT / "docs/service.md").read_text()
    text = (ROOT / "config/systemd/system/kandev-host.service").read_text()
    told = text.partition("# Deliberately")[2].partition("[Install]")[0]
    names = {word.rstrip(",:") for word in told.split() if "=" in word}
    assert names
    assert {name for name in names if f"`{name}`" not in page} == set()
