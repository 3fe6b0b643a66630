"""What an agent may reach, from the command line; and what is shown of it when it asks for more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Asks twice for what it may not reach, and ends.
ASKS = """\
[agents.asks]
command = ["/bin/sh", "-c", "for n in 1 2; do git ls-remote -q https://pypi.org/x; done; exit 3"]
network = "allowlist"
hosts = ["models.example"]

[orchestrator]
attempts = 1
"""


@pytest.fixture
def task(ask: Any) -> str:
    _, board = ask("board", "create", "Network", "--json")
    board_id = json.loads(board)["board"]["id"]
    _, found = ask("task", "create", "A task", "--board", board_id, "--allow", "@npm", "--json")
    task_id: str = json.loads(found)["task"]["id"]
    return task_id


def allowed(ask: Any, task: str) -> list[str]:
    status, shown = ask("task", "allow", task)
    assert status == 0
    return str(shown).splitlines()


def test_what_a_task_allows_is_added_to_shown_and_taken_back(ask: Any, task: str) -> None:
    assert allowed(ask, task) == ["@npm"]
    status, shown = ask("task", "allow", task, "pypi.org", "@npm", "127.0.0.1:5432")
    assert (status, shown.splitlines()[1:]) == (0, ["@npm", "pypi.org", "127.0.0.1:5432"])
    assert ask("task", "allow", task, "@npm", "--remove")[0] == 0
    assert allowed(ask, task) == ["pypi.org", "127.0.0.1:5432"]
    assert ask("task", "update", task, "--allow", "a.example")[0] == 0
    assert allowed(ask, task) == ["a.example"]
    assert ask("task", "allow", task, "--remove")[0] == 0
    assert allowed(ask, task) == ["Nothing of its own: its agents reach what their type may."]


def test_taking_back_what_is_not_there_says_what_is(ask: Any, task: str) -> None:
    status, shown = ask("task", "allow", task, "pypi.org", "--remove")
    assert status == 2
    assert "'pypi.org' is not among them: @npm" in shown


@pytest.mark.parametrize("entry", ["https://pypi.org", "*", "a b", "pypi.org/simple", "@", "a@b", "[::1", "x" * 301])
def test_what_is_no_entry_is_refused_with_the_forms(ask: Any, task: str, entry: str) -> None:
    status, shown = ask("task", "allow", task, entry)
    assert status != 0
    assert "a name, *.name, name:port" in shown or "300" in shown


@pytest.fixture
def asking_host(tmp_path: Path) -> Iterator[None]:
    """A host of the `kandev` commands of this test, with an agent that asks for more than it may reach."""
    config = tmp_path / "asks.toml"
    config.write_text(ASKS)
    env = {**os.environ, "KANDEV_HOME": str(tmp_path / "data")}
    command = [sys.executable, "-m", "kandev_host", "up", "--port", "0", "--json", "--config", str(config)]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        json.loads(process.stdout.readline())
        yield
        process.terminate()
        process.wait(60)


def test_the_hosts_network_is_told_at_the_start(kandev: Any, repository: Path) -> None:
    done = kandev("run", "say: hi", "--agent", "demo", "--repo", str(repository), KANDEV_AGENTS__DEMO__NETWORK="host")
    assert "It has the network of this host, and reaches all that you do." in done.out, done.err


@pytest.mark.usefixtures("asking_host")
def test_a_denial_is_shown_once_with_how_to_allow_it(kandev: Any, repository: Path) -> None:
    done = kandev("run", "Go", "--agent", "asks", "--repo", str(repository), "--allow", "@npm")
    assert "It has the network of this host" not in done.out
    told = [line for line in done.out.splitlines() if "network:" in line]
    assert len(told) == 1, done.out + done.err
    assert "pypi.org:443 is not in the allowlist of this jail; to allow it: kandev-host task allow" in told[0]
    task_id = told[0].split("task allow ")[1].split()[0]
    assert kandev("task", "allow", task_id).out == "@npm\n"
    events = kandev("events")
    shown = [line for line in events.out.splitlines() if "network.decided" in line]
    assert "denied pypi.org:443" in shown[0], events.out + events.err
