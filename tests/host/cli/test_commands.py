from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kandev_sandbox import cgroups

COMMANDS = ("up", "run", "agent", "plugins", "doctor", "config", "token")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(kandev: Any, command: str) -> None:
    sub = {"config": ("show",), "agent": ("types",)}.get(command, ())
    done = kandev(command, *sub, "--help")
    assert done.status == 0
    assert "kandev-host " in done.out.split("Usage:")[1].split("\n", 1)[1]


def test_a_wrong_command_is_one_line_with_the_way_out(kandev: Any) -> None:
    done = kandev("upp")
    assert done.status == 2
    assert "--help" in done.err


def test_doctor_runs_a_probe_jail(kandev: Any) -> None:
    done = kandev("doctor", "--json", KANDEV_SERVER__PORT="0")
    checks = {check["name"]: check for check in done.json["checks"]}
    assert done.status == 0, done.out
    full = cgroups.here().full
    assert checks["runtime bwrap"]["state"] == ("ok" if full else "warning")
    assert f"limits: {'full' if full else 'partial'}" in checks["runtime bwrap"]["found"]
    assert (checks["runtime bwrap"]["fix"] is None) == full


def test_doctor_fails_and_names_the_fix_when_no_jail_can_be_made(kandev: Any, tmp_path: Path) -> None:
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho bubblewrap 0.9.0\nexit 1\n")
    fake.chmod(0o755)
    done = kandev("doctor", "--json", KANDEV_BWRAP=str(fake))
    checks = {check["name"]: check for check in done.json["checks"]}
    assert done.status == 1
    assert checks["runtime bwrap"]["state"] == "failed"
    assert checks["runtime bwrap"]["fix"]


def test_agents_tells_what_is_missing_and_how_to_get_it(kandev: Any) -> None:
    done = kandev("agent", "types", "--json", PATH="/usr/bin:/bin")
    found = {kind["name"]: kind["availability"] for kind in done.json["agent_types"]}
    assert found["demo"]["ok"]
    assert "npm install" in found["opencode"]["fix"]


def test_an_install_hint_is_one_line_at_a_narrow_terminal(tmp_path: Path) -> None:
    """It can be copied whole."""
    hint = "apt-get install " + " ".join(f"package-{number}" for number in range(20))
    config = tmp_path / "config.toml"
    config.write_text(f'[agents.absent]\ncommand = ["no-such-agent"]\ninstall_hint = "{hint}"\n')
    command = [sys.executable, "-m", "kandev_host", "agent", "types", "--config", str(config)]
    leader, follower = pty.openpty()
    env = {**os.environ, "KANDEV_HOME": str(tmp_path / "data"), "COLUMNS": "80", "TERM": "xterm"}
    with subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=follower) as process:
        os.close(follower)
        shown = b""
        try:
            while read := os.read(leader, 65536):
                shown += read
        except OSError:  # Linux: the other side is closed
            pass
        finally:
            os.close(leader)
        assert process.wait(30) == 0
    assert f"To use absent: {hint}\r\n" in shown.decode()


def test_an_agent_is_added_by_a_table_of_the_settings(kandev: Any, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[agents.mine]\ncommand = ["/usr/bin/cat"]\ndescription = "My own"\n')
    done = kandev("agent", "types", "--json", "--config", str(config))
    assert {kind["name"]: kind["description"] for kind in done.json["agent_types"]}["mine"] == "My own"


def test_a_new_agent_without_a_command_is_refused(kandev: Any, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[agents.mine]\ndescription = "My own"\n')
    done = kandev("config", "check", "--config", str(config))
    assert done.status == 1
    assert "[agents.mine]" in done.err


def test_a_log_in_that_the_agent_does_not_have_cannot_be_shared(kandev: Any, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[agents.claude]\nshare_login = [".ssh"]\n')
    done = kandev("config", "check", "--config", str(config))
    assert done.status == 1
    assert ".ssh" in done.err


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ('[use]\nruntime = "bwarp"', "bwrap"),
        ('[use]\nstore = "postgres"', "sqlite"),
        ('[use]\nauthenticator = "jwt"', "local"),
        ("[runtime.bwrap]\nfast = true", "fast"),
        ("[server]\nprot = 1", "port"),
    ],
)
def test_what_the_settings_get_wrong_is_said_with_the_known(
    kandev: Any, tmp_path: Path, table: str, named: str
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(table + "\n")
    done = kandev("config", "check", "--config", str(config))
    assert done.status == 1
    assert named in done.err
    assert len(done.err.splitlines()) == 1


def test_config_init_writes_a_file_that_config_check_accepts(kandev: Any) -> None:
    assert kandev("config", "init").status == 0
    done = kandev("config", "check", "--json")
    assert done.json["ok"]
    assert done.json["config"].endswith("config.toml")


def test_config_init_never_overwrites(kandev: Any) -> None:
    kandev("config", "init")
    done = kandev("config", "init")
    assert done.status == 1
    assert "exists already" in done.err


def test_config_show_says_where_each_value_comes_from(kandev: Any) -> None:
    done = kandev("config", "show", SERVER_PORT="9090")
    line = next(line for line in done.out.splitlines() if line.startswith("server.port"))
    assert "9090" in line
    assert "SERVER_PORT" in line


def test_config_show_hides_secrets(kandev: Any) -> None:
    done = kandev("config", "show", JWT_SECRET="not-for-your-eyes")
    assert (done.status, "not-for-your-eyes" in done.out, "[redacted]" in done.out) == (0, False, True)


def test_token_is_shown_only_when_asked(kandev: Any, tmp_path: Path) -> None:
    plain = kandev("token")
    secret = (tmp_path / "data/token").read_text().strip()
    assert secret not in plain.out
    assert kandev("token", "--show").out.strip() == secret


def test_rotating_makes_another_token(kandev: Any) -> None:
    before = kandev("token", "--show").out
    rotated = kandev("token", "--rotate", "--show")
    assert rotated.out != before
    assert "old token" in rotated.err


def test_where_there_is_no_audit_yet_there_is_nothing_to_verify(kandev: Any) -> None:
    done = kandev("audit", "verify")
    assert (done.status, "no audit yet" in done.err) == (1, True)


def test_plugins_lists_those_that_are_bundled(kandev: Any) -> None:
    done = kandev("plugins", "--json")
    plugins = {plugin["name"]: plugin for plugin in done.json["plugins"]}
    assert set(plugins) >= {"core", "agents", "bwrap", "prices", "sqlite", "unjailed"}
    assert plugins["bwrap"]["provides"] == {"runtime": ["bwrap"]}
    assert json.dumps(plugins["sqlite"]["distribution"]) == '"kandev-host"'


def test_a_disabled_plugin_is_not_loaded(kandev: Any) -> None:
    done = kandev("plugins", "--json", KANDEV_PLUGINS__DISABLED="agents")
    states = {plugin["name"]: plugin["state"] for plugin in done.json["plugins"]}
    assert states["agents"] != "active"


def test_a_start_on_a_full_disk_says_to_make_room(kandev: Any, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data" / "host.json.new").symlink_to("/dev/full")
    done = kandev("up", "--port", "0")
    assert (done.status, "The disk is full" in done.err, "make room" in done.err) == (1, True, True), done


def test_an_unexpected_error_has_no_trace_unless_debugging(kandev: Any, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")
    done = kandev("up", "--port", "0")
    assert done.status == 1
    assert "Traceback" not in done.err
    assert len(done.err.splitlines()) == 1
