"""What every runtime must keep from its processes; of one that does not confine, only that it says so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import SocketStream

from kandev_host import Mount, NetworkDecision, Runtime
from kandev_host.models import Limits
from kandev_host.testing.runtime.base import (
    DAEMON,
    DEADLINE_S,
    HOLD,
    MIB,
    STAY,
    RuntimeSuite,
    confined,
    ended,
    is_held,
    line,
    needs,
    python,
    sh,
    until_free,
)

CONNECT = """
import socket, sys
try:
    with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 5) as connection:
        print(connection.recv(100).decode(), end="")
except OSError:
    print("no")
"""
ASK = """
import sys, urllib.error, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=10).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""
HOARD = "held = [bytearray(b'x') * (1 << 20) for _ in range(400)]; print('held')"
FORKS = 'i=0; while [ $i -lt "$1" ]; do sleep 600 & i=$((i+1)); done; echo all'


class Service:
    """Something on the host's loopback: it greets, and counts who came."""

    def __init__(self) -> None:
        self.came = 0
        self.port = 0

    async def serve(self, stream: SocketStream) -> None:
        self.came += 1
        async with stream:
            await stream.send(b"here")


@asynccontextmanager
async def served() -> AsyncIterator[Service]:
    service = Service()
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        service.port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 - anyio's
        tasks.start_soon(listener.serve, service.serve)
        yield service
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
class ConfinementContract(RuntimeSuite):
    """The tests. They use only what `ProcessSpec` promises."""

    # --- files --------------------------------------------------------------------------------------------------------

    @confined
    async def test_the_hosts_files_are_not_there(self, runtime: Runtime, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("secret")
        result = await runtime.run(sh('cat "$1"', str(tmp_path / "secret")))
        assert (result.exit_code, result.stdout) == (1, b"")

    @confined
    async def test_the_system_cannot_be_written(self, runtime: Runtime) -> None:
        script = "for folder in / /usr /usr/bin /etc /lib; do touch $folder/x 2>/dev/null && echo $folder; done; id -u"
        assert (await runtime.run(sh(script))).stdout.strip() != b"0"
        assert (await runtime.run(sh(script))).stdout.count(b"\n") == 1

    @confined
    async def test_a_mount_is_there_and_cannot_be_written(self, runtime: Runtime, tmp_path: Path) -> None:
        source = a_file(tmp_path / "login.json", "token")
        script = "cat ~/.agent/login.json; echo more >> ~/.agent/login.json; rm -f ~/.agent/login.json"
        result = await runtime.run(sh(script, mounts=(Mount(str(source), "~/.agent/login.json"),)))
        assert result.stdout == b"token"
        assert source.read_text() == "token"

    @confined
    async def test_a_mount_of_one_process_is_in_no_other(self, runtime: Runtime, tmp_path: Path) -> None:
        source = a_file(tmp_path / "login.json", "token")
        await runtime.run(sh("true", mounts=(Mount(str(source), "~/.agent/login.json"),)))
        assert (await runtime.run(sh("cat ~/.agent/login.json"))).stdout == b""

    @confined
    async def test_a_folder_may_be_mounted_to_be_written(self, runtime: Runtime, tmp_path: Path) -> None:
        folder = tmp_path / "shared"
        folder.mkdir()
        folder.chmod(0o777)
        await runtime.run(sh("echo text > /mnt/file", mounts=(Mount(str(folder), "/mnt", read_only=False),)))
        assert (folder / "file").read_text() == "text\n"

    @confined
    async def test_what_is_protected_is_not_changed(self, runtime: Runtime) -> None:
        await runtime.run(sh("echo kind > AGENTS.md; mkdir rules; echo kind > rules/one"))
        script = "for f in AGENTS.md rules/one rules/two; do echo rude > $f; done; rm -rf AGENTS.md rules; mv rules r"
        await runtime.run(sh(script, protected=("AGENTS.md", "rules", "none")))
        assert (await runtime.run(sh("cat AGENTS.md rules/*"))).stdout == b"kind\nkind\n"
        await runtime.run(sh(script))
        assert (await runtime.run(sh("cat AGENTS.md rules/*"))).stdout == b""

    @confined
    async def test_the_hooks_and_the_configuration_of_git_are_not_changed(self, runtime: Runtime) -> None:
        made = "mkdir -p .git/hooks .git/objects .git/refs; echo ref: refs/heads/x > .git/HEAD; echo kind > .git/config"
        await runtime.run(sh(made, pin_git=False))
        script = "echo rude > .git/config; echo rude > .git/hooks/pre-commit; cat .git/config .git/hooks/*"
        assert (await runtime.run(sh(script))).stdout == b"kind\n"
        assert (await runtime.run(sh(script, pin_git=False))).stdout == b"rude\nrude\n"

    @confined
    async def test_processes_of_other_places_are_not_seen(self, runtime: Runtime) -> None:
        async with runtime.spawn(sh(HOLD, "lock", "a-word-to-look-for")) as process:
            await line(process)
            script = "cat /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep -c a-word-to-look-for$"
            assert (await runtime.run(sh(script, workspace="w2"))).stdout == b"0\n"

    # --- network ------------------------------------------------------------------------------------------------------

    @confined
    async def test_without_network_the_host_is_not_reached(self, runtime: Runtime) -> None:
        async with served() as service:
            assert (await runtime.run(python(CONNECT, str(service.port)))).stdout == b"no\n"
            assert service.came == 0

    async def test_with_the_hosts_network_it_is_reached(self, runtime: Runtime) -> None:
        async with served() as service:
            result = await runtime.run(python(CONNECT, str(service.port), network="host"))
            assert (result.stdout, service.came) == (b"here", 1)

    @needs("allowlist")
    @confined
    async def test_a_service_of_the_host_is_reached_where_it_is_named(self, runtime: Runtime) -> None:
        async with served() as service, served() as other:
            allow = (f"127.0.0.1:{service.port}",)
            for network in ("none", "allowlist"):
                spec: dict[str, Any] = {"network": network, "allow": allow}
                assert (await runtime.run(python(CONNECT, str(service.port), **spec))).stdout == b"here"
                assert (await runtime.run(python(CONNECT, str(other.port), **spec))).stdout == b"no\n"
            assert (service.came, other.came) == (2, 0)

    @needs("allowlist")
    @confined
    async def test_what_the_allowlist_does_not_name_is_denied_and_told(self, runtime: Runtime) -> None:
        told: list[NetworkDecision] = []
        came = anyio.Event()

        async def read() -> None:
            async for decision in runtime.decisions():
                told.append(decision)
                came.set()

        labels = {"task_id": "t1"}
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            spec = python(ASK, "http://denied.example/", network="allowlist", allow=("a.example",), labels=labels)
            assert (await runtime.run(spec)).stdout == b"403\n"
            with anyio.fail_after(DEADLINE_S):
                await came.wait()
            tasks.cancel_scope.cancel()
        assert (told[0].allowed, told[0].host, told[0].port) == (False, "denied.example", 80)
        assert told[0].labels == labels

    # --- limits -------------------------------------------------------------------------------------------------------

    @confined
    async def test_memory_is_bounded_and_its_ending_says_so(self, runtime: Runtime) -> None:
        """Said where `probe` does not tell of limits that they are "partial"."""
        details = (await runtime.probe()).details
        async with runtime.spawn(python(HOARD, limits=Limits(memory_limit="64m"))) as process:
            assert await ended(process) != 0
        if details.get("limits") != "partial":
            assert "memory limit of 64.0 MiB" in (process.ending or "")

    @confined
    async def test_one_that_stays_within_its_limits_has_no_ending(self, runtime: Runtime) -> None:
        async with runtime.spawn(python("input()", limits=Limits(memory_limit="256m", cpu_limit="1"))) as process:
            await process.close_stdin()
            assert await ended(process) == 1
        assert process.ending is None

    @confined
    async def test_processes_are_bounded_and_leave_the_others_alone(self, runtime: Runtime) -> None:
        async with runtime.spawn(sh(HOLD, "lock", workspace="w2")) as other:
            await line(other)
            result = await runtime.run(sh(FORKS, str(self.processes_limit + 8)))
            assert b"all" not in result.stdout
            await other.send(b"still here\n")
            assert await line(other) == b"got still here\n"

    @confined
    async def test_a_place_that_holds_more_than_its_limit_is_ended_with_the_reason(self, runtime: Runtime) -> None:
        spec = sh("head -c 8388608 /dev/zero > file; read -r said", limits=Limits(disk_limit="2m"))
        async with runtime.spawn(spec) as process:
            assert await ended(process) != 0
        assert "disk limit of 2.0 MiB" in (process.ending or "")
        assert (await runtime.use("w1")).bytes > 2 * MIB

    # --- leftovers ----------------------------------------------------------------------------------------------------

    @confined
    async def test_the_end_of_the_command_is_the_end_of_its_daemons(self, runtime: Runtime) -> None:
        async with runtime.spawn(sh(DAEMON + "; read -r said; exit 3", "lock")) as process:
            await line(process)
            await process.send(b"end\n")
            assert await ended(process) == 3
            assert not await is_held(runtime)

    @confined
    async def test_daemons_with_another_environment_are_gone_with_the_context(self, runtime: Runtime) -> None:
        clean = STAY.replace("(setsid", '(exec env -i "PATH=$PATH" setsid')
        async with runtime.spawn(sh(clean, "lock")) as process:
            await line(process)
            assert await is_held(runtime)
        await until_free(runtime)


def a_file(path: Path, text: str) -> Path:
    """That only its owner may read, as log-ins are."""
    path.write_text(text)
    path.chmod(0o600)
    return path
