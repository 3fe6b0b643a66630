from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from kandev_host.cli.running.outcome import Outcome

from .terminals import at_a_terminal, read_until


def demo(prompt: str, repository: Path, *more: str) -> tuple[str, ...]:
    return ("run", prompt, "--agent", "demo", "--repo", str(repository), *more)


def test_a_run_shows_the_diff_and_the_tokens(kandev: Any, repository: Path) -> None:
    done = kandev(*demo("write HELLO.md: hello", repository, "--yes", "--policy", "contained"))
    assert done.status == 0, done.err
    assert "+hello" in done.out
    assert re.search(r"tokens: \d+ input, \d+ output", done.out)


def test_json_streams_notifications_and_ends_with_a_summary(kandev: Any, repository: Path) -> None:
    done = kandev(*demo("write HELLO.md: hello", repository, "--yes", "--policy", "contained", "--json"))
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert {line["action"] for line in lines if line["type"] == "notification"} >= {"acp.log", "acp.result"}
    assert lines[-1]["type"] == "summary"
    assert (lines[-1]["result"], lines[-1]["files"], lines[-1]["exit_status"]) == ("completed", 1, 0)


def test_without_a_terminal_and_a_policy_every_request_is_rejected(kandev: Any, repository: Path) -> None:
    done = kandev(*demo("write HELLO.md: hello", repository))
    assert "Rejected: Write HELLO.md" in done.out
    assert "+hello" not in done.out


def test_a_run_that_was_given_nothing_since_nobody_could_be_asked_is_blocked(kandev: Any, repository: Path) -> None:
    """Its agent says that it is done; whoever started it has nothing of that."""
    done = kandev(*demo("write HELLO.md: hello", repository))
    assert (done.status, "permissions not given: 1 rejected" in done.out) == (3, True)
    assert "blocked: the agent needed permission, and nobody can be asked here; run it at a terminal" in done.out
    summary = kandev(*demo("write HELLO.md: hello", repository, "--json")).json
    assert (summary["permissions"], summary["unasked"], summary["result"]) == ({"rejected": 1}, 1, "blocked")


def test_what_a_blocked_run_is_told_to_do_is_not_what_was_done(kandev: Any, repository: Path) -> None:
    given = ("--yes", "--policy", "contained")
    networked = kandev(*demo("run: touch x", repository, *given, "--allow", "example.org", "--json")).json
    assert networked["result"] == "blocked"
    assert networked["reason"].endswith(
        "; run it at a terminal, let a rule of the settings allow it or leave --allow out"
        " (preset contained, but the agent has a network)"
    )
    protected = kandev(*demo("write AGENTS.md: hello", repository, *given)).out
    assert "nobody can be asked here; run it at a terminal (/workspace/AGENTS.md is protected" in protected
    assert "--yes" not in protected


def test_a_run_that_went_on_without_a_permission_says_so_and_has_the_status_of_its_turn() -> None:
    """It was given another, or found another way."""
    outcome = Outcome(result="completed", unasked=1)
    outcome.settled({"state": "rejected"})
    for change in ({"files": 1}, {"permissions": {"rejected": 1, "allowed": 1}}):
        found = replace(outcome, **change)
        found.judge()
        assert (found.exit_status, found.withheld()) == (0, "permissions not given: 1 rejected")


def test_a_permission_that_nobody_answered_is_told_from_one_that_was_rejected(tmp_path: Path, repository: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data/config.toml").write_text("[permissions]\nwait_timeout_s = 0.5\n")
    with at_a_terminal(tmp_path / "data", *demo("write HELLO.md: hello", repository)) as (process, leader):
        shown = read_until(leader, "tokens:")
        assert "permissions not given: 1 rejected (nobody answered in time)" in shown
        assert process.wait(60) == 0


def test_each_attempt_is_one_line_and_the_last_one_says_how_many(kandev: Any, home: Path, repository: Path) -> None:
    done = kandev(*demo("exit 3", repository, "--yes", "--policy", "contained"), KANDEV_HOME=str(home))
    lines = [line for line in done.out.splitlines() if "exited with code 3" in line]
    assert [line.partition(" failed")[0] for line in lines[:-1]] == [f"✗ attempt {n} of 5" for n in range(1, 5)]
    assert all(re.search(r"\. Trying again in \d+\.\d s\.$", line) for line in lines[:-1])
    assert lines[-1].startswith("failed after 5 attempts: The agent exited with code 3")
    assert done.status == 1


@pytest.mark.parametrize("agent", ["demmo", "codex"])
def test_an_agent_that_cannot_be_started_leaves_no_task_behind(
    kandev: Any, home: Path, repository: Path, agent: str
) -> None:
    env = {"KANDEV_HOME": str(home)}
    assert kandev("agent", "disable", "codex", **env).status == 0
    before = kandev("task", "list", "--all", **env).out
    assert kandev("run", "anything", "--agent", agent, "--repo", str(repository), **env).status == 1
    assert kandev("task", "list", "--all", **env).out == before


def test_a_failing_agent_is_exit_status_1_with_the_reason(kandev: Any, repository: Path) -> None:
    done = kandev(*demo("fail: out of luck", repository, "--yes", "--policy", "contained"))
    assert done.status == 1
    assert "failed" in done.out


def test_a_refusal_is_exit_status_3(kandev: Any, repository: Path) -> None:
    assert kandev(*demo("refuse", repository, "--yes", "--policy", "contained")).status == 3


def test_a_time_limit_stops_the_agent(kandev: Any, repository: Path) -> None:
    done = kandev(*demo("sleep 600", repository, "--timeout", "1"))
    assert done.status == 1
    assert "not done after 1 s" in done.out


def test_a_terminal_that_is_not_utf8_gets_escapes(kandev: Any, repository: Path) -> None:
    prompt = demo("write HELLO.md: hello", repository, "--yes", "--policy", "contained")
    done = kandev(*prompt, PYTHONIOENCODING="ascii")
    assert done.status == 0, done.err
    assert "\\u25b6 write HELLO.md" in done.out


def test_a_prompt_that_is_not_utf8_is_refused_in_one_line(kandev: Any, repository: Path) -> None:
    done = kandev(*demo(os.fsdecode(b"wr\xffite"), repository))
    assert done.status == 2
    assert "The prompt is not UTF-8." in done.err
    assert len(done.err.splitlines()) == 1


def test_yes_needs_a_policy(kandev: Any, repository: Path) -> None:
    done = kandev(*demo("anything", repository, "--yes"))
    assert done.status == 2
    assert "--yes --policy contained" in done.err


def test_unattended_is_confirmed_with_the_word(kandev: Any, repository: Path) -> None:
    unattended = ("--yes", "--policy", "unattended")
    refused = kandev(*demo("write HELLO.md: hello", repository, *unattended))
    assert (refused.status, "--confirm unattended" in refused.err, refused.out) == (2, True, "")
    assert kandev(*demo("hi", repository, "--confirm", "unattended")).status == 2
    done = kandev(*demo("write HELLO.md: hello", repository, *unattended, "--confirm", "unattended"))
    assert (done.status, "+hello" in done.out) == (0, True)
    assert "The jail alone confines it." in done.err


@pytest.mark.parametrize(("typed", "status"), [("unattended", 0), ("yes", 2), ("", 2)])
def test_unattended_is_typed_at_a_terminal(tmp_path: Path, repository: Path, typed: str, status: int) -> None:
    command = demo("say: hello", repository, "--yes", "--policy", "unattended")
    with at_a_terminal(tmp_path / "data", *command) as (process, leader):
        read_until(leader, "Type unattended to go on")
        os.write(leader, f"{typed}\n".encode())
        read_until(leader, "tokens:" if status == 0 else "Not confirmed: nothing was started.")
        assert process.wait(60) == status


def test_an_unknown_agent_names_the_known_ones(kandev: Any, repository: Path) -> None:
    done = kandev("run", "anything", "--agent", "demmo", "--repo", str(repository))
    assert done.status == 1
    assert "known: auggie-cli, claude" in done.err
    assert "demo" in done.err
    assert len(done.err.splitlines()) == 1


def test_an_agent_that_is_not_installed_is_one_line_with_the_fix(kandev: Any, repository: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data" / "config.toml").write_text("""[agents.absent]
command = ["no-such-agent"]
title = "Absent"
install_hint = "apt-get install no-such-agent"
""")
    done = kandev("run", "anything", "--agent", "absent", "--repo", str(repository))
    assert done.status == 1
    assert "no-such-agent is not on the PATH" in done.err
    assert "Fix: apt-get install no-such-agent" in done.err
    assert "unexpected" not in done.err
    assert len(done.err.splitlines()) == 1


def test_a_folder_that_is_no_repository_is_one_clear_line(kandev: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = kandev(*demo("anything", tmp_path / "empty"))
    assert done.status == 1
    assert "Not a git repository" in done.err
    assert "unexpected" not in done.err
    assert len(done.err.splitlines()) == 1


def test_the_terminal_is_asked_and_the_answer_counts(tmp_path: Path, repository: Path) -> None:
    with at_a_terminal(tmp_path / "data", *demo("write HELLO.md: hello", repository)) as (process, leader):
        asked = read_until(leader, "Choose a number")
        number = re.search(r"(\d)\) .*allow_once", asked)
        assert number is not None
        os.write(leader, f"{number[1]}\n".encode())
        rest = read_until(leader, "tokens:")
        assert "+hello" in rest
        assert process.wait(60) == 0


def test_enter_alone_rejects(tmp_path: Path, repository: Path) -> None:
    with at_a_terminal(tmp_path / "data", *demo("write HELLO.md: hello", repository)) as (_, leader):
        read_until(leader, "Choose a number")
        os.write(leader, b"\n")
        assert "permission rejected" in read_until(leader, "tokens:")


def test_a_form_is_filled_in_at_the_terminal(tmp_path: Path, repository: Path) -> None:
    with at_a_terminal(tmp_path / "data", *demo("ask: Who are you?", repository)) as (process, leader):
        # What is typed before the question stands there in bold is dropped.
        assert "? The agent asks: Who are you?" in read_until(leader, "\x1b[1manswer: ")
        os.write(leader, b"\n")
        assert "This field is required" in read_until(leader, "\x1b[1manswer: ")
        os.write(leader, b"Ada Lovelace\n")
        read_until(leader, "Send this to the agent?")
        os.write(leader, b"y\n")
        assert "You answered with 2 words." in read_until(leader, "tokens:")
        assert process.wait(60) == 0


def test_without_a_terminal_a_form_is_declined(kandev: Any, repository: Path) -> None:
    done = kandev(*demo("ask: Who are you?", repository))
    assert "Declined: Who are you?. Nobody can be asked here." in done.out
    assert (done.status, "You did not answer." in done.out) == (0, True)


def test_a_choice_is_remembered_with_r(tmp_path: Path, repository: Path) -> None:
    prompt = "write a.txt: one\nwrite a.txt: two"
    with at_a_terminal(tmp_path / "data", *demo(prompt, repository)) as (process, leader):
        number = re.search(r"(\d)\) .*allow_once", read_until(leader, "Choose a number"))
        assert number is not None
        os.write(leader, f"r{number[1]}\n".encode())
        rest = read_until(leader, "tokens:")
        assert "Choose a number" not in rest
        assert "+two" in rest
        assert process.wait(60) == 0


def test_what_cannot_be_remembered_is_asked_again(tmp_path: Path, repository: Path) -> None:
    with at_a_terminal(tmp_path / "data", *demo("run: echo a; echo b", repository)) as (process, leader):
        number = re.search(r"(\d)\) .*allow_once", read_until(leader, "Choose a number"))
        assert number is not None
        os.write(leader, f"r{number[1]}\n".encode())
        assert "This cannot be remembered" in read_until(leader, "Choose a number")
        os.write(leader, f"{number[1]}\n".encode())
        read_until(leader, "tokens:")
        assert process.wait(60) == 0


def test_ctrl_c_cancels_the_turn(tmp_path: Path, repository: Path) -> None:
    with at_a_terminal(tmp_path / "data", *demo("sleep 600", repository)) as (process, leader):
        read_until(leader, "plan:")
        process.send_signal(signal.SIGINT)
        assert "Cancelling the turn" in read_until(leader, "tokens:")
        assert process.wait(60) == 130


def test_ctrl_c_at_a_question_cancels_the_turn(tmp_path: Path, repository: Path) -> None:
    with at_a_terminal(tmp_path / "data", *demo("write HELLO.md: hello", repository)) as (process, leader):
        read_until(leader, "Choose a number")
        process.send_signal(signal.SIGINT)
        assert "permission cancelled" in read_until(leader, "tokens:")
        assert process.wait(60) == 130


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_ends_an_agent_that_does_not_begin(tmp_path: Path, repository: Path, times: int) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    (data / "config.toml").write_text('[agents.deaf]\ncommand = ["/usr/bin/sleep", "600"]\n')
    with at_a_terminal(tmp_path / "data", "run", "hi", "--agent", "deaf", "--repo", str(repository)) as (
        process,
        leader,
    ):
        read_until(leader, "deaf in bwrap")
        for awaited in ("Ctrl-C again", "Stopping the agent")[:times]:
            process.send_signal(signal.SIGINT)
            read_until(leader, awaited)
        assert re.search("cancelled: (cancelled|stopped) at the terminal", read_until(leader, "tokens:"))
        assert process.wait(60) == 130


@pytest.mark.parametrize("more", [(), ("--json",)], ids=["text", "json"])
def test_an_agent_whose_output_nobody_reads_is_stopped_in_one_line(
    kandev: Any, home: Path, repository: Path, more: tuple[str, ...]
) -> None:
    """As of `| head -2`: the reader goes in the middle of what the agent says, which goes on for a minute."""
    env = {"KANDEV_HOME": str(home), "COLUMNS": "200"}
    prompt = demo("say: one\nsleep 1\n" * 60, repository, "--yes", "--policy", "contained")
    command = [sys.executable, "-m", "kandev_host", *prompt, *more]
    with subprocess.Popen(
        command, env={**os.environ, **env}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        told = process.stderr.read().decode()
        assert process.wait(60) == 130
    assert re.fullmatch(r"kandev-host: nobody reads this any more, so the agent was stopped; .* task \S+\n", told), told
    task = told.split()[-1]
    assert kandev("task", "show", task, "--json", **env).json["task"]["state"] == "CANCELLED"
    assert kandev("agent", "list", "--task", task, "--json", **env).json["agents"][0]["status"] == "STOPPED"


def test_escape_sequences_of_an_agent_never_reach_the_terminal(kandev: Any, repository: Path) -> None:
    done = kandev(*demo("say \x1b]52;c;AAAA\x07 and \u202e", repository, "--yes", "--policy", "contained"))
    assert "\x1b" not in done.out
    assert "\u202e" not in done.out
