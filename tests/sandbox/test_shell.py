"""A persistent jailed shell: what carries over, what a result says, and how a command is ended."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from kandev_sandbox import Job, Limits, Owner, PolicyError, Shell, ShellEnded, jails
from kandev_sandbox.shell import control

from .shells import opened, right

pytestmark = pytest.mark.anyio
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the drop to a workspace's uid")
MIB = 1 << 20


async def jobs_are(shell: Shell, condition: Any, timeout_s: float = 60.0) -> list[Job]:
    with anyio.fail_after(timeout_s):
        while not condition(found := await shell.jobs()):
            await anyio.sleep(0.01)
    return found


def files_of_shells() -> list[str]:
    """What lies in the control folders of this process's shells."""
    found = []
    for folder in control.parent().glob(f"kandev-shell-{os.getpid()}-*/control"):
        mode = folder.stat().st_mode
        folder.chmod(0o700)
        found += [path.name for path in folder.iterdir()]
        folder.chmod(mode)
    return found


def words(found: list[Job]) -> list[str]:
    return sorted(job.command for job in found)


async def test_working_directory_exports_and_umask_carry_over(sandbox: Any) -> None:
    async with opened(sandbox) as shell:
        await right(shell)


async def test_functions_aliases_options_and_plain_variables_do_not(sandbox: Any) -> None:
    async with opened(sandbox) as shell:
        await shell.run("f() { :; }; alias g=true; set -f; V=1; trap 'echo no' TERM")
        told = await shell.run('command -v f g; echo "$-$V" | tr -d a-eg-z; trap')
        assert b"no" not in told.stdout
        assert told.stdout.splitlines()[0] == b""


async def test_an_unset_variable_stays_unset_also_one_of_the_policy(sandbox: Any) -> None:
    async with opened(sandbox, env={"KEY": "s3cret"}) as shell:
        assert (await shell.run('echo "$KEY"; unset KEY HOME')).stdout == b"s3cret\n"
        assert (await shell.run('echo "${KEY-gone}${HOME-gone}"; env | grep -c KEY')).stdout == b"gonegone\n0\n"


@pytest.mark.parametrize("kind", ["/bin/sh", "/bin/bash"])
async def test_any_value_carries_over(sandbox: Any, kind: str) -> None:
    every = "".join(f"\\{byte:03o}" for byte in range(1, 256) if byte != 10) + "\\012x"
    async with opened(sandbox, shell=kind) as shell:
        first = await shell.run(f"""V=$(printf '{every}'); export V; printf %s "$V" | od -An -tx1""")
        second = await shell.run("""printf %s "$V" | od -An -tx1""")
        assert second.stdout == first.stdout
        assert first.stdout.count(b" ") == 256


async def test_cd_minus_carries_over(sandbox: Any) -> None:
    async with opened(sandbox) as shell:
        await shell.run("cd /usr")
        assert (await shell.run("cd - >/dev/null; pwd")).stdout == b"/workspace\n"


async def test_a_link_in_the_working_directory_stays_as_it_was_named(sandbox: Any) -> None:
    async with opened(sandbox) as shell:
        await shell.run("mkdir real && ln -s real link && cd link")
        assert (await shell.run("pwd")).stdout == b"/workspace/link\n"


async def test_in_a_removed_working_directory_nothing_of_the_users_is_near(sandbox: Any) -> None:
    async with opened(sandbox) as shell:
        await shell.run("touch keep; mkdir gone; cd gone; rmdir ../gone")
        result = await shell.run("rm -rf *; touch new")
        assert b"/workspace/gone is gone" in result.stderr
        assert (await shell.run("ls /workspace")).stdout == b"keep\n"


async def test_a_trap_of_the_commands_own_does_not_lose_its_state_if_it_falls_off_the_end(sandbox: Any) -> None:
    async with opened(sandbox) as shell:
        assert (await shell.run("trap 'echo bye' EXIT; cd /usr")).stdout == b"bye\n"
        assert shell.cwd == "/usr"


async def test_a_forged_state_can_say_only_what_a_command_could(sandbox: Any) -> None:
    """Everything is assigned as a quoted word: no text of a command is run again."""
    async with opened(sandbox) as shell:
        forged = (
            r"printf '0022\nexport A='\''$(touch /workspace/hit)`id`'\''\n\000/usr\n\000\000' >$(echo /kandev/$K.state)"
        )
        await shell.run(f"K=$(tr '\\0' ' ' </proc/$$/cmdline | sed 's/.*kandev.//;s/.env.*//'); {forged}; kill -9 $$")
        assert (await shell.run('echo "$A"; ls /workspace')).stdout == b"$(touch /workspace/hit)`id`\n"
        assert shell.cwd == "/usr"


async def test_the_result_tells_the_middle_that_was_dropped(sandbox: Any) -> None:
    async with opened(sandbox) as shell:
        result = await shell.run("printf abcdefghij; printf 0123456789 >&2", max_output_bytes=4)
        assert (result.stdout, result.stderr) == (b"abij", b"0189")
        assert (result.stdout_bytes, result.stderr_bytes, result.dropped_bytes, result.truncated) == (10, 10, 12, True)


async def test_output_comes_while_the_command_runs(sandbox: Any) -> None:
    seen: list[tuple[str, bytes]] = []
    async with opened(sandbox) as shell:

        async def on_output(stream: str, chunk: bytes) -> None:
            seen.append((stream, chunk))
            if chunk == b"first\n":
                await shell.signal(signal.SIGTERM)

        result = await shell.run("trap 'echo second >&2; exit 3' TERM; echo first; while :; do :; done",
                                 on_output=on_output)  # fmt: skip
        assert seen == [("stdout", b"first\n"), ("stderr", b"second\n")]
        assert result.exit_code == 3


async def test_a_slow_receiver_slows_the_command(sandbox: Any) -> None:
    async with opened(sandbox) as shell:
        stop = anyio.Event()
        written: list[int] = []

        async def on_output(stream: str, chunk: bytes) -> None:
            await stop.wait()

        async def look() -> None:
            await jobs_are(shell, lambda found: any(job.command.startswith("head") for job in found))
            before = -1
            # It has written what the pipe takes, and no more: its offset in the file stands still.
            while not written or written[-1] != before:
                before = written[-1] if written else -1
                await anyio.sleep(0.1)
                job = next(job for job in await shell.jobs() if job.command.startswith("head"))
                written.append(int(job.cpu_s * 100))
            assert any(job.command.startswith("head") for job in await shell.jobs())
            stop.set()

        async with anyio.create_task_group() as group:
            group.start_soon(look)
            result = await shell.run("head -c 8388608 /dev/zero", on_output=on_output)
        assert result.stdout_bytes == 8 * MIB


async def test_every_byte_reaches_the_receiver_in_order(sandbox: Any) -> None:
    got = bytearray()

    async def on_output(stream: str, chunk: bytes) -> None:
        got.extend(chunk)

    async with opened(sandbox) as shell:
        await shell.run("seq 300000", on_output=on_output, max_output_bytes=10)
    assert bytes(got) == "".join(f"{number}\n" for number in range(1, 300001)).encode()


async def test_a_timeout_leaves_earlier_jobs_alone(sandbox: Any) -> None:
    async with opened(sandbox) as shell:
        await shell.run("sleep 1111 & (setsid sleep 2222 &)")
        await jobs_are(shell, lambda found: words(found) == ["sleep 1111", "sleep 2222"])
        result = await shell.run(
            "setsid sleep 3333 & sleep 4444 & (setsid setsid sleep 5555 &); sleep 6666", timeout_s=0.5
        )
        assert result.timed_out
        assert words(await shell.jobs()) == ["sleep 1111", "sleep 2222"]
        await right(shell)


async def test_a_timeout_leaves_nothing_of_a_command_that_forks_and_ends_all_the_time(sandbox: Any) -> None:
    comet = "import os\nwhile 1:\n    if os.fork(): os._exit(0)\n    os.setsid()\n"
    async with opened(sandbox) as shell:
        await shell.run(f"cat >comet.py <<'EOF'\n{comet}EOF")
        result = await shell.run("python3 -S comet.py & python3 -S comet.py & sleep 600", timeout_s=0.5)
        assert result.timed_out
        assert await shell.jobs() == []
        await right(shell)


async def test_cancelling_ends_the_command_and_keeps_the_shell(sandbox: Any) -> None:
    async with opened(sandbox) as shell:
        with anyio.move_on_after(0.3) as scope:
            await shell.run("sleep 600 & setsid sleep 600")
        assert scope.cancelled_caught
        assert await shell.jobs() == []
        await right(shell)


async def test_an_error_of_the_receiver_ends_the_command_and_comes_out(sandbox: Any) -> None:
    async def on_output(stream: str, chunk: bytes) -> None:
        raise ZeroDivisionError

    async with opened(sandbox) as shell:
        with pytest.raises(ZeroDivisionError):
            await shell.run("echo a; sleep 600", on_output=on_output)
        assert await shell.jobs() == []
        await right(shell)


async def test_a_second_command_waits_for_the_first(sandbox: Any) -> None:
    order = []
    async with opened(sandbox) as shell:

        async def run(name: str) -> None:
            order.append((await shell.run(f"sleep 0.2; echo {name}")).stdout)

        async with anyio.create_task_group() as group:
            group.start_soon(run, "a")
            group.start_soon(run, "b")
    assert sorted(order) == [b"a\n", b"b\n"]


async def test_commands_of_several_shells_run_side_by_side(sandbox: Any) -> None:
    """Each waits for the other's file."""
    async with opened(sandbox) as one, opened(sandbox) as two, anyio.create_task_group() as group:
        wait = "touch {}; while ! test -e {}; do sleep 0.01; done"
        group.start_soon(one.run, wait.format("a", "b"))
        group.start_soon(two.run, wait.format("b", "a"))


async def test_a_background_job_outlives_its_command_and_what_it_writes_is_dropped(sandbox: Any) -> None:
    async with opened(sandbox) as shell:
        await shell.run("(while :; do echo noise; echo noise >&2; echo beat >>beats; sleep 0.01; done) &")
        beat = "seen=$(wc -l <beats); while test $(wc -l <beats) -le $seen; do sleep 0.01; done"
        heard = [await shell.run(f"while ! test -s beats; do sleep 0.01; done; {beat}; cat beats") for _ in range(2)]
        assert all(b"beat" in one.stdout and b"noise" not in one.stdout + one.stderr for one in heard)


async def test_jobs_are_listed_and_killed_with_what_they_started(sandbox: Any) -> None:
    async with opened(sandbox) as shell:
        await shell.run("sh -c 'sleep 7777 & wait' & sleep 8888 &")
        started = ["sh -c sleep 7777 & wait", "sleep 7777", "sleep 8888"]
        found = await jobs_are(shell, lambda found: words(found) == started)
        assert {job.state for job in found} == {"background"}
        parent = next(job for job in found if job.command.startswith("sh -c"))
        assert await shell.signal(signal.SIGKILL, parent.pid)
        assert words(await jobs_are(shell, lambda found: len(found) == 1)) == ["sleep 8888"]
        assert not await shell.signal(signal.SIGKILL, parent.pid)


async def test_the_running_command_is_told_from_the_background(sandbox: Any) -> None:
    async with opened(sandbox) as shell, anyio.create_task_group() as group:
        await shell.run("sleep 1111 &")
        group.start_soon(shell.run, "sleep 2222")

        def measured(found: list[Job]) -> bool:  # at the moment that it gets its name it has no memory yet
            return {"sleep 1111", "sleep 2222"} <= set(words(found)) and all(job.rss_bytes > 0 for job in found)

        found = await jobs_are(shell, measured)
        states = {job.command: job.state for job in found}
        assert (states["sleep 1111"], states["sleep 2222"]) == ("background", "running")
        assert all(job.age_s >= 0 and job.cpu_s >= 0 for job in found)
        assert await shell.signal(signal.SIGINT)
        await jobs_are(shell, lambda found: words(found) == ["sleep 1111"])


async def test_without_a_running_command_there_is_nothing_to_signal(sandbox: Any) -> None:
    async with opened(sandbox) as shell:
        await shell.run("sleep 1111 &")
        assert not await shell.signal(signal.SIGINT)


async def test_an_interrupt_ends_what_python_runs_as_in_a_terminal(sandbox: Any) -> None:
    """The command's signals have their default actions: nothing is ignored, as it is for a shell's `&`."""
    async with opened(sandbox) as shell, anyio.create_task_group() as group:
        results = []

        async def run() -> None:
            results.append(await shell.run("exec python3 -c 'import time; print(1, flush=True); time.sleep(600)'",
                                           on_output=interrupt))  # fmt: skip

        async def interrupt(stream: str, chunk: bytes) -> None:
            if stream == "stdout":
                await shell.signal(signal.SIGINT)

        group.start_soon(run)
    assert b"KeyboardInterrupt" in results[0].stderr


async def test_a_shell_whose_jail_is_gone_says_so(sandbox: Any) -> None:
    async with opened(sandbox) as shell:
        with anyio.fail_after(60):
            await shell.kill()
            await shell.wait()
        with pytest.raises(ShellEnded):
            await shell.run("true")


async def test_a_jail_that_ends_in_the_middle_of_a_command_says_so(sandbox: Any) -> None:
    async with opened(sandbox) as shell, anyio.create_task_group() as group:

        async def run() -> None:
            with pytest.raises(ShellEnded):
                await shell.run("sleep 600")

        group.start_soon(run)
        await jobs_are(shell, lambda found: "sleep 600" in words(found))
        await shell.kill()


async def test_leaving_the_context_leaves_no_process_no_folder_and_no_descriptor(sandbox: Any) -> None:
    owner = Owner.here(f"shell-{os.getpid()}")

    def folders() -> set[str]:
        mine = f"kandev-shell-{os.getpid()}-"
        return {name for name in os.listdir(control.parent()) if name.startswith(mine)}

    async with opened(sandbox, owner=owner) as shell:  # the guardian and the worker threads stay
        await shell.jobs()
    before = len(os.listdir("/proc/self/fd"))
    async with opened(sandbox, owner=owner) as shell:
        await shell.run("sleep 600 & yes & setsid sleep 600 &")
        await shell.run("sleep 600", timeout_s=0.1)
        assert len(folders()) == 1
    assert len(os.listdir("/proc/self/fd")) == before
    assert folders() == set()
    assert jails(owner.name) == []


async def test_commands_leave_no_descriptor_and_no_file(sandbox: Any) -> None:
    async with opened(sandbox) as shell:
        await shell.run("true")
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(50):
            await shell.run("echo a; echo b >&2")
        assert len(os.listdir("/proc/self/fd")) == before
        assert files_of_shells() == ["supervisor"]


def test_the_folder_of_a_dead_process_is_swept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(control, "_MEMORY", str(tmp_path))
    mine = control.make(False)
    dead = tmp_path / f"kandev-shell-{os.getpid()}-1-{'0' * 16}"
    (dead / "control").mkdir(parents=True)
    (dead / "control" / "supervisor").write_text("x")
    (tmp_path / f"kandev-shell-1-1-{'0' * 15}").mkdir()
    assert control.sweep() == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [mine.path.parent.name, f"kandev-shell-1-1-{'0' * 15}"]
    )
    mine.close()


HOST = """
import sys
from pathlib import Path
import anyio
from kandev_sandbox import Policy, Shell, inspect
folder, uid, binary = sys.argv[1:]

async def main():
    policy = Policy(workspace=Path(folder), uid=int(uid) if uid else None)
    async with Shell.under(policy, bwrap=inspect(Path(binary))) as shell:
        await shell.run("setsid sleep 600 & sleep 600 &")
        print(shell.jail.init.pid, flush=True)
        await shell.run("sleep 600")

anyio.run(main)
"""


def test_the_death_of_the_host_ends_the_shell_and_the_next_one_takes_its_folder_away(
    sandbox: Any, host: Callable[..., subprocess.Popen[str]], watch: Any
) -> None:
    policy = sandbox.policy
    program = host(HOST, str(policy.workspace), str(policy.uid or ""), str(sandbox.bwrap.path))
    assert program.stdout is not None
    init = int(program.stdout.readline())
    mine = f"kandev-shell-{program.pid}-*"
    assert list(control.parent().glob(mine))
    program.kill()
    program.wait()
    assert watch.ended([init], 60)
    control.sweep()
    assert not list(control.parent().glob(mine))


async def test_the_folder_alone_is_enough(sandbox: Any) -> None:
    async with Shell(sandbox.policy.workspace, bwrap=sandbox.bwrap, env={"A": "b"}) as shell:
        assert (await shell.run("echo $A; touch made; pwd")).stdout == b"b\n/workspace\n"
    assert (sandbox.policy.workspace / "made").exists()


@as_root
async def test_roots_own_folder_changes_hands_only_when_told_to(sandbox: Any, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    with pytest.raises(PolicyError, match="belongs to root"):
        Shell(folder)


async def test_a_command_with_nul_is_refused(sandbox: Any) -> None:
    async with opened(sandbox) as shell:
        with pytest.raises(ValueError, match="NUL"):
            await shell.run("echo \0")
        await right(shell)


async def test_one_command_cannot_see_the_scripts_of_another(sandbox: Any) -> None:
    async with opened(sandbox) as shell:
        await shell.run("sleep 60 & # s3cret")
        result = await shell.run("ls /kandev || grep -s s3cret /kandev/*")
        assert (result.exit_code, result.stdout) == (2, b"")


async def test_it_is_read_only_if_the_policy_says_so(sandbox: Any) -> None:
    async with opened(sandbox, workspace_read_only=True) as shell:
        assert (await shell.run("touch x")).exit_code != 0


async def test_two_shells_of_one_place_share_its_files_and_nothing_else(sandbox: Any) -> None:
    async with opened(sandbox) as one, opened(replace(sandbox)) as two:
        await one.run("export A=1; cd /usr; touch /workspace/x; sleep 60 &")
        result = await two.run('echo "${A-}"; pwd; ls; cat /proc/[0-9]*/comm | grep -c sleep')
        assert result.stdout == b"\n/workspace\nx\n0\n"


@as_root
async def test_a_command_that_finds_no_process_left_is_told_so_and_the_shell_goes_on(sandbox: Any) -> None:
    """The limit counts the processes of the jail's uid, so it is set where the uid is the workspace's own."""
    async with opened(sandbox, limits=Limits(processes=30)) as shell:
        await shell.run(f"cat >filler.py <<'EOF'\n{FILLER}EOF")
        await shell.run("python3 -S filler.py &")
        refused = await shell.run("echo never")
        while refused.exit_code != 126:
            refused = await shell.run("echo never")
        assert refused.stdout == b""
        assert b"no process could be started" in refused.stderr
        filler = min(await shell.jobs(), key=lambda job: job.pid)
        assert await shell.signal(signal.SIGKILL, filler.pid)
        await jobs_are(shell, lambda found: not found)
        await right(shell)


FILLER = """
import os, signal, time
while True:
    try:
        if os.fork() == 0:
            signal.pause()
    except OSError:
        time.sleep(0.001)
"""


async def test_output_that_somebody_else_has_read_meanwhile_is_not_waited_for(
    sandbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command of the same user may open its own fifo for reading."""
    async with opened(sandbox) as shell:
        monkeypatch.setattr("kandev_sandbox.shell.exchange._unread", lambda _descriptor: 5)
        assert (await shell.run("exit 3")).exit_code == 3
        monkeypatch.undo()
        await right(shell)


async def test_a_shell_that_is_over_says_so_and_uses_no_descriptor_of_others(sandbox: Any) -> None:
    async with opened(sandbox) as shell:
        await shell.run("true")
    for use in (lambda: shell.run("true"), shell.jobs, lambda: shell.signal(signal.SIGKILL)):
        with pytest.raises(ShellEnded, match="not open"):
            await use()
