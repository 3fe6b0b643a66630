"""Sessions on the command line: options, log-in and log-out of the demo agent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kandev_host.cli.app import run
from kandev_host.models import new_id

Ask = Callable[..., Any]


@pytest.fixture
def ask(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answered: Any) -> Ask:
    monkeypatch.setenv("KANDEV_HOME", str(home))
    monkeypatch.setenv("COLUMNS", "200")

    def asked(*arguments: str) -> Any:
        status = run(arguments)
        return answered(status, *capsys.readouterr())

    return asked


@pytest.fixture
def agent(ask: Ask) -> Iterator[str]:
    """One with its session open: a prompt through `task` has been answered."""
    board = ask("board", "create", f"Board {new_id()}", "--json").json["board"]["id"]
    task = ask("task", "create", "t", "--board", board, "--json").json["task"]["id"]
    id = ask("agent", "launch", task, "--agent", "demo", "--json").json["agent"]["id"]
    while not ask("agent", "session", id, "--json").json["session"]:
        pass  # each asks the host, which answers when it can
    yield id
    ask("agent", "stop", id, "--force")


def test_options_are_shown_and_set(ask: Ask, agent: str) -> None:
    assert "thought_level" in ask("agent", "options", agent).out
    told = ask("agent", "options", agent, "thought_level", "off", "--json").json["options"]
    assert {option["id"]: option["current_value"] for option in told}["thoughts"] == "off"
    wrong = ask("agent", "options", agent, "thoughts", "loud")
    assert (wrong.status, wrong.err) == (1, "kandev-host: The option 'thoughts' is one of on, off\n")


def test_a_mode_that_approves_itself_is_refused_with_what_to_do(ask: Ask, agent: str) -> None:
    done = ask("agent", "options", agent, "mode", "accept-edits")
    assert done.status == 1
    assert "would not ask; use one of ask, read-only. Fix: launch it with the preset unattended" in done.err


def test_a_session_shows_how_to_log_in(ask: Ask, agent: str) -> None:
    done = ask("agent", "session", agent)
    assert "The agent offers session/resume" in done.out
    assert f"Log in (demo): run `kandev-host agent login {agent} demo`" in done.out
    assert "not needed now" in ask("agent", "login", agent).out


def test_an_agent_is_logged_out_and_in(ask: Ask, agent: str) -> None:
    assert ask("agent", "logout", agent).status == 0
    assert ask("agent", "login", agent, "demo").status == 0
    wrong = ask("agent", "login", agent, "other")
    assert (wrong.status, wrong.err) == (1, "kandev-host: No auth method 'other' (known: demo)\n")


def test_an_option_needs_a_value(ask: Ask) -> None:
    assert "Give OPTION a VALUE" in ask("agent", "options", new_id(), "model").err
    assert "OPTION=VALUE" in ask("agent", "options-default", "demo", "model").err


def test_default_options_are_set_and_given_back(ask: Ask) -> None:
    done = ask("agent", "options-default", "demo", "thought_level=off", "mode=read-only")
    assert done.out == "Agent demo: options of new sessions: thought_level=off, mode=read-only\n"
    assert ask("agent", "options-default", "demo").out == "Agent demo: options of new sessions: none\n"


def test_status_says_what_an_agent_may_do_without_asking_and_until_when(ask: Ask, agent: str) -> None:
    assert status(ask, agent) == ("ask", "-")
    task_id = ask("agent", "status", agent, "--json").json["agent"]["task_id"]
    board = ask("task", "show", task_id, "--json").json["task"]["board_id"]
    task = ask("task", "create", "t", "--board", board, "--json").json["task"]["id"]
    loose = ask("agent", "launch", task, "--agent", "demo", "--preset", "unattended", "--json").json["agent"]["id"]
    until = ask("agent", "status", loose, "--json").json["agent"]["preset_expires_at"]
    assert until is not None
    assert status(ask, loose) == ("unattended", until)
    ask("agent", "stop", loose, "--force")


def status(ask: Ask, agent: str) -> tuple[str, str]:
    """The preset and its end, as they are shown."""
    shown = dict(line.split(":", 1) for line in ask("agent", "status", agent).out.splitlines())
    return shown["preset"].strip(), shown["preset_expires_at"].strip()
