"""What is mounted for an ordinary user in folders that another jail may write to: bwrap walks to none of it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kandev_sandbox import Bind, SandboxError, StagingFailed, argv, examine, inspect, leftovers, userstage
from kandev_sandbox.policy import MAX_PROTECTED

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(os.geteuid() == 0, reason="root has a stage; test_as_user.py runs these again as a user"),
]

SWAP = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
os.chdir(os.environ["HOME"])
os.mkdir(".x")
os.symlink(sys.argv[1], ".y")
print("up", flush=True)
while True:
    libc.renameat2(-100, b".x", -100, b".y", 2)
"""

BROKEN = """
import os
def main(arguments):
    if arguments == ["probe"]:
        print(28, "No space left on device")
    else:
        os.write(int(arguments[1]), b"!full\\n")
"""


@pytest.fixture
def tool(tmp_path: Path) -> Path:
    path = tmp_path / "tool"
    path.write_text("tool\n")
    return path


@pytest.fixture
def repository(sandbox: Any) -> Path:
    git: Path = sandbox.policy.workspace / ".git"
    git.mkdir()
    (git / "config").write_text("[core]\n")
    return git


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What bwrap was told, of all starts."""
    given, told = argv.options, []

    def telling(*arguments: Any, **named: Any) -> list[str]:
        words = given(*arguments, **named)
        told.extend(words)
        return words

    monkeypatch.setattr(argv, "options", telling)
    return told


def capabilities(pid: int) -> set[str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {line.split()[1] for line in lines if line.startswith(("CapPrm", "CapEff", "CapInh", "CapAmb"))}


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(userstage, "refusal", lambda: "Permission denied")


async def test_this_machine_lets_a_user_take_namespaces(sandbox: Any) -> None:
    assert userstage.refusal() is None


@pytest.mark.timeout(300)
async def test_a_jail_that_swaps_a_folder_for_a_link_has_nothing_made_outside(
    sandbox: Any, tool: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    python = shutil.which("python3", path="/usr/bin")
    assert python is not None
    async with sandbox.open(python, "-c", SWAP, f"/oldroot{outside}") as jail:
        assert jail.stdout is not None
        await jail.stdout.receive()
        for number in range(300):
            bind = Bind(tool, f"/home/agent/.x/f{number % 5}")
            try:
                async with sandbox.open("true", binds=(bind,)):
                    pass
            except SandboxError:
                continue
    assert os.listdir(outside) == []


async def test_bwrap_is_told_of_no_place_that_another_jail_may_change(
    sandbox: Any, repository: Path, tool: Path, options: list[str]
) -> None:
    done = await sandbox.sh("cat ~/.x/tool", binds=(Bind(tool, "/home/agent/.x/tool"), Bind(tool, "/opt/tool")))
    assert done.out == "tool\n"
    assert "/opt/tool" in options
    assert [word for word in options if "/.git" in word or "/.x" in word or word.endswith("bind-fd")] == []


async def test_without_such_mounts_bwrap_is_started_as_it_is(sandbox: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(userstage, "command", None)
    assert (await sandbox.sh("echo ran")).out == "ran\n"


@pytest.mark.parametrize("nested", [False, True])
async def test_binds_and_pins_hold_together(sandbox: Any, repository: Path, tool: Path, nested: bool) -> None:
    script = "cat tools/tool ~/a/b; for file in tools/tool ~/a/b .git/config; do echo x >> $file; done; touch .git/new"
    binds = (Bind(tool, "/workspace/tools/tool"), Bind(tool, "/home/agent/a/b"))
    done = await sandbox.sh(script, binds=binds, protected=("tools",), nested=nested)
    assert (done.out, done.err.count("Read-only file system")) == ("tool\ntool\n", 3)
    assert (repository / "new").exists()


async def test_what_a_bind_covers_is_as_the_bind_says(sandbox: Any, tmp_path: Path) -> None:
    library = tmp_path / "library"
    library.mkdir()
    (sandbox.policy.workspace / "tools").mkdir()
    (sandbox.policy.workspace / "tools" / "run").touch()
    bind = Bind(library, "/workspace/tools", read_only=False)
    assert (await sandbox.sh("touch tools/new", binds=(bind,), protected=("tools/run",))).err == ""
    assert os.listdir(library) == ["new"]


async def test_the_places_of_a_policy_may_lie_in_tmp(sandbox: Any, repository: Path) -> None:
    """Which is covered while the mounts are made."""
    assert (await sandbox.sh("echo x > /tmp/x; cat /tmp/x; echo x >> .git/config")).out == "x\n"


async def test_as_many_paths_as_a_policy_may_protect(sandbox: Any) -> None:
    paths = [f"{number}/below/file" for number in range(MAX_PROTECTED)]
    for path in paths:
        (sandbox.policy.workspace / path).parent.mkdir(parents=True)
        (sandbox.policy.workspace / path).touch()
    done = await sandbox.sh("for file in */*/file; do echo x >> $file; done", protected=tuple(paths))
    assert done.err.count("Read-only file system") == MAX_PROTECTED


async def test_names_of_any_kind_are_mounted(sandbox: Any, tmp_path: Path) -> None:
    source = tmp_path / "a b\\c\n"
    source.mkdir()
    (source / "tool").write_text("tool\n")
    done = await sandbox.sh(
        """cat ~/*/tool; for folder in ~/*; do touch "$folder/new"; done""",
        binds=(Bind(source, "/home/agent/d e\\f\ng"),),
    )
    assert done.out == "tool\n"
    assert "Read-only file system" in done.err


async def test_a_bwrap_of_the_users_own_is_run_from_memory_too(sandbox: Any, repository: Path, tmp_path: Path) -> None:
    copy = tmp_path / "bwrap"
    shutil.copy("/usr/bin/bwrap", copy)
    own = replace(sandbox, bwrap=inspect(copy))
    done = await own.sh("readlink /proc/1/exe; echo x >> .git/config; cat /proc/1/environ")
    assert done.out.startswith("/memfd:")
    assert "Read-only file system" in done.err
    assert [pair.split("=")[0] for pair in done.out.split("\n", 1)[1].split("\0") if pair] == ["KANDEV_JAIL"]


async def test_signals_are_as_they_are_without(sandbox: Any, repository: Path) -> None:
    """Python ignores some, which a command would inherit."""
    with_mounts = await sandbox.sh("grep ^Sig /proc/self/status")
    shutil.rmtree(repository)
    assert with_mounts.out == (await sandbox.sh("grep ^Sig /proc/self/status")).out


async def test_no_capability_comes_along(sandbox: Any, repository: Path) -> None:
    async with sandbox.open("sleep", "60") as jail:
        sets = capabilities(jail.pid)
    assert sets == {"0" * 16}


async def test_nothing_is_left_of_a_start(sandbox: Any, repository: Path, tool: Path) -> None:
    def here() -> tuple[list[str], list[str], list[str]]:
        children = Path("/proc/thread-self/children").read_text().split()
        return sorted(os.listdir("/proc/self/fd")), children, sorted(os.listdir(sandbox.policy.workspace.parent))

    binds = (Bind(tool, "/home/agent/tool"),)
    await sandbox.sh("true", binds=binds)
    before = here()
    await sandbox.sh("true", binds=binds)
    assert here() == before


async def test_a_source_that_is_not_there_is_named(sandbox: Any, tmp_path: Path) -> None:
    with pytest.raises(StagingFailed, match="gone cannot be shown: No such file"):
        await sandbox.sh("true", binds=(Bind(tmp_path / "gone", "/home/agent/gone"),))


async def test_where_namespaces_are_refused_bwrap_makes_the_mounts(
    sandbox: Any, repository: Path, tool: Path, refused: None, options: list[str]
) -> None:
    done = await sandbox.sh("cat ~/tool; echo x >> .git/config", binds=(Bind(tool, "/home/agent/tool"),))
    assert done.out == "tool\n"
    assert "Read-only file system" in done.err
    assert "/home/agent/tool" in options


async def test_what_the_kernel_refuses_by_itself_is_no_reason_to_do_without(
    sandbox: Any, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a limit that is reached: then there is no jail."""
    broken = tmp_path / "helper.py"
    broken.write_text(BROKEN)
    monkeypatch.setattr(userstage, "SCRIPT", broken)
    userstage.refusal.cache_clear()
    assert userstage.refusal() is None
    with pytest.raises(StagingFailed, match="full"):
        await sandbox.sh("true")


@pytest.mark.parametrize("number", ["1", "13"])
def test_a_refusal_is_told_in_the_kernels_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: str) -> None:
    script = tmp_path / "helper.py"
    script.write_text(f"def main(arguments):\n    print({number}, 'Permission denied')\n")
    monkeypatch.setattr(userstage, "SCRIPT", script)
    userstage.refusal.cache_clear()
    assert userstage.refusal() == "Permission denied"
    userstage.refusal.cache_clear()


async def test_the_doctor_says_what_is_not_promised_where_namespaces_are_refused(bwrap: Any, refused: None) -> None:
    report = await examine([bwrap.path])
    assert (report.ok, report.mounts) == (True, "partial")
    assert str(report.mounts_reason).startswith("User namespaces are for bubblewrap alone here (Permission denied).")
    assert "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0" in str(report.mounts_fix)


async def test_the_doctor_says_where_they_are_not(bwrap: Any) -> None:
    report = (await examine([bwrap.path])).as_json()
    assert (report["mounts"], report["mounts_reason"], report["mounts_fix"]) == ("full", None, None)


HOST = """
import anyio, sys
from pathlib import Path
from kandev_sandbox import Bind, Owner, Policy, inspect, open_jail
bwrap, workspace, home, tool, word = sys.argv[1:]
async def main():
    policy = Policy(workspace=Path(workspace), home=Path(home), binds=(Bind(Path(tool), "/home/agent/tool"),))
    found = inspect(Path(bwrap))
    print("go", flush=True)
    while True:
        async with open_jail(policy, ["sleep", word], bwrap=found, owner=Owner.here("staging-" + word)):
            pass
anyio.run(main)
"""


def test_a_host_killed_while_mounts_are_made_leaves_nothing(
    sandbox: Any, watch: Any, host: Callable[..., subprocess.Popen[str]], tool: Path
) -> None:
    word = f"66{os.getpid()}.{int.from_bytes(os.urandom(3))}"
    policy = sandbox.policy
    for delay_ms in range(4, 64, 5):
        process = host(HOST, str(sandbox.bwrap.path), str(policy.workspace), str(policy.home), str(tool), word)
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(delay_ms / 1000)  # the moment within a start is the point of this test
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 3.0
    while left := [*watch.pids(word), *(who.pid for jail in leftovers(f"staging-{word}") for who in jail.processes)]:
        assert watch.ended([pid for pid in left if pid != os.getpid()], max(0.0, deadline - time.monotonic()))
