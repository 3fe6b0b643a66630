"""What every runtime must do with a process: its three streams, its signals and its end."""

from __future__ import annotations

import signal
from typing import Any

import anyio
import pytest

from kandev_host import Process, ProcessSpec, Runtime, errors
from kandev_host.testing.runtime.base import (
    DEADLINE_S,
    HOLD,
    KILLED,
    MIB,
    TERMINATED,
    RuntimeSuite,
    ended,
    everything,
    is_held,
    line,
    sh,
)

FLOOD = 'i=0; while [ $i -lt 64 ]; do head -c 1048576 /dev/zero; i=$((i+1)); echo $i >> "$1"; done'
# What the places of processes are called, and who they are there.
OWN = {"HOME", "USER", "LOGNAME", "SHELL", "PATH", "LANG", "TERM", "TMPDIR", "HOSTNAME", "PWD", "SHLVL"}
WORDS = ("", "-n", "a b", "it's", '"', "$(id)", "`id`", "$HOME", "a\nb", "\\n", "*", "\N{SNOWMAN}", "--", ";", "|")


@pytest.mark.anyio
class ProcessContract(RuntimeSuite):
    """The tests. They use only what `Runtime.spawn` and `Process` promise."""

    async def test_stdout_and_stderr_are_apart(self, runtime: Runtime) -> None:
        async with runtime.spawn(sh("echo out; echo err >&2")) as process:
            assert await everything(process.receive) == b"out\n"
            assert await everything(process.receive_stderr) == b"err\n"
            assert await ended(process) == 0

    async def test_stdin_can_be_ended_while_the_outputs_go_on(self, runtime: Runtime) -> None:
        async with runtime.spawn(sh("cat; echo end")) as process:
            await process.send(b"in\n")
            assert await line(process) == b"in\n"
            await process.close_stdin()
            await process.close_stdin()
            assert await everything(process.receive) == b"end\n"

    async def test_every_byte_passes_as_it_is(self, runtime: Runtime) -> None:
        sent = bytes(range(256)) * 64
        async with runtime.spawn(sh("cat")) as process, anyio.create_task_group() as tasks:
            tasks.start_soon(_feed, process, sent)
            assert await everything(process.receive) == sent

    async def test_a_line_of_many_mebibytes_passes_both_ways(self, runtime: Runtime) -> None:
        sent = b"x" * (8 * MIB) + b"\n"
        async with runtime.spawn(sh("cat")) as process, anyio.create_task_group() as tasks:
            tasks.start_soon(_feed, process, sent)
            assert await everything(process.receive) == sent

    async def test_both_outputs_may_flood_at_once(self, runtime: Runtime) -> None:
        read: dict[str, int] = {}

        async def drain(name: str, receive: Any) -> None:
            read[name] = len(await everything(receive))

        script = "head -c 4194304 /dev/zero >&2 & head -c 4194304 /dev/zero; wait"
        async with runtime.spawn(sh(script)) as process, anyio.create_task_group() as tasks:
            tasks.start_soon(drain, "stdout", process.receive)
            tasks.start_soon(drain, "stderr", process.receive_stderr)
        assert read == {"stdout": 4 * MIB, "stderr": 4 * MIB}

    async def test_at_most_what_is_asked_for_is_received(self, runtime: Runtime) -> None:
        async with runtime.spawn(sh("printf abcdef")) as process:
            with anyio.fail_after(DEADLINE_S):
                first = await process.receive(2)
            assert 1 <= len(first) <= 2
            assert first + await everything(process.receive) == b"abcdef"

    async def test_who_is_not_read_waits(self, runtime: Runtime) -> None:
        """However much it would write: what lies between is bounded."""
        async with runtime.spawn(sh(FLOOD, "count")) as process:
            with anyio.fail_after(DEADLINE_S):
                first = await process.receive()
            written = int((await runtime.run(sh("touch count; wc -l < count"))).stdout)
            assert written < 64
            assert len(first + await everything(process.receive)) == 64 * MIB

    async def test_who_sends_waits_for_the_reader(self, runtime: Runtime) -> None:
        spec = sh("mkfifo go; echo up; cat go >/dev/null; wc -c")
        async with runtime.spawn(spec) as process, anyio.create_task_group() as tasks:
            assert await line(process) == b"up\n"
            sent = anyio.Event()

            async def send() -> None:
                await _feed(process, b"x" * (32 * MIB))
                sent.set()

            tasks.start_soon(send)
            done = await runtime.run(sh("echo go > go"))
            assert done.exit_code == 0
            assert int(await everything(process.receive)) == 32 * MIB
            assert sent.is_set()

    async def test_a_cancelled_receive_loses_nothing(self, runtime: Runtime) -> None:
        async with runtime.spawn(sh("cat")) as process:
            read = bytearray()
            for number in range(20):
                await process.send(b"%d\n" % number)
                with anyio.move_on_after(0):
                    read += await process.receive()
            await process.close_stdin()
            read += await everything(process.receive)
        assert bytes(read) == b"".join(b"%d\n" % number for number in range(20))

    async def test_what_was_written_before_the_end_is_read_after_it(self, runtime: Runtime) -> None:
        async with runtime.spawn(sh("echo last; echo words >&2; exit 4")) as process:
            assert await ended(process) == 4
            assert await everything(process.receive) == b"last\n"
            assert await everything(process.receive_stderr) == b"words\n"

    async def test_sending_to_an_ended_process_is_a_broken_pipe(self, runtime: Runtime) -> None:
        async with runtime.spawn(sh("exit 0")) as process:
            await ended(process)
            with pytest.raises(BrokenPipeError):
                await _send_on(process)

    # --- the end ------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("code", [0, 1, 77, 255])
    async def test_the_exit_code_is_the_commands(self, runtime: Runtime, code: int) -> None:
        async with runtime.spawn(sh('exit "$1"', str(code))) as process:
            assert await ended(process) == code
            assert process.ending is None

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
    async def test_the_exit_code_tells_the_signal_that_ended_it(self, runtime: Runtime, number: signal.Signals) -> None:
        async with runtime.spawn(sh('kill -"$1" $$', str(int(number)))) as process:
            assert await ended(process) in {-number, 128 + number}

    async def test_the_end_may_be_awaited_by_several(self, runtime: Runtime) -> None:
        codes: list[int] = []
        async with runtime.spawn(sh("read -r said; exit 7")) as process:

            async def wait() -> None:
                codes.append(await ended(process))

            with anyio.move_on_after(0):
                await process.wait()
            async with anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(wait)
                await process.close_stdin()
            assert await ended(process) == 7
        assert codes == [7, 7, 7]

    async def test_terminate_reaches_the_command(self, runtime: Runtime) -> None:
        async with runtime.spawn(sh("trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done")) as process:
            await line(process)
            await process.terminate()
            assert await ended(process) == 5

    async def test_terminate_ends_a_command_that_does_not_care(self, runtime: Runtime) -> None:
        async with runtime.spawn(sh("echo up; exec sleep 600")) as process:
            await line(process)
            await process.terminate()
            assert await ended(process) in TERMINATED

    async def test_kill_ends_what_does_not_want_to(self, runtime: Runtime) -> None:
        script = "trap '' TERM HUP INT; " + HOLD
        async with runtime.spawn(sh(script, "lock")) as process:
            await line(process)
            await process.terminate()
            await process.kill()
            assert await ended(process) in KILLED
            assert not await is_held(runtime)

    async def test_an_ended_process_is_neither_terminated_nor_killed(self, runtime: Runtime) -> None:
        async with runtime.spawn(sh("exit 3")) as process:
            await ended(process)
            await process.terminate()
            await process.kill()
            assert await ended(process) == 3

    async def test_leaving_the_context_kills(self, runtime: Runtime) -> None:
        async with runtime.spawn(sh(HOLD, "lock")) as process:
            await line(process)
        assert await ended(process) in KILLED
        assert not await is_held(runtime)

    async def test_an_error_inside_the_context_is_raised_as_it_is(self, runtime: Runtime) -> None:
        async def fail() -> None:
            async with runtime.spawn(sh(HOLD, "lock")) as process:
                await line(process)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
        assert not await is_held(runtime)

    # --- how it is started --------------------------------------------------------------------------------------------

    async def test_words_reach_the_command_as_they_are(self, runtime: Runtime) -> None:
        result = await runtime.run(sh("printf '%s\\0' \"$@\"", *WORDS))
        assert result.stdout.decode().split("\0")[:-1] == list(WORDS)

    async def test_the_environment_is_what_was_given(self, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OF_THE_HOST", "not for agents")
        given = {"A": "b=c", "EMPTY": "", "LINES": "a\nb", "SNOW": "\N{SNOWMAN}", "QUOTED": "'\"$(id)"}
        result = await runtime.run(ProcessSpec(workspace_id="w1", command=("env", "-0"), env=given))
        found = dict(pair.split("=", 1) for pair in result.stdout.decode().split("\0") if pair)
        assert {name: found.pop(name, None) for name in given} == given
        assert {name for name in found if not name.startswith("KANDEV_")} - OWN == set()
        assert {"HOME", "PATH"} <= set(found)

    async def test_it_starts_in_its_working_directory(self, runtime: Runtime) -> None:
        await runtime.run(sh("mkdir -p a/b"))
        await runtime.run(sh("echo 1 > file", cwd="/workspace/a/b"))
        await runtime.run(sh("echo 2 > file", cwd="/home/agent"))
        assert (await runtime.run(sh("cat a/b/file ~/file"))).stdout == b"1\n2\n"

    async def test_it_starts_in_no_other_directory(self, runtime: Runtime) -> None:
        try:
            result = await runtime.run(sh("pwd", cwd="/workspace/none"))
        except errors.Unavailable:
            return
        assert result.exit_code != 0 or result.stdout == b"/workspace/none\n"

    async def test_a_command_that_is_not_there_is_not_started(self, runtime: Runtime) -> None:
        for command in ("no-such-agent", "/workspace/no-such-agent"):
            try:
                result = await runtime.run(ProcessSpec(workspace_id="w1", command=(command,)))
            except errors.Unavailable as error:
                told = bool(error.details["fix"])
            else:
                told = result.exit_code == 127
            assert told

    async def test_many_run_at_once_each_for_itself(self, runtime: Runtime) -> None:
        found: dict[int, bytes] = {}

        async def one(number: int) -> None:
            async with runtime.spawn(sh('read -r said; echo "$1 $said"', str(number))) as process:
                await process.send(b"%d\n" % (number * number))
                found[number] = await everything(process.receive)

        async with anyio.create_task_group() as tasks:
            for number in range(8):
                tasks.start_soon(one, number)
        assert found == {number: b"%d %d\n" % (number, number * number) for number in range(8)}

    async def test_what_it_uses_is_measured(self, runtime: Runtime) -> None:
        async with runtime.spawn(sh("echo up; read -r said")) as process:
            await line(process)
            used = await process.stats()
            assert (used.rss_bytes or 0) > 0
            assert (used.pids or 0) > 0
            await process.close_stdin()
            await ended(process)
            assert not (await process.stats()).pids


async def _send_on(process: Process) -> None:
    """The first may still be taken, by what lies between."""
    with anyio.fail_after(DEADLINE_S):
        while True:
            await process.send(b"x" * 4096)


async def _feed(process: Process, data: bytes) -> None:
    with anyio.fail_after(DEADLINE_S):
        await process.send(data)
        await process.close_stdin()
