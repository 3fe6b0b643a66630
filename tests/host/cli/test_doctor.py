"""Each thing that the doctor finds is broken here for real: it says so, and names the remedy."""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kandev_host.cli.checks import Check, folder, looked, machine, network, service
from kandev_host.presence import only_host
from kandev_host.settings.load import Loaded, load


@pytest.fixture
def data(tmp_path: Path) -> Path:
    made = tmp_path / "data"
    made.mkdir(mode=0o700)
    return made


def loaded(data: Path, **flags: Any) -> Loaded:
    return load(data_dir=data, flags={key.replace("__", "."): value for key, value in flags.items()}, environ={})


def the_one(checks: Iterable[Check]) -> Check:
    (found,) = checks
    return found


def wrong(checks: Iterable[Check], state: str, found: str, fix: str) -> None:
    """The one thing found is of this state, says this, and names this remedy and why it matters."""
    check = the_one(checks)
    assert (check.state, found in check.found, fix in (check.fix or "")) == (state, True, True), check
    assert check.why


def test_a_machine_that_is_well_gives_no_finding(data: Path) -> None:
    looks = {**folder.looks(loaded(data)), **network.looks(loaded(data, server__port=0))}
    assert [check for check in looked(looks, 60.0) if check.state != "ok"] == []


def test_too_little_room(data: Path) -> None:
    wrong(machine.disk(loaded(data, server__disk_low_bytes=1 << 60)), "warning", "GiB free", "workspace delete")


@pytest.mark.parametrize(
    ("script", "found", "fix"),
    [("echo git version 2.20.1", "older than 2.35", "install git 2.35"), ("exit 3", "does not run", "apt-get install")],
)
def test_git_that_is_old_or_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, found: str, fix: str
) -> None:
    (tmp_path / "git").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setattr(os, "defpath", str(tmp_path))
    wrong(machine.git(), "warning", found, fix)


def test_no_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    wrong(machine.git(), "warning", "not in /usr/bin", "apt-get install git")


def test_a_clock_that_went_back(data: Path) -> None:
    (data / "token").touch()
    ahead = time.time() + 3600
    os.utime(data / "token", (ahead, ahead))
    wrong(machine.clock(loaded(data)), "warning", "60 minutes behind", "timedatectl")


def test_few_open_files() -> None:
    # In a process of its own: a hard limit does not come back.
    code = (
        "import resource; from kandev_host.cli.checks import machine;"
        " resource.setrlimit(resource.RLIMIT_NOFILE, (500, 500)); print(*machine.open_files())"
    )
    done = subprocess.run(["python3", "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert "state='warning'" in done.stdout
    assert "LimitNOFILE" in done.stdout
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] != 500


def test_few_watchers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "max_user_watches").write_text("8192\n")
    monkeypatch.setattr(machine, "PROC", tmp_path)
    wrong(machine.inotify(), "warning", "max_user_watches is 8192", "sysctl -w fs.inotify.max_user_watches=65536")


def test_a_settings_file_that_the_group_may_write(data: Path) -> None:
    file = data / "config.toml"
    file.touch()
    assert folder.settings_file(file).state == "ok"
    file.chmod(0o620)
    wrong([folder.settings_file(file)], "warning", "written by the group", f"chmod g-w {file}")


@pytest.mark.skipif(os.geteuid() != 0, reason="files of others need root")
def test_a_settings_file_of_somebody_else(data: Path) -> None:
    file = data / "config.toml"
    file.touch()
    os.chown(file, 12_345, -1)
    wrong([folder.settings_file(file)], "warning", "belongs to uid 12345", f"chown 0 {file}")


def test_a_data_folder_that_others_may_enter(data: Path) -> None:
    data.chmod(0o750)
    wrong(folder.data_folder(loaded(data)), "failed", "0750", f"chmod 700 {data}")


@pytest.mark.parametrize(
    ("name", "fix", "why"),
    [("token", "kandev-host token --rotate", "all that you may"), ("metrics-token", "rm {path}: ", "and nothing else")],
)
def test_a_token_that_others_may_read(data: Path, name: str, fix: str, why: str) -> None:
    path = data / name
    path.write_text("x")
    path.chmod(0o644)
    check = the_one(folder.tokens(loaded(data)))
    wrong([check], "failed", "0644", f"chmod 600 {path}; if somebody else may have read it: {fix.format(path=path)}")
    assert why in (check.why or "")


def test_a_token_that_is_a_link(data: Path) -> None:
    (data / "token").symlink_to("/etc/hostname")
    wrong(folder.tokens(loaded(data)), "failed", "no file of yours", f"rm {data}/token")


def a_database(data: Path) -> Path:
    import anyio

    from kandev_host.interfaces import Environment
    from kandev_sqlite import SqliteSettings, open_store

    async def make() -> None:
        async with open_store(SqliteSettings(), Environment(str(data), "0")):
            pass

    anyio.run(make)
    return data / "kandev.db"


def test_a_database_that_is_damaged(data: Path) -> None:
    path = a_database(data)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(8192))
    wrong(folder.database(loaded(data)), "failed", "", "backup")


def test_a_database_of_a_newer_host(data: Path) -> None:
    path = a_database(data)
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 999")
    db.close()
    wrong(folder.database(loaded(data)), "failed", "999", "upgrade kandev-host")


def test_a_log_that_grew(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = a_database(data)
    monkeypatch.setattr(folder, "LOG_WANTED_BYTES", 100)
    with sqlite3.connect(path) as db:
        db.execute("CREATE TEMP TABLE t (x)")
        db.execute("INSERT INTO meta VALUES ('test', 'x')")
        db.commit()
        wrong(folder.database(loaded(data)), "warning", "write-ahead log", "wal_limit_pages")
    db.close()


def test_backups_that_are_old_and_none_at_all(data: Path) -> None:
    (data / "token").touch()
    old = time.time() - 10 * 86_400
    os.utime(data / "token", (old, old))
    wrong(folder.backups(loaded(data)), "warning", "none in", "kandev-host backup create")
    (data / "backups").mkdir()
    for name in ("kandev-20260101T000000Z.zip", "kandev-20260101T000000Z-1.zip"):
        (data / "backups" / name).touch()
    wrong(folder.backups(loaded(data)), "warning", "no automatic one yet, 2 by hand in", "kandev-host backup create")
    at = datetime.now(UTC) - timedelta(days=5)
    (data / f"backups/kandev-auto-{at:%Y%m%dT%H%M%SZ}.zip").touch()
    wrong(folder.backups(loaded(data)), "warning", "the last one of", "kandev-host backup create")
    wrong(folder.backups(loaded(data, backup__enabled=False)), "warning", "none are made", "[backup] enabled")


def test_databases_that_a_restore_replaced(data: Path) -> None:
    (data / "kandev.db.replaced-20260101T000000Z").write_text("x")
    wrong(folder.left_over(loaded(data)), "warning", "1 files", f"rm {data}/kandev.db.replaced-")


def test_a_port_that_somebody_has(data: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        checks = network.address(loaded(data, server__port=taken.getsockname()[1]))
        wrong(checks, "failed", f"(pid {os.getpid()})", "--port")


def test_an_address_that_others_reach(data: Path) -> None:
    wrong(network.address(loaded(data, server__host="0.0.0.0")), "failed", "loopback", 'host = "127.0.0.1"')


@pytest.mark.parametrize(("days", "state", "found"), [(-2, "failed", "was good until"), (3, "warning", "days more")])
def test_a_certificate_that_ends(data: Path, days: int, state: str, found: str) -> None:
    key, path = data / "key.pem", data / "cert.pem"
    ends = datetime.now(UTC) + timedelta(days=days)
    subject = ["-subj", "/CN=localhost", "-not_before", "20200101000000Z", "-not_after", f"{ends:%Y%m%d%H%M%SZ}"]
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", str(key), "-out", str(path), *subject],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    if made.returncode != 0:  # before OpenSSL 3.4 such times are only for `openssl ca`
        sign(data, key, path, ends)
    key.chmod(0o600)
    flags = {"server__tls_certificate": str(path), "server__tls_key": str(key)}
    wrong(network.certificate(loaded(data, **flags)), state, found, "renew it")
    key.chmod(0o644)
    wrong(network.certificate(loaded(data, **flags)), "failed", "Others may read", "tls_key")


def sign(data: Path, key: Path, path: Path, ends: datetime) -> None:
    """With `openssl ca`, which any version can tell both times."""
    (data / "index").touch()
    (data / "serial").write_text("01\n")
    (data / "ca.cnf").write_text(
        f"[ca]\ndefault_ca = x\n[x]\ndatabase = {data}/index\nserial = {data}/serial\nnew_certs_dir = {data}\n"
        "default_md = sha256\npolicy = p\nunique_subject = no\n[p]\ncommonName = supplied\n"
        "[req]\ndistinguished_name = d\n[d]\n"
    )
    config = ["-config", str(data / "ca.cnf")]
    request = str(data / "request.pem")
    for command in (
        ["req", "-new", "-newkey", "rsa:2048", "-nodes", *config, "-subj", "/CN=localhost", "-keyout", str(key),
         "-out", request],
        ["ca", "-batch", "-selfsign", *config, "-keyfile", str(key), "-in", request, "-out", str(path), "-notext",
         "-startdate", "20200101000000Z", "-enddate", f"{ends:%Y%m%d%H%M%SZ}"],
    ):  # fmt: skip
        subprocess.run(["openssl", *command], check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize(
    ("old", "new", "found", "fix"),
    [
        ("Type=notify", "Type=simple", "was changed by hand", "--force"),
        ("TimeoutStopSec=30", "TimeoutStopSec=5", "TimeoutStopSec=5", "TimeoutStopSec=30"),
    ],
)
def test_a_unit_that_is_another(data: Path, tmp_path: Path, old: str, new: str, found: str, fix: str) -> None:
    from kandev_host.cli.units import unit

    made = unit("system", ["/usr/bin/kandev-host", "up"], data_dir=None, root=tmp_path)
    made.path.parent.mkdir(parents=True)
    made.path.write_text(made.text)
    assert the_one(service.service(loaded(data), tmp_path)).state == "ok"
    made.path.write_text(made.text.replace(old, new))
    wrong(service.service(loaded(data), tmp_path), "warning", found, fix)


def test_a_unit_of_the_user_is_edited_as_such(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kandev_host.cli.units import unit

    monkeypatch.setenv("XDG_CONFIG_HOME", str(data))
    made = unit("user", ["/usr/bin/kandev-host", "up"], data_dir=None, root=data)
    made.path.parent.mkdir(parents=True)
    for old, new in (("Type=notify", "Type=simple"), ("TimeoutStopSec=30", "TimeoutStopSec=5")):
        made.path.write_text(made.text.replace(old, new))
        wrong(service.service(loaded(data), data), "warning", "", "systemctl --user edit kandev-host")


def test_a_unit_of_an_older_version(data: Path, tmp_path: Path) -> None:
    from kandev_host.cli.units import _MARK, _digest, unit

    made = unit("system", ["/usr/bin/kandev-host", "up"], data_dir=None, root=tmp_path)
    made.path.parent.mkdir(parents=True)
    older = made.text.partition("\n")[2].replace("WatchdogSec=60\n", "")
    made.path.write_text(f"{_MARK}{_digest(older)}\n{older}")
    wrong(service.service(loaded(data), tmp_path), "warning", "another version", "kandev-host service install --system")


def test_a_look_that_raises_or_hangs_is_told_and_keeps_no_other_one() -> None:
    def raises() -> list[Check]:
        raise ZeroDivisionError("broken")

    def hangs() -> list[Check]:
        time.sleep(100)
        return []

    found = looked({"a": raises, "b": hangs, "c": lambda: [Check("c", "ok", "well")]}, 0.2)
    assert [(check.name, check.state) for check in found] == [("a", "warning"), ("b", "warning"), ("c", "ok")]
    assert "broken" in found[0].found
    assert "0.2 s" in found[1].found


def test_what_a_host_would_find(kandev: Any, tmp_path: Path) -> None:
    """A workspace whose task is gone, and an agent that somebody wants and cannot have."""
    (tmp_path / "data/workspaces/gone").mkdir(parents=True)
    for path in (tmp_path / "data", tmp_path / "data/workspaces"):
        path.chmod(0o700)
    (tmp_path / "data/config.toml").write_text("[agents.mine]\ncommand = ['/nowhere/mine']\n")
    checks = {check["name"]: check for check in kandev("doctor", "--json").json["checks"]}
    assert checks["workspaces"]["state"] == checks["agent mine"]["state"] == "warning"
    assert f"rm -r {tmp_path}/data/workspaces/gone" in checks["workspaces"]["fix"]
    assert "[agents.mine]" in checks["agent mine"]["why"]
    assert checks["agent mine"]["fix"]


def test_what_keeps_the_doctor_out_of_a_host_that_runs_is_not_mended_by_a_start(ask: Any, home: Path) -> None:
    paths = (home / "token", home / "audit-key")
    for path in paths:
        path.chmod(0o644)
    status, shown = ask("doctor", "--json")
    for path in paths:
        path.chmod(0o600)
    checks = {check["name"]: check for check in json.loads(shown.splitlines()[-1])["checks"]}
    assert status == 1
    assert f"chmod 600 {home}/token" in checks["host"]["found"]
    assert checks["host"]["fix"] == "what it says"
    assert f"{home}/audit-key" in checks["audit"]["found"]
    assert checks["audit"]["fix"].startswith("what it says")


def test_a_host_that_is_only_starting_is_waited_for(kandev: Any, data: Path) -> None:
    with only_host(data):
        host = next(check for check in kandev("doctor", "--json").json["checks"] if check["name"] == "host")
    assert (host["state"], host["found"]) == ("warning", f"the host (pid {os.getpid()}) is starting or stopping")
    assert host["fix"].startswith("wait")


def test_a_plugin_that_is_broken_is_warned_of_once(kandev: Any, tmp_path: Path) -> None:
    info = tmp_path / "site/odd-1.5.dist-info"
    info.mkdir(parents=True)
    (tmp_path / "site/odd.py").write_text("1 / 0\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text("[kandev]\nodd = odd\n")
    done = kandev("doctor", PYTHONPATH=str(tmp_path / "site"))
    assert done.err.count("plugin odd is broken") == 1, done.err
    assert "plugin odd" in done.out


def test_a_secret_that_is_not_there_is_a_finding_and_fails_config_check(kandev: Any, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data/config.toml").write_text(
        '[use]\ntelemetry = ["otel"]\n[telemetry.otel.headers]\nauthorization = "env:NOWHERE"\n'
    )
    why = "telemetry.otel.headers.authorization: NOWHERE holds no value for a header: set that variable for the host"
    checks = {check["name"]: check for check in kandev("doctor", "--json").json["checks"]}
    assert (checks["settings"]["state"], checks["settings"]["found"]) == ("failed", why)
    checked = kandev("config", "check")
    assert (checked.status, why in checked.err) == (1, True)
    assert kandev("config", "check", NOWHERE="Basic abc").status == 0


def test_settings_that_are_wrong_are_a_finding_and_the_rest_is_looked_at(kandev: Any, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data/config.toml").write_text("[server]\nprot = 1\n")
    done = kandev("doctor", "--json")
    checks = {check["name"]: check for check in done.json["checks"]}
    assert (done.status, checks["settings"]["state"]) == (1, "failed")
    assert "line 2: server.prot is not a setting; did you mean server.port?" in checks["settings"]["found"]
    assert "config check" in checks["settings"]["fix"]
    assert checks["data folder"]["state"] == "ok"
