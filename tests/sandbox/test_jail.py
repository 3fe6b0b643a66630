"""What holds in every jail, for each bubblewrap of this machine, as root (dropped) and as an ordinary user."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from kandev_sandbox import (
    Bind,
    Limits,
    Owner,
    PolicyError,
    SandboxError,
    StagingFailed,
    Streams,
    jails,
    open_jail,
)
from kandev_sandbox.processes import Identity, identify

pytestmark = pytest.mark.anyio
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the drop to a workspace's uid")


async def test_the_exit_code_is_the_commands(sandbox: Any) -> None:
    assert (await sandbox.sh("exit 3")).code == 3


async def test_a_command_that_dies_of_a_signal_ends_with_128_and_its_number(sandbox: Any) -> None:
    assert (await sandbox.sh("kill -TERM $$")).code == 143


async def test_input_comes_back_through_the_pipes(sandbox: Any) -> None:
    async with sandbox.open("cat") as jail:
        await jail.stdin.send(b"through")
        await jail.stdin.aclose()
        assert b"".join([chunk async for chunk in jail.stdout]) == b"through"
        assert await jail.wait() == 0


async def test_much_output_arrives_completely(sandbox: Any) -> None:
    size = 0
    async with sandbox.open("head", "-c", str(64 << 20), "/dev/zero") as jail:
        async for chunk in jail.stdout:
            size += len(chunk)
    assert size == 64 << 20


async def test_the_hosts_environment_is_not_in_the_jail(sandbox: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST_SECRET", "hunter2")
    assert "hunter2" not in (await sandbox.sh("env; cat /proc/*/environ | tr '\\0' '\\n'")).out


async def test_a_secret_of_the_policy_reaches_the_command_and_not_pid_1(sandbox: Any) -> None:
    done = await sandbox.sh('echo "$KEY"; cat /proc/1/environ /proc/1/cmdline', env={"KEY": "s3cret"})
    assert done.out.startswith("s3cret\n")
    assert done.out.count("s3cret") == 1


async def test_pid_1_tells_no_path_of_the_host(sandbox: Any, tmp_path: Path) -> None:
    assert str(tmp_path) not in (await sandbox.sh("cat /proc/1/cmdline /proc/1/environ")).out


async def test_the_command_has_three_descriptors(sandbox: Any) -> None:
    assert (await sandbox.sh("ls /proc/$$/fd; true")).out.split() == ["0", "1", "2"]


async def test_pid_1_holds_no_file_of_the_host(sandbox: Any) -> None:
    done = await sandbox.sh("for fd in /proc/1/fd/*; do readlink $fd; done")
    assert all(target.startswith(("pipe:", "anon_inode:")) for target in done.out.split())


@pytest.mark.parametrize("path", ["/x", "/dev/x", "/usr/x", "/etc/x", "/proc/sys/x"])
async def test_the_system_is_read_only(sandbox: Any, path: str) -> None:
    assert (await sandbox.sh(f"touch {path}")).code != 0


@pytest.mark.parametrize("path", ["/workspace", "/home/agent", "/tmp", "/run", "/dev/shm"])
async def test_its_own_places_are_writable(sandbox: Any, path: str) -> None:
    assert (await sandbox.sh(f"touch {path}/x && test -e {path}/x")).code == 0


async def test_without_folders_home_and_tmp_are_scratch(sandbox: Any) -> None:
    assert (await sandbox.sh("touch ~/x /tmp/x", home=None, tmp=None)).code == 0
    assert (await sandbox.sh("ls ~ /tmp", home=None, tmp=None)).out.count("x") == 0


async def test_files_of_the_host_are_invisible(sandbox: Any, tmp_path: Path) -> None:
    hidden = ["/root", "/etc/shadow", "/var/lib", "/sys", "/boot", str(tmp_path), str(Path(__file__))]
    done = await sandbox.sh("".join(f"test -e {path} && echo {path};" for path in hidden))
    assert done.out == ""


async def test_proc_tells_nothing_of_the_kernel(sandbox: Any) -> None:
    names = "cmdline interrupts kallsyms kcore key-users keys kmsg timer_list sched_debug"
    done = await sandbox.sh(f"cd /proc; for name in {names}; do head -c 1 $name; done; ls -A acpi asound scsi")
    assert "".join(line for line in done.out.splitlines() if line not in {"acpi:", "asound:", "scsi:", ""}) == ""


async def test_certificates_are_there_and_their_keys_are_not(sandbox: Any) -> None:
    assert (await sandbox.sh("ls /etc/ssl/certs | head -n 1")).out
    assert (await sandbox.sh("ls /etc/ssl/private /etc/pki/tls/private; true")).out == ""


async def test_a_program_that_wants_var_tmp_has_it(sandbox: Any) -> None:
    assert (await sandbox.sh("touch /var/tmp/x && test -e /tmp/x")).code == 0


async def test_the_passwd_file_knows_nobody_of_the_host(sandbox: Any) -> None:
    names = (await sandbox.sh("cut -d: -f1 /etc/passwd")).out.split()
    assert names == ["root", "agent", "nobody"]


async def test_processes_of_the_host_are_invisible(sandbox: Any) -> None:
    done = await sandbox.sh("ls /proc | grep -c '^[0-9]'")
    assert int(done.out) <= 4


async def test_without_network_there_is_loopback_only(sandbox: Any) -> None:
    done = await sandbox.sh("cut -d: -f1 /proc/net/dev | tail -n +3")
    assert done.out.split() == ["lo"]


async def test_it_has_no_capability_and_can_gain_none(sandbox: Any) -> None:
    done = await sandbox.sh("grep -E '^(Cap|NoNewPrivs)' /proc/self/status")
    facts = dict(line.split(":\t") for line in done.out.splitlines())
    assert {name: value.strip("0") for name, value in facts.items()} == {
        "CapInh": "", "CapPrm": "", "CapEff": "", "CapBnd": "", "CapAmb": "", "NoNewPrivs": "1",
    }  # fmt: skip


async def test_user_namespaces_are_refused(sandbox: Any) -> None:
    assert (await sandbox.sh("unshare --user true")).code != 0


async def test_a_nested_policy_lets_the_command_make_a_jail(sandbox: Any) -> None:
    inner = "bwrap --unshare-user --unshare-pid --unshare-net --ro-bind / / --proc /proc true"
    done = await sandbox.sh(f"command -v bwrap >/dev/null || exit 0; {inner}", nested=True)
    assert done.code == 0, done.err


@as_root
async def test_what_it_writes_belongs_to_the_workspaces_uid(sandbox: Any) -> None:
    await sandbox.sh("touch /workspace/x ~/y /tmp/z")
    owners = {(folder / name).stat().st_uid for folder, name in zip(
        (sandbox.policy.workspace, sandbox.policy.home, sandbox.policy.tmp), "xyz", strict=True
    )}  # fmt: skip
    assert owners == {sandbox.policy.uid}


@as_root
async def test_a_tree_that_the_jails_uid_cannot_enter_is_named_with_the_fix(sandbox: Any, tmp_path: Path) -> None:
    """As a virtual environment that root made with umask 077."""
    shut = tmp_path / "venv"
    shut.mkdir(mode=0o700)
    with pytest.raises(StagingFailed, match="cannot enter") as caught:
        await sandbox.sh("true", binds=(Bind(shut),))
    assert caught.value.fix == f"chmod -R go+rX {shut}"


@as_root
async def test_its_processes_run_as_the_workspaces_uid_without_groups(sandbox: Any) -> None:
    async with sandbox.open("sleep", "60") as jail:
        status = Path(f"/proc/{jail.init.pid}/status").read_text()  # noqa: ASYNC240
    lines = dict(line.split(":", 1) for line in status.splitlines())
    assert set(lines["Uid"].split()) == set(lines["Gid"].split()) == {str(sandbox.policy.uid)}
    assert lines["Groups"].strip() == ""


@as_root
async def test_a_jail_never_runs_as_root(sandbox: Any) -> None:
    with pytest.raises(PolicyError, match="never run as root"):
        await sandbox.sh("true", uid=None)


async def test_a_bind_is_read_only_at_its_own_path(sandbox: Any, tmp_path: Path) -> None:
    folder = tmp_path / "library"
    folder.mkdir()
    (folder / "file").write_text("text")
    folder.chmod(0o777)
    done = await sandbox.sh(f"cat {folder}/file; touch {folder}/x", binds=(Bind(folder),))
    assert done.out == "text"
    assert "Read-only file system" in done.err


@as_root
async def test_a_file_that_the_uid_cannot_read_is_shown_as_a_copy(sandbox: Any, tmp_path: Path) -> None:
    login = tmp_path / "login.json"
    login.write_text("token")
    login.chmod(0o600)
    done = await sandbox.sh("cat ~/.login", binds=(Bind(login, "/home/agent/.login"),))
    assert done.out == "token"
    assert login.stat().st_uid == 0


async def test_a_missing_bind_names_the_path(sandbox: Any) -> None:
    with pytest.raises(SandboxError, match="/nowhere/at/all"):
        await sandbox.sh("true", binds=(Bind(Path("/nowhere/at/all")),))


async def test_a_jail_that_ends_while_it_is_looked_at_says_what_bwrap_said(
    sandbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(pid: int) -> Identity | None:
        found = identify(pid)
        deadline = time.monotonic() + 60
        while identify(pid) is not None and time.monotonic() < deadline:
            time.sleep(0.001)
        return found

    monkeypatch.setattr("kandev_sandbox.jail.identify", slowly)
    with pytest.raises(SandboxError, match="/nowhere/at/all"):
        await sandbox.sh("true", binds=(Bind(Path("/nowhere/at/all")),))


async def test_a_command_that_is_not_there_was_not_run(sandbox: Any) -> None:
    async with sandbox.open("/workspace/nothing") as jail:
        assert await jail.wait() == 1
        assert not jail.ran


async def test_limits_hold_inside(sandbox: Any) -> None:
    done = await sandbox.sh("ulimit -n; ulimit -Hn; ulimit -c", limits=Limits(open_files=100))
    assert done.out.split() == ["100", "100", "0"]


async def test_terminate_reaches_the_command_and_not_bwrap(sandbox: Any) -> None:
    async with sandbox.open(
        "/bin/sh", "-c", "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.01; done"
    ) as jail:
        await jail.stdout.receive()
        await jail.terminate()
        assert b"".join([chunk async for chunk in jail.stdout]) == b"bye\n"
        assert await jail.wait() == 5


async def test_a_killed_jail_ends_with_minus_9(sandbox: Any) -> None:
    async with sandbox.open("sleep", "60") as jail:
        await jail.kill()
        assert await jail.wait() == -9


async def test_several_tasks_may_wait(sandbox: Any) -> None:
    codes = []

    async def wait(jail: Any) -> None:
        codes.append(await jail.wait())

    async with sandbox.open("cat") as jail, anyio.create_task_group() as group:
        group.start_soon(wait, jail)
        group.start_soon(wait, jail)
        await jail.stdin.aclose()
    assert codes == [0, 0]


DAEMON = "setsid sh -c 'trap \"\" TERM HUP; echo up; exec env -i sleep {}' & "


@pytest.mark.parametrize("end", ["kill", "leave", "exit"])
async def test_nothing_is_left_behind(sandbox: Any, watch: Any, end: str) -> None:
    word = f"86{os.getpid()}.{os.urandom(3).hex()}".replace("a", "1").translate(str.maketrans("bcdef", "23456"))
    script = DAEMON.format(word) + "read line"
    async with sandbox.open("/bin/sh", "-c", script) as jail:
        await jail.stdout.receive()
        with anyio.fail_after(60):
            while not (pids := watch.pids(word)):
                await anyio.lowlevel.checkpoint()
        if end == "kill":
            await jail.kill()
            assert watch.ended(pids, 0)
        elif end == "exit":
            await jail.stdin.send(b"\n")
            await jail.wait()
            assert watch.ended(pids, 0)
    assert watch.ended(pids, 0)


async def test_a_cancelled_start_leaves_nothing(sandbox: Any) -> None:
    owner = Owner.here(f"cancelled-{os.getpid()}")
    assert (await sandbox.sh("true", owner=owner)).code == 0
    before = sorted(os.listdir("/proc/self/fd"))
    for delay in (0.0, 0.001, 0.002, 0.003, 0.004, 0.006, 0.008):
        with anyio.move_on_after(delay):
            async with sandbox.open("sleep", "60", owner=owner):
                await anyio.sleep_forever()
    assert jails(owner.name) == []
    assert sorted(os.listdir("/proc/self/fd")) == before


async def test_a_folder_that_cannot_be_entered_is_reported(sandbox: Any) -> None:
    async with sandbox.open("true", cwd="/workspace/none") as jail:
        await jail.wait()
        assert not jail.ran
        assert b"chdir" in await jail.stderr.receive()


async def test_streams_may_be_closed_off(sandbox: Any) -> None:
    async with open_jail(sandbox.policy, ["cat"], bwrap=sandbox.bwrap, streams=Streams("null", "null", "null")) as jail:
        assert jail.stdin is jail.stdout is jail.stderr is None
        assert await jail.wait() == 0


async def test_a_source_that_cannot_be_reached_is_named(sandbox: Any, tmp_path: Path) -> None:
    """As root the stage finds out, as a user bwrap does."""
    secret = tmp_path / "shut"
    secret.mkdir(mode=0)
    with pytest.raises(SandboxError, match="inner"):
        await sandbox.sh("true", binds=(Bind(secret / "inner"),))
