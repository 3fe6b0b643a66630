"""The shell without an event loop."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kandev_sandbox import PolicyError, ShellEnded
from kandev_sandbox.sync import Shell


@pytest.fixture
def shell(sandbox: Any) -> Iterator[Shell]:
    with Shell.under(sandbox.policy, bwrap=sandbox.bwrap) as made:
        yield made


def test_state_carries_over_and_results_are_structured(shell: Shell) -> None:
    shell.run("mkdir deep; cd deep; export A=1; umask 077")
    result = shell.run("pwd; echo $A; umask; echo err >&2; exit 4")
    assert (result.exit_code, result.stdout, result.stderr) == (4, b"/workspace/deep\n1\n0077\n", b"err\n")
    assert (shell.cwd, shell.env["A"]) == ("/workspace/deep", "1")


def test_a_timeout_keeps_the_shell(shell: Shell) -> None:
    assert shell.run("sleep 600", timeout_s=0.2).timed_out
    assert shell.run("echo on").stdout == b"on\n"


def test_output_comes_chunk_by_chunk(shell: Shell) -> None:
    got: list[tuple[str, bytes]] = []

    def on_output(stream: str, chunk: bytes) -> None:
        got.append((stream, chunk))
        if chunk == b"a\n":
            shell.signal(signal.SIGTERM)

    shell.run("trap 'echo b >&2; exit' TERM; echo a; while :; do :; done", on_output=on_output)
    assert got == [("stdout", b"a\n"), ("stderr", b"b\n")]


def test_an_error_of_the_receiver_comes_out(shell: Shell) -> None:
    def on_output(stream: str, chunk: bytes) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        shell.run("echo a; sleep 600", on_output=on_output)
    assert shell.run("echo on").stdout == b"on\n"


def test_jobs_answer_while_a_command_runs(shell: Shell) -> None:
    thread = threading.Thread(target=shell.run, args=("exec sleep 600",))
    thread.start()
    while [job.command for job in shell.jobs()] != ["sleep 600"]:
        pass
    assert shell.signal(signal.SIGKILL)
    thread.join(60)
    assert not thread.is_alive()


def test_after_the_context_it_says_that_it_is_not_open(sandbox: Any) -> None:
    with Shell.under(sandbox.policy, bwrap=sandbox.bwrap) as shell:
        assert shell.run("true").exit_code == 0
    with pytest.raises(ShellEnded):
        shell.run("true")


def test_the_end_of_a_killed_shell_is_told(shell: Shell) -> None:
    shell.kill()
    with pytest.raises(ShellEnded):
        shell.run("true")


def test_what_cannot_be_opened_says_so_at_the_with(sandbox: Any) -> None:
    with pytest.raises(PolicyError), Shell(sandbox.policy.workspace, bwrap=sandbox.bwrap, cwd="relative"):
        pass


def test_it_works_in_a_thread_of_the_callers(sandbox: Any) -> None:
    """bwrap dies with the thread that started it; that is the shell's own."""
    held: list[Shell] = []
    thread = threading.Thread(target=lambda: held.append(Shell.under(sandbox.policy, bwrap=sandbox.bwrap).__enter__()))
    thread.start()
    thread.join()
    try:
        assert held[0].run("echo on").stdout == b"on\n"
    finally:
        held[0].__exit__(None, None, None)


PROGRAM = """
import sys
from pathlib import Path
from kandev_sandbox import Policy, inspect
from kandev_sandbox.sync import Shell
folder, uid, binary = sys.argv[1:]
policy = Policy(workspace=Path(folder), uid=int(uid) if uid else None)
with Shell.under(policy, bwrap=inspect(Path(binary))) as shell:
    try:
        shell.run("echo started >up; sleep 600", on_output=lambda *_: None)
    except KeyboardInterrupt:
        print("interrupted", shell.jobs(), shell.run("echo on").stdout, flush=True)
"""


def test_control_c_ends_the_command_and_keeps_the_shell(
    sandbox: Any, host: Callable[..., subprocess.Popen[str]]
) -> None:
    workspace: Path = sandbox.policy.workspace
    program = host(PROGRAM, str(workspace), str(sandbox.policy.uid or ""), str(sandbox.bwrap.path))
    while not (workspace / "up").exists():
        assert program.poll() is None
    os.kill(program.pid, signal.SIGINT)
    assert program.communicate(timeout=60)[0] == "interrupted [] b'on\\n'\n"
