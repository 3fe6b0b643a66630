"""`agent attach` at a real terminal."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kandev_host.cli.running.commands import understood

from .terminals import at_a_terminal, read_until

Ask = Callable[..., Any]


@pytest.fixture
def ask(kandev: Any, home: Path) -> Ask:
    """A command at the running host; its JSON."""

    def asked(*arguments: str) -> Any:
        done = kandev(*arguments, "--json", KANDEV_HOME=str(home))
        assert done.status == 0, done.err
        return done.json

    return asked


@pytest.fixture
def agent(ask: Ask) -> Iterator[str]:
    """A demo agent that has told a first joke and waits."""
    board = ask("board", "create", "Work")["board"]["id"]
    task = ask("task", "create", "A task", "--board", board)["task"]["id"]
    launched = ask(
        "agent", "launch", task, "--agent", "demo", "--prompt", "say: the first word\nonly", "--preset", "ask"
    )
    identity = launched["agent"]["id"]
    yield identity
    if ask("agent", "status", identity)["status"] in ("PENDING", "STARTING", "RUNNING"):
        ask("agent", "stop", identity, "--force")


def test_what_was_said_is_shown_a_line_is_a_prompt_and_detaching_leaves_the_agent(
    home: Path, agent: str, ask: Ask
) -> None:
    with at_a_terminal(home, "agent", "attach", agent) as (process, leader):
        read_until(leader, "Attached to agent")
        os.write(leader, b"say: a second word\n")
        read_until(leader, "a second word\r\n")
        os.write(leader, b"/detach\n")
        read_until(leader, "Detached.")
        assert process.wait(60) == 0
    assert ask("agent", "status", agent)["status"] == "RUNNING"
    with at_a_terminal(home, "agent", "attach", agent) as (process, leader):
        assert "a second word" in read_until(leader, "Attached to agent")
        os.write(leader, b"\x04")
        read_until(leader, "Detached.")
        assert process.wait(60) == 0


def test_a_permission_is_asked_and_the_answer_counts(home: Path, agent: str) -> None:
    with at_a_terminal(home, "agent", "attach", agent) as (_, leader):
        read_until(leader, "Attached to agent")
        os.write(leader, b"write HELLO.md: hello\n")
        asked = read_until(leader, "Enter rejects")
        number = re.search(r"(\d)\) .*allow_once", asked)
        assert number is not None
        os.write(leader, f"{number[1]}\n".encode())
        read_until(leader, "permission allowed")
        os.write(leader, b"say: it goes on\n")
        read_until(leader, "it goes on")


def test_a_form_is_filled_in(home: Path, agent: str) -> None:
    with at_a_terminal(home, "agent", "attach", agent) as (_, leader):
        read_until(leader, "Attached to agent")
        os.write(leader, b"ask: Which port?\n")
        read_until(leader, "\x1b[1manswer: ")
        os.write(leader, b"8080\n")
        read_until(leader, "Send this to the agent?")
        os.write(leader, b"y\n")
        read_until(leader, "You answered with")
        os.write(leader, b"say: it goes on\n")
        read_until(leader, "it goes on")


def test_ctrl_c_cancels_the_turn_and_twice_detaches(home: Path, agent: str, ask: Ask) -> None:
    with at_a_terminal(home, "agent", "attach", agent) as (process, leader):
        read_until(leader, "Attached to agent")
        os.write(leader, b"sleep 600\n")
        read_until(leader, "plan:")
        process.send_signal(signal.SIGINT)
        read_until(leader, "Ctrl-C again detaches")
        process.send_signal(signal.SIGINT)
        read_until(leader, "Detached.")
        assert process.wait(60) == 0
    assert ask("agent", "status", agent)["status"] == "RUNNING"


def test_stop_ends_the_agent_and_says_how_to_go_on(home: Path, agent: str, ask: Ask) -> None:
    with at_a_terminal(home, "agent", "attach", agent) as (process, leader):
        read_until(leader, "Attached to agent")
        os.write(leader, b"/nonsense\n")
        assert "/cancel" in read_until(leader, "There is no /nonsense")
        os.write(leader, b"/stop\n")
        assert "kandev-host agent resume" in read_until(leader, "agent resume")
        assert process.wait(60) == 0
    assert ask("agent", "status", agent)["status"] == "STOPPED"


def test_an_ended_agent_is_shown_and_left(kandev: Any, home: Path, agent: str, ask: Ask) -> None:
    ask("agent", "stop", agent)
    done = kandev("agent", "attach", agent, KANDEV_HOME=str(home))
    assert done.status == 0
    assert "The agent has ended (STOPPED" in done.out
    assert f"kandev-host agent resume {agent[-8:]}" in done.out


def test_a_prompt_that_an_ended_agent_does_not_get_is_no_success(kandev: Any, home: Path, agent: str, ask: Ask) -> None:
    ask("agent", "stop", agent)
    done = kandev("agent", "attach", agent, stdin="\nAlso update the README\n", KANDEV_HOME=str(home))
    assert (done.status, "Not sent: Also update the README" in done.out) == (1, True)


def test_of_an_agent_that_was_resumed_the_one_that_goes_on_is_named(
    kandev: Any, home: Path, agent: str, ask: Ask
) -> None:
    deadline = time.monotonic() + 60
    while ask("agent", "status", agent)["agent"]["session_id"] is None:  # else there is nothing to go on with
        assert time.monotonic() < deadline
    ask("agent", "stop", agent)
    resumed = ask("agent", "resume", agent)["agent"]["id"]
    done = kandev("agent", "attach", agent, KANDEV_HOME=str(home))
    assert f"kandev-host agent attach {resumed[-8:]}" in done.out
    again = kandev("agent", "resume", agent, KANDEV_HOME=str(home))
    assert (again.status, resumed in again.err) == (1, True)
    late = kandev("agent", "prompt", agent, "too late", KANDEV_HOME=str(home))
    assert (late.status, f"kandev-host agent resume {agent}" in late.err) == (1, True)
    ask("agent", "stop", resumed, "--force")


def test_a_piped_prompt_after_the_end_is_told(kandev: Any, home: Path, agent: str) -> None:
    done = kandev("agent", "attach", agent, stdin="/stop\nsay: too late\n", KANDEV_HOME=str(home))
    assert (done.status, "Not sent: say: too late" in done.out) == (1, True)


@pytest.mark.parametrize("stdin", ["say: from a pipe\n", "say: from a pipe"])
def test_a_pipe_may_type_too(kandev: Any, home: Path, agent: str, stdin: str) -> None:
    done = kandev("agent", "attach", agent, stdin=stdin, KANDEV_HOME=str(home))
    assert done.status == 0, done.err
    assert "Detached." in done.out


def waited_for(pid: int) -> list[str]:
    """What the threads of a process wait for in the kernel."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/wchan"):
        try:
            found.append(path.read_text())
        except OSError:  # a thread that has just ended waits for nothing
            continue
    return found


def test_no_thread_waits_for_standard_input(home: Path, agent: str) -> None:
    with at_a_terminal(home, "agent", "attach", agent) as (process, leader):
        read_until(leader, "Attached to agent")
        waits = waited_for(process.pid)
        os.write(leader, b"/detach\n")
        read_until(leader, "Detached.")
        assert process.wait(60) == 0
    assert not any("tty_read" in wait for wait in waits)


@pytest.mark.parametrize(
    ("line", "does", "action", "payload"),
    [
        ("hello", "ask", "agent.prompt", {"prompt": "hello"}),
        ("//etc is a folder", "ask", "agent.prompt", {"prompt": "/etc is a folder"}),
        ("/cancel", "ask", "agent.cancel", {}),
        ("/queue", "ask", "queue.list", {}),
        ("/option model opus", "ask", "agent.set_option", {"option_id": "model", "value": "opus"}),
        ("/option web true", "ask", "agent.set_option", {"option_id": "web", "value": True}),
        ("/stop", "ask", "agent.stop", {}),
        ("/detach", "detach", "", None),
        ("   ", "nothing", "", None),
        ("/", "tell", "", None),
        ("/option", "tell", "", None),
        ("/option 'x", "tell", "", None),
    ],
)
def test_what_is_typed_is_understood(line: str, does: str, action: str, payload: Any) -> None:
    typed = understood(line)
    assert (typed.does, typed.action, typed.payload) == (does, action, payload)
