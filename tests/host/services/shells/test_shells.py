"""Shells that run commands: opened, used, closed, and who may."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from kandev_host import Principal
from kandev_host.errors import Busy, Conflict, Forbidden, NotFound, TimedOut, Unavailable, ValidationFailed
from kandev_host.interfaces import Put
from kandev_host.models import Workspace
from kandev_host.protocol.actions import shells as wire
from kandev_host.protocol.actions.boards import BoardDelete
from kandev_host.protocol.actions.tasks import TaskDelete

from .scripted import ScriptedRuntime

pytestmark = pytest.mark.anyio
DEADLINE_S = 60.0


async def test_a_command_answers_what_it_wrote_and_how_it_ended(bench: Any) -> None:
    shell = await bench.open()
    reply = await bench.run(shell, "say one\nerr two\ncd /workspace/src\nexit 4")
    assert (reply.exit_code, reply.stdout, reply.stderr, reply.cwd) == (4, "one\n", "two\n", "/workspace/src")
    assert (reply.stdout_bytes, reply.stderr_bytes, reply.truncated, reply.timed_out) == (4, 4, False, False)


async def test_what_is_not_text_comes_in_base64(bench: Any) -> None:
    reply = await bench.run(await bench.open(), "bytes fffe00")
    assert (reply.stdout, reply.stdout_encoding) == ("//4A", "base64")


async def test_a_command_that_takes_too_long_says_so_and_the_shell_goes_on(bench: Any) -> None:
    shell = await bench.open()
    reply = await bench.run(shell, "wait", timeout_s=0.01)
    assert (reply.timed_out, reply.exit_code) == (True, 137)
    assert (await bench.run(shell, "say on")).stdout == "on\n"


async def test_the_shell_is_where_its_last_command_left_it(bench: Any) -> None:
    shell = await bench.open()
    await bench.run(shell, "cd /tmp")
    (row,) = (await bench.services.shells.list(bench.me, wire.ShellList())).shells
    assert (row.cwd, row.state) == ("/tmp", "open")


async def test_commands_take_turns(bench: Any) -> None:
    shell = await bench.open()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.run, shell, "wait")
        await bench.runtime.shells[0].waiting.wait()
        tasks.start_soon(bench.run, shell, "say second")
        while (await bench.do("jobs", shell)).waiting == 0:
            await anyio.lowlevel.checkpoint()
        assert bench.runtime.shells[0].ran == ["wait"]
        bench.runtime.shells[0].go.set()
    assert bench.runtime.shells[0].ran == ["wait", "say second"]


async def test_too_many_commands_do_not_wait_for_a_shell(bench: Any) -> None:
    shell = await bench.open()
    async with anyio.create_task_group() as tasks:
        for _ in range(17):
            tasks.start_soon(bench.run, shell, "wait")
        while (await bench.do("jobs", shell)).waiting < 16:
            await anyio.lowlevel.checkpoint()
        with pytest.raises(Busy):
            await bench.run(shell, "say no")
        bench.runtime.shells[0].go.set()


async def test_shells_run_beside_each_other(bench: Any) -> None:
    one, two = await bench.open(), await bench.open()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.run, one, "wait")
        await bench.runtime.shells[0].waiting.wait()
        assert (await bench.run(two, "say free")).stdout == "free\n"
        bench.runtime.shells[0].go.set()


async def test_jobs_are_listed_and_signalled(bench: Any) -> None:
    shell = await bench.open()
    (job,) = (await bench.do("jobs", shell)).jobs
    assert (job.pid, job.command, job.state) == (7, "sleep 100", "background")
    assert (await bench.do("signal", shell, signal="TERM", pid=7)).signalled is True
    assert (await bench.do("signal", shell, signal="KILL", pid=8)).signalled is False
    assert bench.runtime.shells[0].signals == [(15, 7), (9, 8)]


async def test_a_running_command_is_signalled(bench: Any) -> None:
    shell = await bench.open()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.run, shell, "wait")
        await bench.runtime.shells[0].waiting.wait()
        assert (await bench.do("signal", shell, signal="INT")).signalled


@pytest.mark.parametrize("command", ["say \0", "\0"])
async def test_a_command_holds_no_nul(bench: Any, command: str) -> None:
    with pytest.raises(ValidationFailed, match="NUL"):
        await bench.run(await bench.open(), command)


# --- where ------------------------------------------------------------------------------------------------------------


async def test_without_a_task_it_is_a_scratch_workspace_that_goes_with_the_shell(bench: Any) -> None:
    shell = await bench.open()
    assert bench.runtime.prepared == [shell.workspace_id]
    assert await bench.services.store.get(Workspace, shell.workspace_id) is not None
    await bench.do("close", shell)
    assert bench.runtime.removed == [shell.workspace_id]
    assert await bench.services.store.get(Workspace, shell.workspace_id) is None


async def test_a_scratch_workspace_stays_for_its_last_shell(bench: Any) -> None:
    one = await bench.open()
    two = await bench.open(workspace_id=one.workspace_id)
    await bench.do("close", one)
    assert bench.runtime.removed == []
    await bench.do("close", two)
    assert bench.runtime.removed == [one.workspace_id]
    with pytest.raises(NotFound):
        await bench.open(workspace_id=one.workspace_id)


async def test_a_task_s_workspace_stays_when_its_shell_goes(bench: Any) -> None:
    task = await bench.task()
    shell = await bench.open(task_id=task.id)
    assert (shell.task_id, shell.workspace_id) == (task.id, task.id)
    await bench.do("close", shell)
    assert bench.runtime.removed == []


async def test_the_workspace_of_a_task_may_be_named_itself(bench: Any) -> None:
    task = await bench.task()
    assert (await bench.open(workspace_id=task.id)).task_id == task.id


async def test_task_and_workspace_are_not_named_both(bench: Any) -> None:
    with pytest.raises(ValidationFailed, match="either"):
        await bench.open(task_id="t", workspace_id="w")


async def test_another_runtime_than_the_workspace_s_is_refused(bench: Any) -> None:
    with pytest.raises((Conflict, Unavailable)):
        await bench.open(task_id=(await bench.task()).id, runtime="other")


async def test_what_an_open_shell_is_told_is_in_its_spec(open_bench: Any) -> None:
    async with open_bench(network="allowlist", allow=("@pypi",)) as bench:
        task = await bench.task()
        shell = await bench.open(task_id=task.id, allow=["example.org", "@pypi"])
        spec = bench.runtime.shells[0].spec
        assert (spec.network, spec.allow) == ("allowlist", ("@pypi", "example.org"))
        assert dict(spec.labels) == {"shell_id": shell.id, "task_id": task.id, "allow_of": task.id}
        assert dict(spec.env) == {"KANDEV_SHELL_ID": shell.id, "KANDEV_TASK_ID": task.id}
        assert (shell.network, shell.allow) == ("allowlist", ("@pypi", "example.org"))


async def test_a_shell_of_a_task_reaches_what_the_task_names(bench: Any) -> None:
    task = await bench.task(allow=("@pypi", "127.0.0.1:99"))
    shell = await bench.open(task_id=task.id)
    assert (shell.network, shell.allow) == ("allowlist", ("@pypi", "127.0.0.1:99"))
    cut_off = await bench.open(task_id=task.id, network="none")
    assert (cut_off.network, cut_off.allow) == ("none", ("127.0.0.1:99",))


async def test_a_name_that_no_network_leaves_out_of_reach_is_refused(bench: Any) -> None:
    with pytest.raises(ValidationFailed, match=r"example\.org.*network allowlist") as caught:
        await bench.open(network="none", allow=["127.0.0.1:99", "example.org"])
    assert caught.value.details["field"] == "allow"
    near = await bench.open(network="none", allow=["127.0.0.1:99"])
    assert (near.network, near.allow) == ("none", ("127.0.0.1:99",))


async def test_a_name_that_nothing_can_be_allowed_by_is_refused(bench: Any) -> None:
    with pytest.raises(ValidationFailed, match="no name"):
        await bench.open(allow=["?"])


async def test_open_shells_hold_their_workspace(bench: Any) -> None:
    task = await bench.task()
    shell = await bench.open(task_id=task.id)
    (holder,) = await bench.services.holders.of(task.id)
    assert (holder.kind, holder.id) == ("shell", shell.id)
    await bench.services.holders.end(task.id, [holder])
    assert (await bench.hears("shell.exited"))["shell"]["reason"] == "its workspace is deleted"
    assert await bench.services.holders.of(task.id) == []


async def test_a_shell_has_no_network_unless_asked(bench: Any) -> None:
    await bench.open()
    assert bench.runtime.shells[0].spec.network == "none"


async def test_a_shell_that_cannot_open_leaves_nothing(bench: Any) -> None:
    bench.runtime.refuses = Unavailable("No jail", fix="get one")
    with pytest.raises(Unavailable, match="No jail"):
        await bench.open()
    assert (await bench.services.shells.list(bench.me, wire.ShellList())).shells == []
    with anyio.fail_after(DEADLINE_S):
        while bench.runtime.removed != bench.runtime.prepared:
            await anyio.lowlevel.checkpoint()


async def test_a_runtime_that_breaks_breaks_one_shell(bench: Any) -> None:
    bench.runtime.refuses = ZeroDivisionError()
    with pytest.raises(Unavailable, match="ZeroDivisionError"):
        await bench.open()
    bench.runtime.refuses = None
    assert (await bench.run(await bench.open(), "say on")).stdout == "on\n"


async def test_only_so_many_are_open(open_bench: Any) -> None:
    async with open_bench(open_limit=1) as bench:
        shell = await bench.open()
        with pytest.raises(Conflict, match="close one"):
            await bench.open()
        await bench.do("close", shell)
        await bench.open()


# --- who --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["agent", "service", "host"])
async def test_only_users_have_shells(bench: Any, kind: Any) -> None:
    other = Principal("x", kind, "x", frozenset({"*"}))
    shells, shell = bench.services.shells, await bench.open()
    for method, request in (
        (shells.open, wire.ShellOpen()),
        (shells.run, wire.ShellRun(shell_id=shell.id, command="say no")),
        (shells.input, wire.ShellInput(shell_id=shell.id, data="x")),
        (shells.resize, wire.ShellResize(shell_id=shell.id, cols=1, rows=1)),
        (shells.signal, wire.ShellSignal(shell_id=shell.id, signal="KILL")),
        (shells.close, wire.ShellClose(shell_id=shell.id)),
        (shells.jobs, wire.ShellJobs(shell_id=shell.id)),
        (shells.read, wire.ShellRead(shell_id=shell.id)),
    ):
        with pytest.raises(Forbidden):
            await method(other, request)


# --- its end ----------------------------------------------------------------------------------------------------------


async def test_a_closed_shell_says_so(bench: Any) -> None:
    shell = await bench.open()
    closed = (await bench.do("close", shell)).shell
    assert (closed.state, closed.reason) == ("closed", "it was closed")
    assert (await bench.do("close", shell)).shell == closed
    with pytest.raises(Conflict, match="it was closed"):
        await bench.run(shell, "say no")
    assert (await bench.hears("shell.exited"))["shell"]["reason"] == "it was closed"


async def test_closing_ends_the_command_that_runs(bench: Any) -> None:
    shell = await bench.open()
    async with anyio.create_task_group() as tasks:

        async def runs() -> None:
            with pytest.raises(Conflict, match="it was closed"):
                await bench.run(shell, "say so far\nwait")

        tasks.start_soon(runs)
        await bench.runtime.shells[0].waiting.wait()
        await bench.do("close", shell)
    assert bench.runtime.shells[0].cancelled == 1
    (command,) = await bench.commands()
    assert (command.state, command.reason, command.output_head) == (
        "killed",
        "The shell is closed: it was closed",
        "so far\n",
    )


async def test_a_jail_that_dies_closes_its_shell(bench: Any) -> None:
    shell = await bench.open()
    bench.runtime.shells[0].dead.set()
    told = (await bench.hears("shell.exited"))["shell"]
    assert (told["id"], told["reason"]) == (shell.id, "its jail ended")


async def test_a_command_whose_jail_dies_is_answered(bench: Any) -> None:
    with pytest.raises((Unavailable, Conflict)):
        await bench.run(await bench.open(), "say last\ndie")
    await bench.hears("shell.exited")
    (command,) = await bench.commands()
    assert (command.state, command.output_head) == ("killed", "last\n")


async def test_an_idle_shell_that_nobody_follows_is_closed(open_bench: Any) -> None:
    async with open_bench(idle_timeout_s=0.01) as bench:
        await bench.services.shells.open(bench.me, wire.ShellOpen())
        assert "nothing was done" in (await bench.hears("shell.exited"))["shell"]["reason"]


async def test_an_attached_shell_is_closed_when_nobody_follows_it(bench: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("kandev_host.services.shells.live.ATTACHED_S", 0.01)
    shell = await bench.open(attached=True)
    bench.unfollow(shell)
    assert (await bench.hears("shell.exited"))["shell"]["reason"] == "nobody follows it any more"


async def test_an_attached_shell_is_waited_for_however_long_it_opens(bench: Any, monkeypatch: Any) -> None:
    passed = 0.0
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + passed)
    monkeypatch.setattr("kandev_host.services.shells.live.time", clock)
    bench.runtime.slow = anyio.Event()
    async with anyio.create_task_group() as tasks:

        async def use() -> None:
            assert (await bench.run(await bench.open(attached=True), "say here")).stdout == "here\n"

        tasks.start_soon(use)
        await bench.until(lambda: bench.runtime.opening)
        passed = 3600.0
        bench.runtime.slow.set()


class Pulled(ScriptedRuntime):
    """Its image comes when `arrived` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived = anyio.Event()
        self.asked: list[dict[str, str]] = []

    async def fetch(self, image: str | None, labels: Mapping[str, str]) -> None:
        self.asked.append(dict(labels))
        await self.arrived.wait()


async def test_a_pull_is_followed_by_whoever_opens_a_shell_and_holds_up_nobody_else(open_bench: Any) -> None:
    async with open_bench(Pulled()) as bench, anyio.create_task_group() as tasks:
        task = await bench.task()
        followed: list[str] = []
        opened: list[Any] = []

        @contextmanager
        def following(topic: str) -> Iterator[None]:
            followed.append(topic)
            bench.services.audiences.join(topic, bench.listener)
            yield
            followed.remove(topic)

        async def open_one(**how: Any) -> None:
            opened.append((await bench.services.shells.open(bench.me, wire.ShellOpen(**how), following)).shell.id)

        async def open_in_the_task() -> None:
            with pytest.raises(NotFound):
                await open_one(task_id=task.id)

        tasks.start_soon(partial(open_one, attached=True))
        tasks.start_soon(open_in_the_task)
        await bench.until(lambda: len(followed) == 2)
        first, second = bench.runtime.asked
        assert set(followed) == {f"shell:{first['shell_id']}", f"shell:{second['shell_id']}"}
        assert [labels.get("task_id") for labels in (first, second)] == [None, task.id]
        with anyio.fail_after(DEADLINE_S):
            await bench.services.tasks.delete(bench.me, TaskDelete(task_id=task.id))
        bench.runtime.arrived.set()
        await bench.until(lambda: opened)
        assert opened == [first["shell_id"]]
        assert followed == []


@pytest.mark.parametrize("end", ["the socket", "the host"])
async def test_a_pull_that_nobody_waits_for_any_more_is_left(open_bench: Any, end: str) -> None:
    async with open_bench(Pulled()) as bench, anyio.create_task_group() as tasks:
        topics: list[str] = []

        @contextmanager
        def following(topic: str) -> Iterator[None]:
            topics.append(topic)
            bench.services.audiences.join(topic, bench.listener)
            yield

        async def open_it() -> None:
            why = "Nobody waits" if end == "the socket" else "shutting down"
            with pytest.raises(Unavailable, match=why):
                await bench.services.shells.open(bench.me, wire.ShellOpen(attached=True), following)
            topics.clear()

        tasks.start_soon(open_it)
        await bench.until(lambda: bench.runtime.asked)
        if end == "the socket":
            bench.services.audiences.leave(topics[0], bench.listener)
        else:
            await bench.services.shells.shutdown()
        await bench.until(lambda: not topics)
        assert bench.runtime.prepared == []


async def test_a_task_with_open_shells_is_deleted_only_by_force(bench: Any) -> None:
    task = await bench.task()
    shell = await bench.open(task_id=task.id)
    tasks = bench.services.tasks
    with pytest.raises(Conflict, match="open shells") as caught:
        await tasks.delete(bench.me, TaskDelete(task_id=task.id))
    assert caught.value.details["shells"] == [shell.id]
    await tasks.delete(bench.me, TaskDelete(task_id=task.id, force=True))
    assert bench.runtime.left == bench.runtime.removed == [task.id]
    assert (await bench.hears("shell.exited"))["shell"]["reason"] == "the task is deleted"


async def test_a_board_with_open_shells_is_deleted_only_by_force(bench: Any) -> None:
    task = await bench.task()
    await bench.open(task_id=task.id)
    with pytest.raises(Conflict, match="open shells"):
        await bench.services.boards.delete(bench.me, BoardDelete(board_id=task.board_id))
    await bench.services.boards.delete(bench.me, BoardDelete(board_id=task.board_id, force=True))
    assert bench.runtime.removed == [task.id]


async def test_a_host_that_shuts_down_closes_its_shells(open_bench: Any) -> None:
    async with open_bench() as bench:
        shell = await bench.open()
        async with anyio.create_task_group() as tasks:

            async def runs() -> None:
                with pytest.raises(Conflict, match="shut down"):
                    await bench.run(shell, "wait")

            tasks.start_soon(runs)
            await bench.runtime.shells[0].waiting.wait()
            await bench.services.shells.shutdown()
        with pytest.raises(Unavailable):
            await bench.open()
    async with open_bench() as bench:
        (row,) = (await bench.services.shells.list(bench.me, wire.ShellList())).shells
        assert (row.state, row.reason) == ("closed", "the host shut down")


async def test_a_shell_that_opens_too_late_for_whoever_asked_ends(bench: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("kandev_host.services.shells.keeper.OPEN_S", 0.01)
    bench.runtime.slow = anyio.Event()
    with pytest.raises(TimedOut):
        await bench.open()
    bench.runtime.slow.set()
    with anyio.fail_after(DEADLINE_S):
        while not bench.runtime.removed:
            await anyio.lowlevel.checkpoint()
    assert bench.runtime.left == bench.runtime.removed


async def test_shells_are_listed_by_task_and_state(bench: Any) -> None:
    task = await bench.task()
    one, two = await bench.open(task_id=task.id), await bench.open()
    await bench.do("close", two)

    async def listed(**what: Any) -> list[str]:
        return [row.id for row in (await bench.services.shells.list(bench.me, wire.ShellList(**what))).shells]

    assert await listed() == [two.id, one.id]
    assert await listed(task_id=task.id) == [one.id]
    assert await listed(state="closed") == [two.id]
    with pytest.raises(NotFound):
        await listed(task_id="nothing")


async def test_a_task_goes_or_a_shell_is_opened_in_it_and_never_both(bench: Any) -> None:
    task, refused = await bench.task(), []

    async def attempt(what: Any) -> None:
        try:
            await what
        except (Conflict, NotFound) as error:
            refused.append(error.message)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(attempt, bench.services.tasks.delete(bench.me, TaskDelete(task_id=task.id)))
        tasks.start_soon(attempt, bench.open(task_id=task.id))
    assert len(refused) == 1, refused
    assert len(bench.runtime.shells) - len(bench.runtime.left) == len(await bench.services.holders.of(task.id))


async def test_a_row_of_a_workspace_without_a_task_is_no_place_for_shells(bench: Any) -> None:
    await bench.services.journal.record(Put(Workspace(id="left", runtime="scripted")))
    with pytest.raises(NotFound):
        await bench.open(workspace_id="left")
