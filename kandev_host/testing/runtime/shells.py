"""What every runtime must do with shells and terminals; one that lacks them refuses."""

from __future__ import annotations

import signal

import anyio
import pytest

from kandev_host import ProcessSpec, Runtime, errors
from kandev_host.testing.runtime.base import DEADLINE_S, LOCK, RuntimeSuite, ended, is_held, needs, sh, until


def shell(**fields: object) -> ProcessSpec:
    return ProcessSpec(workspace_id="w1", command=("/bin/sh",), **fields)  # type: ignore[arg-type]


@pytest.mark.anyio
class ShellContract(RuntimeSuite):
    """The tests. They use only what `Shell` and `Terminal` promise."""

    @needs("shells")
    async def test_a_shell_runs_commands_in_the_workspace(self, runtime: Runtime) -> None:
        async with runtime.open_shell(shell(env={"A": "b"})) as opened:
            result = await opened.run("pwd; echo $A; cd /usr; echo err >&2; exit 3")
            assert (result.exit_code, result.stdout, result.stderr) == (3, b"/workspace\nb\n", b"err\n")
            assert (result.stdout_bytes, result.truncated, result.timed_out) == (13, False, False)
            assert result.cwd == opened.cwd == "/usr"

    @needs("shells")
    async def test_directory_exports_and_umask_carry_over(self, runtime: Runtime) -> None:
        async with runtime.open_shell(shell()) as opened:
            await opened.run("mkdir -p a/b; cd a/b; export WORD='two words'; umask 027")
            result = await opened.run('pwd; echo "$WORD"; umask')
            assert result.stdout == b"/workspace/a/b\ntwo words\n0027\n"

    @needs("shells")
    async def test_a_shell_shares_files_with_the_other_processes_of_its_workspace(self, runtime: Runtime) -> None:
        async with runtime.open_shell(shell()) as opened:
            await opened.run("echo text > file")
            assert (await runtime.run(sh("cat file"))).stdout == b"text\n"

    @needs("shells")
    async def test_a_shell_is_listed_with_its_labels_and_holds_its_place(self, runtime: Runtime) -> None:
        async with runtime.open_shell(shell(labels={"shell": "s1"})) as opened:
            (owned,) = await runtime.list_owned()
            assert (owned.ref, dict(owned.labels)) == (opened.ref, {"shell": "s1"})
            with pytest.raises(errors.Conflict):
                await runtime.remove("w1")
        assert await runtime.list_owned() == []
        await runtime.remove("w1")

    @needs("shells")
    async def test_output_comes_while_the_command_runs(self, runtime: Runtime) -> None:
        came: list[tuple[str, bytes]] = []
        async with runtime.open_shell(shell()) as opened:

            async def hear(stream: str, chunk: bytes) -> None:
                came.append((stream, chunk))
                if chunk == b"first\n":
                    await runtime.run(sh("echo go > go"))

            await opened.run("mkfifo go")
            await opened.run("echo first; cat go; echo err >&2", on_output=hear)
        assert b"".join(chunk for stream, chunk in came if stream == "stdout") == b"first\ngo\n"
        assert b"".join(chunk for stream, chunk in came if stream == "stderr") == b"err\n"

    @needs("shells")
    async def test_a_command_that_takes_too_long_is_ended_and_the_shell_goes_on(self, runtime: Runtime) -> None:
        script = f"(setsid sh -c 'exec 9>lock; {LOCK}; exec sleep 600' &); trap '' TERM; sleep 600"
        async with runtime.open_shell(shell()) as opened:
            assert (await opened.run(script, timeout_s=2)).timed_out
            assert not await is_held(runtime)
            assert (await opened.run("echo here")).stdout == b"here\n"

    @needs("shells")
    async def test_a_cancelled_command_is_ended_and_the_shell_goes_on(self, runtime: Runtime) -> None:
        async with runtime.open_shell(shell()) as opened:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(opened.run, f"exec 9>lock; {LOCK}; exec sleep 600")
                await until(lambda: is_held(runtime))
                tasks.cancel_scope.cancel()
            assert not await is_held(runtime)
            assert (await opened.run("echo here")).stdout == b"here\n"

    @needs("shells")
    async def test_what_a_command_leaves_is_listed_and_can_be_ended(self, runtime: Runtime) -> None:
        async with runtime.open_shell(shell()) as opened:
            await opened.run("exec sleep 600 &")

            async def listed() -> bool:
                return [job.command for job in await opened.jobs()] == ["sleep 600"]

            async def gone() -> bool:
                return not await opened.jobs()

            await until(listed)
            (job,) = await opened.jobs()
            assert job.state == "background"
            assert await opened.signal(signal.SIGKILL, job.pid)
            await until(gone)

    @needs("shells")
    async def test_nothing_of_a_shell_is_left_behind_it(self, runtime: Runtime) -> None:
        async with runtime.open_shell(shell()) as opened:
            await opened.run(f"setsid sh -c 'exec 9>lock; {LOCK}; exec sleep 600' & true")
            await until(lambda: is_held(runtime))
        assert not await is_held(runtime)

    @needs("shells")
    async def test_what_is_no_shell_is_refused(self, runtime: Runtime) -> None:
        with pytest.raises(errors.ValidationFailed):
            async with runtime.open_shell(sh("x")):
                pass

    @needs("shells")
    async def test_a_command_with_nul_is_invalid(self, runtime: Runtime) -> None:
        async with runtime.open_shell(shell()) as opened:
            with pytest.raises(errors.ValidationFailed):
                await opened.run("\0")

    @needs("shells")
    async def test_a_shell_of_no_place_is_not_found(self, runtime: Runtime) -> None:
        with pytest.raises(errors.NotFound):
            async with runtime.open_shell(ProcessSpec(workspace_id="w9", command=("/bin/sh",))):
                pass

    # --- terminals ----------------------------------------------------------------------------------------------------

    @needs("terminals")
    async def test_a_terminal_shows_types_and_resizes(self, runtime: Runtime) -> None:
        spec = sh("stty size; read x; stty size; echo $x; exit 5")
        async with runtime.open_terminal(spec, 80, 24) as terminal:
            shown = b""
            with anyio.fail_after(DEADLINE_S):
                while b"24 80\r\n" not in shown:
                    shown += await terminal.receive()
                await terminal.resize(90, 30)
                await terminal.send(b"hi\n")
                while chunk := await terminal.receive():
                    shown += chunk
            assert shown == b"24 80\r\nhi\r\n30 90\r\nhi\r\n"
            assert await terminal.receive_stderr() == b""
            assert await ended(terminal) == 5

    @needs("terminals")
    async def test_a_terminal_is_listed_measured_and_ended(self, runtime: Runtime) -> None:
        async with runtime.open_terminal(sh("echo up; read x", labels={"shell": "s2"}), 80, 24) as terminal:
            with anyio.fail_after(DEADLINE_S):
                await terminal.receive()
            assert [dict(owned.labels) for owned in await runtime.list_owned()] == [{"shell": "s2"}]
            assert (await terminal.stats()).pids
            await terminal.terminate()
            assert await ended(terminal) != 0
        assert await runtime.list_owned() == []

    @needs("terminals")
    async def test_what_is_no_size_is_invalid(self, runtime: Runtime) -> None:
        with pytest.raises(errors.ValidationFailed):
            async with runtime.open_terminal(sh("true"), 0, 0):
                pass
