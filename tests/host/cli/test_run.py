from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


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


def test_a_run_that_went_on_without_a_permission_says_so_and_has_the_status_of_its_turn(
    kandev: Any, repository: Path
) -> None:
    done = kandev(*demo("write HELLO.md: hello", repository))
    assert (done.status, "permissions not given: 1 rejected" in done.out) == (0, True)
    summary = kandev(*demo("write HELLO.md: hello", repository, "--json")).json
    assert (summary["permissions"], summary["result"]) == ({"rejected": 1}, "completed")


def test_a_permission_that_nobody_answered_is_told_from_one_that_was_rejected(tmp_path: Path, repository: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data/config.toml").write_text("[permissions]\nwait_timeout_s = 0.5\n")
    with at_a_terminal(tmp_path, *demo("write HELLO.md: hello", repository)) as (process, leader):
        shown = read_until(leader, "tokens:")
        assert "permissions not given: 1 rejected (nobody answered in time)" in shown
        assert process.wait(10) == 0


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
    done = kandev(*demo("write HELLO.md: hello", repository), PYTHONIOENCODING="ascii")
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


@contextmanager
def at_a_terminal(tmp_path: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The command with a pseudo-terminal as its standard streams, and as its controlling terminal."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "kandev_host", *arguments],
        env={**os.environ, "KANDEV_HOME": str(tmp_path / "data")},
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
    )
    os.close(follower)
    try:
        yield process, leader
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)
        os.close(leader)


def read_until(leader: int, wanted: str, timeout_s: float = 30) -> str:
    """What the terminal showed until `wanted` came."""
    text, deadline = "", time.monotonic() + timeout_s
    while wanted not in text:
        left = deadline - time.monotonic()
        assert left > 0, text
        assert select.select([leader], [], [], left)[0], text
        try:
            text += os.read(leader, 65536).decode(errors="replace")
        except OSError:  # the other side is closed (Linux says EIO)
            break
    return text


def test_the_terminal_is_asked_and_the_answer_counts(tmp_path: Path, repository: Path) -> None:
    with at_a_terminal(tmp_path, *demo("write HELLO.md: hello", repository)) as (process, leader):
        asked = read_until(leader, "Choose a number")
        number = re.search(r"(\d)\) .*allow_once", asked)
        assert number is not None
        os.write(leader, f"{number[1]}\n".encode())
        rest = read_until(leader, "tokens:")
        assert "+hello" in rest
        assert process.wait(10) == 0


def test_enter_alone_rejects(tmp_path: Path, repository: Path) -> None:
    with at_a_terminal(tmp_path, *demo("write HELLO.md: hello", repository)) as (_, leader):
        read_until(leader, "Choose a number")
        os.write(leader, b"\n")
        assert "permission rejected" in read_until(leader, "tokens:")


def test_ctrl_c_cancels_the_turn(tmp_path: Path, repository: Path) -> None:
    with at_a_terminal(tmp_path, *demo("sleep 600", repository)) as (process, leader):
        read_until(leader, "plan:")
        process.send_signal(signal.SIGINT)
        assert "Cancelling the turn" in read_until(leader, "tokens:")
        assert process.wait(10) == 130


def test_ctrl_c_at_a_question_cancels_the_turn(tmp_path: Path, repository: Path) -> None:
    with at_a_terminal(tmp_path, *demo("write HELLO.md: hello", repository)) as (process, leader):
        read_until(leader, "Choose a number")
        process.send_signal(signal.SIGINT)
        assert "permission cancelled" in read_until(leader, "tokens:")
        assert process.wait(10) == 130


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_ends_an_agent_that_does_not_begin(tmp_path: Path, repository: Path, times: int) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    (data / "config.toml").write_text('[agents.deaf]\ncommand = ["/usr/bin/sleep", "600"]\n')
    with at_a_terminal(tmp_path, "run", "hi", "--agent", "deaf", "--repo", str(repository)) as (process, leader):
        read_until(leader, "deaf in bwrap")
        for awaited in ("Ctrl-C again", "Stopping the agent")[:times]:
            process.send_signal(signal.SIGINT)
            read_until(leader, awaited)
        assert re.search("cancelled: (cancelled|stopped) at the terminal", read_until(leader, "tokens:"))
        assert process.wait(10) == 130


def test_escape_sequences_of_an_agent_never_reach_the_terminal(kandev: Any, repository: Path) -> None:
    done = kandev(*demo("say \x1b]52;c;AAAA\x07 and \u202e", repository, "--yes", "--policy", "contained"))
    assert "\x1b" not in done.out
    assert "\u202e" not in done.out
