"""Shells of a real host, in real jails: over the socket, from the command line, and at a terminal."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import pty
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from kandev_host.client import Client, ClientError

pytestmark = pytest.mark.anyio

DEADLINE_S = 60


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def client(one_host: Any) -> AsyncIterator[Client]:
    async with Client.connect(one_host.url, one_host.token) as client:
        yield client


class Opened:
    """A shell over the socket."""

    def __init__(self, client: Client, row: dict[str, Any]) -> None:
        self.client = client
        self.row = row
        self.id = row["id"]

    async def do(self, verb: str, **fields: Any) -> Any:
        return await self.client.call(f"shell.{verb}", {"shell_id": self.id, **fields}, DEADLINE_S)

    async def run(self, command: str, **fields: Any) -> Any:
        return await self.do("run", command=command, **fields)


@pytest.fixture
async def shell(client: Client) -> AsyncIterator[Opened]:
    opened = Opened(client, (await client.call("shell.open"))["shell"])
    yield opened
    await opened.do("close")


async def heard(client: Client, action: str, shell_id: str) -> Any:
    with anyio.fail_after(DEADLINE_S):
        async for message in client.notifications():
            if message.action == action and message.payload["shell_id"] == shell_id:
                return message.payload
    raise AssertionError(action)


async def a_task(client: Client, repository: Path | None = None) -> str:
    board = (await client.call("board.create", {"name": "Work"}))["board"]
    wanted = {"board_id": board["id"], "title": "t", "description": ""}
    if repository is not None:
        wanted["repository_url"] = str(repository)
    return str((await client.call("task.create", wanted))["task"]["id"])


# --- over the socket --------------------------------------------------------------------------------------------------


async def test_directory_exports_and_umask_carry_over(shell: Opened) -> None:
    assert (await shell.run("mkdir src; cd src; export A=1; umask 027"))["cwd"] == "/workspace/src"
    reply = await shell.run("pwd; echo $A; umask; exit 7")
    assert (reply["stdout"], reply["exit_code"]) == ("/workspace/src\n1\n0027\n", 7)


async def test_a_shell_outlives_what_its_commands_do_to_it(shell: Opened) -> None:
    for command in (
        "exit 3",
        "exec false",
        "kill -9 $$",
        "echo 'open",
        "cat <<EOF",
        "exec >/dev/null 2>&1",
        "set -e; false",
    ):
        await shell.run(command, timeout_s=20)
        assert (await shell.run("echo on"))["stdout"] == "on\n", command


async def test_a_command_that_takes_too_long_is_killed_with_all_that_it_started(shell: Opened) -> None:
    reply = await shell.run("sleep 1000 & setsid sleep 1000 & sleep 1000", timeout_s=1)
    assert reply["timed_out"]
    assert (await shell.do("jobs"))["jobs"] == []
    assert (await shell.run("echo on"))["stdout"] == "on\n"


async def only_job(shell: Opened) -> dict[str, Any]:
    (job,) = (await shell.do("jobs"))["jobs"]
    return dict(job)


async def test_background_jobs_are_listed_and_killed(shell: Opened) -> None:
    await shell.run("sleep 1000 >/dev/null 2>&1 &")
    with anyio.fail_after(DEADLINE_S):
        # The command may be over before its child, still a copy of the shell, has become another program.
        while "sleep 1000" not in (job := await only_job(shell))["command"]:
            await anyio.sleep(0.05)
    assert (await shell.do("signal", signal="KILL", pid=job["pid"]))["signalled"]
    with anyio.fail_after(DEADLINE_S):
        while (await shell.do("jobs"))["jobs"]:
            await anyio.lowlevel.checkpoint()


async def test_much_output_comes_whole_to_who_reads_it_slowly(client: Client, shell: Opened) -> None:
    size, got = 24 << 20, 0
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(shell.run, f"head -c {size} /dev/zero | tr '\\0' x")
        with anyio.fail_after(DEADLINE_S):
            async for message in client.notifications():
                if message.action == "shell.output":
                    assert message.payload["offset"] == got
                    got += message.payload["bytes"]
                    if got == size:
                        break
    (command,) = (await client.call("shell.commands", {"shell_id": shell.id}))["commands"]
    assert (command["stdout_bytes"], command["truncated"]) == (size, True)


async def test_shells_of_several_people_run_side_by_side(client: Client) -> None:
    shells = [Opened(client, (await client.call("shell.open"))["shell"]) for _ in range(4)]
    async with anyio.create_task_group() as tasks:
        for number, shell in enumerate(shells):
            tasks.start_soon(shell.run, f"i=0; while [ $i -lt 50 ]; do i=$((i+1)); echo {number} >> mine; done")
    for number, shell in enumerate(shells):
        assert (await shell.run("cat mine"))["stdout"] == f"{number}\n" * 50
        await shell.do("close")


async def test_a_shell_has_the_files_of_its_task_and_no_network(client: Client, repository: Path) -> None:
    task_id = await a_task(client, repository)
    shell = Opened(client, (await client.call("shell.open", {"task_id": task_id}))["shell"])
    assert (await shell.run("ls"))["stdout"].split() == ["README.md", "hello.py"]
    reply = await shell.run(
        "cat /proc/net/dev | grep -c : ; id -u; cat /proc/1/environ | tr '\\0' '\\n' | grep -c KANDEV_HOME"
    )
    assert reply["stdout"].split()[0] == "1"
    assert reply["stdout"].split()[-1] == "0"
    with pytest.raises(ClientError, match="open shells"):
        await client.call("task.delete", {"task_id": task_id})
    await client.call("task.delete", {"task_id": task_id, "force": True})
    await heard(client, "shell.exited", shell.id)


async def test_an_agent_and_a_shell_see_the_same_files(client: Client) -> None:
    task_id = await a_task(client)
    shell = Opened(client, (await client.call("shell.open", {"task_id": task_id}))["shell"])
    await shell.run("echo from the shell > note.txt")
    wanted = {"task_id": task_id, "agent_type": "demo", "prompt": "run: cat note.txt > copy.txt", "preset": "contained"}
    agent = (await client.call("agent.launch", wanted))["agent"]
    with anyio.fail_after(DEADLINE_S):
        async for message in client.notifications():
            if message.action == "acp.result":
                break
    assert (await shell.run("cat copy.txt"))["stdout"] == "from the shell\n"
    await client.call("agent.stop", {"agent_id": agent["id"]})
    await shell.do("close")


ASKING = r"""exec 3<>/dev/tcp/127.0.0.1/3128
printf 'CONNECT denied.example:443 HTTP/1.1\r\nHost: denied.example:443\r\n\r\n' >&3; head -1 <&3"""


async def test_what_a_shell_asks_the_network_for_is_told_with_its_id(client: Client) -> None:
    shell = Opened(client, (await client.call("shell.open", {"network": "allowlist", "allow": ["@pypi"]}))["shell"])
    reply = await shell.run(f"bash -c {shlex.quote(ASKING)}")
    assert " 403 " in reply["stdout"], reply
    decided = await heard(client, "network.decided", shell.id)
    assert (decided["allowed"], decided["host"], decided["port"]) == (False, "denied.example", 443)
    await shell.do("close")


async def test_a_terminal_is_one(client: Client) -> None:
    row = (await client.call("shell.open", {"pty": True, "cols": 99, "rows": 33}))["shell"]
    shell = Opened(client, row)
    await shell.do("input", data="stty size; test -t 0 && echo it-is-a-t'ty'\r")
    text = ""
    with anyio.fail_after(DEADLINE_S):
        async for message in client.notifications():
            if message.action == "shell.output":
                text += message.payload["data"]
                if "it-is-a-tty" in text and "33 99" in text:
                    break
    await shell.do("input", data="exit 5\r")
    assert (await heard(client, "shell.exited", shell.id))["shell"]["exit_code"] == 5


async def test_an_attached_shell_goes_with_its_socket(client: Client, one_host: Any) -> None:
    async with Client.connect(one_host.url, one_host.token) as other:
        row = (await other.call("shell.open", {"attached": True}))["shell"]
        await client.subscribe(f"shell:{row['id']}")
        await client.call("events.unsubscribe", {"topics": [f"shell:{row['id']}"]})
    with anyio.fail_after(DEADLINE_S):
        while True:
            shells = (await client.call("shell.list", {"state": "open"}))["shells"]
            if row["id"] not in {each["id"] for each in shells}:
                break
            await anyio.sleep(0.2)
    (gone,) = [each for each in (await client.call("shell.list"))["shells"] if each["id"] == row["id"]]
    assert gone["reason"] == "nobody follows it any more"


async def test_the_files_of_a_scratch_workspace_go_with_it(client: Client, one_host: Any) -> None:
    row = (await client.call("shell.open"))["shell"]
    assert row["workspace_id"] in os.listdir(one_host.home / "workspaces")
    await Opened(client, row).do("close")
    assert row["workspace_id"] not in os.listdir(one_host.home / "workspaces")


# --- a host that dies -------------------------------------------------------------------------------------------------


def left(mark: str) -> list[int]:
    """The processes with this word in their arguments."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                words = Path("/proc", entry, "cmdline").read_bytes()
            except OSError:
                continue
            if mark.encode() in words:
                found.append(int(entry))
    return found


async def test_a_host_that_is_stopped_ends_its_shells_and_says_so_to_who_waits(make_host: Any) -> None:
    host = make_host()
    async with Client.connect(host.url, host.token) as client:
        shell = Opened(client, (await client.call("shell.open"))["shell"])
        async with anyio.create_task_group() as tasks:

            async def runs() -> None:
                with pytest.raises(ClientError, match="the host shut down"):
                    await shell.run("sleep 1000")

            tasks.start_soon(runs)
            with anyio.fail_after(DEADLINE_S):
                while not (await shell.do("jobs"))["jobs"]:
                    await anyio.sleep(0.05)
            assert await anyio.to_thread.run_sync(host.stop) == 0
    host.start()
    assert host.recovered["shells_closed"] == 0
    async with Client.connect(host.url, host.token) as client:
        (command,) = (await client.call("shell.commands"))["commands"]
        assert (command["state"], command["reason"]) == ("killed", "The shell is closed: the host shut down")


async def test_p9_a_killed_host_leaves_no_shell_running_and_the_next_one_says_what_was_lost(make_host: Any) -> None:
    host = make_host()
    mark = f"9{os.urandom(3).hex()}".translate(str.maketrans("abcdef", "123456"))
    async with Client.connect(host.url, host.token) as client:
        row = (await client.call("shell.open"))["shell"]
        terminal = (await client.call("shell.open", {"pty": True}))["shell"]
        await client.call("shell.input", {"shell_id": terminal["id"], "data": f"sleep {mark}\r"})
        async with anyio.create_task_group() as tasks:

            async def runs() -> None:
                with pytest.raises(ClientError):
                    await client.call("shell.run", {"shell_id": row["id"], "command": f"setsid sleep {mark}"})

            tasks.start_soon(runs)
            with anyio.fail_after(DEADLINE_S):
                while len(left(f"sleep\0{mark}")) < 2:
                    await anyio.sleep(0.05)
            host.kill()
    with anyio.fail_after(DEADLINE_S):
        while left(mark):
            await anyio.sleep(0.05)
    host.start()
    assert host.recovered["shells_closed"] == 2
    async with Client.connect(host.url, host.token) as client:
        shells = (await client.call("shell.list"))["shells"]
        assert {(each["id"], each["state"], each["reason"]) for each in shells} == {
            (row["id"], "closed", "host_died"),
            (terminal["id"], "closed", "host_died"),
        }
        commands = (await client.call("shell.commands"))["commands"]
        assert {command["state"] for command in commands} == {"lost"}
    assert row["workspace_id"] not in os.listdir(host.home / "workspaces")


# --- the command line -------------------------------------------------------------------------------------------------


def kandev(host: Any, *arguments: str, **how: Any) -> subprocess.CompletedProcess[bytes]:
    env = {**os.environ, "KANDEV_HOME": str(host.home)}
    command = [sys.executable, "-m", "kandev_host", *arguments]
    return subprocess.run(
        command, env=env, capture_output=True, timeout=100, check=False, stdin=subprocess.DEVNULL, **how
    )


def test_exec_passes_output_errors_and_exit_code_through(one_host: Any) -> None:
    done = kandev(one_host, "exec", "printf 'out\\377'; echo err >&2; exit 42")
    assert (done.returncode, done.stdout, done.stderr) == (42, b"out\xff", b"err\n")


def test_exec_keeps_the_words_of_a_command_apart(one_host: Any) -> None:
    done = kandev(one_host, "exec", "--", "printf", "%s|", "a b", "$HOME", "-x")
    assert done.stdout == b"a b|$HOME|-x|"


def test_exec_runs_in_the_workspace_of_a_task(one_host: Any, repository: Path) -> None:
    async def made() -> str:
        async with Client.connect(one_host.url, one_host.token) as client:
            return await a_task(client, repository)

    task_id = anyio.run(made)
    assert kandev(one_host, "exec", "--task", task_id, "cat hello.py").stdout == b"print('hello, world')\n"


def test_exec_says_when_it_took_too_long(one_host: Any) -> None:
    done = kandev(one_host, "exec", "--timeout", "5", "echo so far; sleep 1000")
    assert (done.returncode, done.stdout) == (124, b"so far\n")
    assert b"--timeout" in done.stderr


def test_exec_leaves_no_shell_and_no_workspace(one_host: Any) -> None:
    before = sorted(os.listdir(one_host.home / "workspaces"))
    kandev(one_host, "exec", "touch a")
    assert sorted(os.listdir(one_host.home / "workspaces")) == before


def test_exec_gives_much_output_whole(one_host: Any) -> None:
    done = kandev(one_host, "exec", "head -c 5000000 /dev/zero | tr '\\0' y")
    assert done.stdout == b"y" * 5_000_000


def test_ctrl_c_goes_to_the_command_of_exec(one_host: Any) -> None:
    env = {**os.environ, "KANDEV_HOME": str(one_host.home)}
    command = [
        sys.executable,
        "-m",
        "kandev_host",
        "exec",
        "trap 'echo caught; exit 9' INT; echo go; while :; do sleep 0.1; done",
    ]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"go\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == b"caught\n"
        assert process.wait(60) == 9


def test_without_a_host_exec_starts_one_for_the_time(tmp_path: Path) -> None:
    env = {**os.environ, "KANDEV_HOME": str(tmp_path / "data")}
    command = [sys.executable, "-m", "kandev_host", "exec", "echo alone; exit 3"]
    done = subprocess.run(command, env=env, capture_output=True, timeout=100, check=False, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (3, b"alone\n"), done.stderr


@contextmanager
def at_a_terminal(host: Any, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The command with a pseudo-terminal as its streams and as its controlling terminal."""
    leader, follower = pty.openpty()
    resize(leader, 30, 90)

    # The leader of a session that opens a terminal has it as its controlling one.
    opening = ["sh", "-c", 'exec "$@" <"$0" >"$0" 2>&1', os.ttyname(follower)]
    process = subprocess.Popen(
        [*opening, sys.executable, "-m", "kandev_host", *arguments],
        env={**os.environ, "KANDEV_HOME": str(host.home)},
        start_new_session=True,
    )
    try:
        yield process, leader
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)
        os.close(follower)
        os.close(leader)


def resize(leader: int, rows: int, columns: int) -> None:
    fcntl.ioctl(leader, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def until(leader: int, wanted: str) -> str:
    """What the terminal shows until `wanted` comes."""
    text, deadline = "", time.monotonic() + DEADLINE_S
    while wanted not in text:
        assert select.select([leader], [], [], max(0.0, deadline - time.monotonic()))[0], text
        try:
            text += os.read(leader, 65536).decode(errors="replace")
        except OSError:
            break
    assert wanted in text, text
    return text


def test_a_terminal_at_the_user_s_own(one_host: Any) -> None:
    """Raw keys, the size and a new one, Ctrl-C, and the exit status."""
    with at_a_terminal(one_host, "shell") as (process, leader):
        os.write(leader, b"stty size; echo 'rea''dy'\r")
        assert "30 90" in until(leader, "ready")
        resize(leader, 44, 111)
        os.write(leader, b"until stty size | grep '44 111'; do sleep 0.1; done; echo 're''sized'\r")
        until(leader, "resized")
        # Once it has said so, it is in the foreground: before, Ctrl-C would be the shell's.
        os.write(leader, b"sh -c \"echo 'go''ing'; exec sleep 1000\"; echo 'no''t'\r")
        until(leader, "going")
        os.write(leader, b"\x03")
        os.write(leader, b"echo 'st''ill here'\r")
        until(leader, "still here")
        os.write(leader, b"exit 6\r")
        assert process.wait(DEADLINE_S) == 6
        mode = termios.tcgetattr(leader)[3]
        assert mode & termios.ECHO
        assert mode & termios.ICANON


def test_a_terminal_is_left_with_a_tilde(one_host: Any) -> None:
    with at_a_terminal(one_host, "shell") as (process, leader):
        os.write(leader, b"echo 'rea''dy'\r")
        until(leader, "ready")
        os.write(leader, b"\r~.")
        until(leader, "[left]")
        assert process.wait(DEADLINE_S) == 0


def test_a_terminal_that_stays_open_is_attached_to(one_host: Any) -> None:
    opened = kandev(one_host, "shell", "open", "--pty", "--json")
    assert opened.returncode == 0, opened.stderr
    shell_id = json.loads(opened.stdout)["shell"]["id"]
    with at_a_terminal(one_host, "shell", "attach", shell_id) as (_, leader):
        os.write(leader, b"export WHO=me; echo 'rea''dy'\r")
        until(leader, "ready")
        os.write(leader, b"\r~.")
        until(leader, "[left]")
    with at_a_terminal(one_host, "shell", "attach", shell_id) as (_, leader):
        os.write(leader, b"echo still-$WHO\r")
        until(leader, "still-me")
    assert kandev(one_host, "shell", "close", shell_id).returncode == 0


def test_an_open_shell_goes_on_where_its_last_command_left_it(one_host: Any) -> None:
    opened = kandev(one_host, "shell", "open", "--json")
    shell_id = json.loads(opened.stdout)["shell"]["id"]
    assert kandev(one_host, "shell", "run", shell_id, "mkdir d; cd d; export A=1; echo first").stdout == b"first\n"
    done = kandev(one_host, "shell", "run", shell_id, "pwd; echo $A; exit 3")
    assert (done.returncode, done.stdout) == (3, b"/workspace/d\n1\n")
    assert kandev(one_host, "shell", "log", shell_id).stdout == b"first\n/workspace/d\n1\n"
    assert b"mkdir d" in kandev(one_host, "shell", "commands", "--shell", shell_id).stdout
    assert kandev(one_host, "shell", "jobs", shell_id).returncode == 0
    told = kandev(one_host, "events", "--topic", f"shell:{shell_id}").stdout
    assert b"finished with 3: pwd; echo $A; exit 3" in told
    assert kandev(one_host, "shell", "close", shell_id[-8:]).returncode == 0


def test_two_dashes_may_stand_before_the_command_of_an_open_shell(one_host: Any) -> None:
    shell_id = json.loads(kandev(one_host, "shell", "open", "--json").stdout)["shell"]["id"]
    done = kandev(one_host, "shell", "run", shell_id, "--", "echo", "first")
    assert (done.returncode, done.stdout) == (0, b"first\n")
    assert kandev(one_host, "shell", "close", shell_id).returncode == 0


def test_a_shell_needs_a_terminal(one_host: Any) -> None:
    done = kandev(one_host, "shell")
    assert done.returncode == 2
    assert b"exec -- CMD" in done.stderr


async def test_bytes_go_both_ways(client: Client) -> None:
    row = (await client.call("shell.open", {"pty": True}))["shell"]
    shell = Opened(client, row)
    await shell.do("input", data="stty raw -echo; head -c 3 | od -An -tx1\r")
    await shell.do("input", data=base64.b64encode(b"\xff\x00\x80").decode(), encoding="base64")
    text = ""
    with anyio.fail_after(DEADLINE_S):
        async for message in client.notifications():
            if message.action == "shell.output":
                text += message.payload["data"]
                if "80" in text.partition("ff")[2]:
                    break
    await shell.do("close")
