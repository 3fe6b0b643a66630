"""Credentials from the command line: which there are, what is missing, and what the settings may not say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

SETTINGS = """\
[credentials.app]
git = "push"
repository = "https://git.example.org/team/app.git"

[credentials.ci]
variables = ["NO_SUCH_VARIABLE"]

[credentials.home]
files = ["~/.no-such-file"]

[agents.demo]
credentials = ["app", "ci", "home"]
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "credentials.toml"
    path.write_text(SETTINGS)
    return str(path)


def test_the_list_of_agents_says_which_way_each_uses(kandev: Any, config: str) -> None:
    done = kandev("agent", "types", "--config", config, "--json")
    (demo,) = [kind for kind in done.json["agent_types"] if kind["name"] == "demo"]
    found = [(each["name"], each["way"], each["verb"], each["missing"]) for each in demo["credentials"]]
    assert found == [
        ("app", "git", "push", None),
        ("ci", "variable", None, "not set for the host"),
        ("home", "file", None, "not there"),
    ]
    shown = kandev("agent", "types", "--config", config, COLUMNS="400").out
    assert "git push of https://git.example.org/team/app.git, variable NO_SUCH_VARIABLE (missing)" in shown


def test_doctor_warns_of_what_is_missing_and_of_files(kandev: Any, config: str) -> None:
    done = kandev("doctor", "--config", config, "--json")
    (check,) = [each for each in done.json["checks"] if each["name"] == "credentials demo"]
    assert check["state"] == "warning"
    assert "NO_SUCH_VARIABLE is not set for the host" in check["fix"]
    assert "what an agent can read it can pass on" in check["fix"]


def test_a_run_says_why_its_credential_cannot_be_had(kandev: Any, config: str, repository: Path) -> None:
    told = ("run", "say: hi", "--agent", "demo", "--repo", str(repository), "--config", config)
    done = kandev(*told)
    assert done.status == 1
    assert "needs the variable NO_SUCH_VARIABLE; set it for the host" in done.out + done.err
    wrong = kandev(*told, "--credential", "ap")
    assert "'ap' is not in the settings" in wrong.out + wrong.err


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ('agent_types = ["a"]', 'one of git = "fetch", variables = [...] or files = [...]'),
        ('git = "fetch"\nvariables = ["A"]', "is one of git"),
        ('git = "clone"', "git"),
        ('variables = ["A"]\nrepository = "https://a.example/b"', "repository goes with git"),
        ('variables = ["KANDEV_TOKEN"]', "none of the host's own"),
        ('variables = ["A=B"]', "name a variable"),
        ('files = ["~/.ssh"]', "a whole folder"),
        ('files = ["/etc/shadow"]', "name files below your home"),
        ('files = ["~/../other/.netrc"]', "name files below your home"),
        ('git = "fetch"\nopen_network = true', "open_network goes with files"),
        ('git = "fetch"\nrepository = "http://a.example/b"', "give the https:// URL"),
        ('git = "fetch"\nrepository = "/srv/b.git"', "this is a folder"),
        ('git = "fetch"\nrepository = "https://me:pw@a.example/b"', "must not hold credentials"),
    ],
)
def test_settings_that_hand_out_too_much_are_refused(kandev: Any, tmp_path: Path, table: str, told: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(f"[credentials.x]\n{table}\n")
    done = kandev("config", "check", "--config", str(path))
    assert done.status == 1
    assert told in done.err
