"""Reliability P4: no process of a jail outlives its host by more than 3 s; what does is found and ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kandev_sandbox import Owner, jails, leftovers, records, sweep
from kandev_sandbox.processes import Identity, identify

HOST = """
import anyio, sys
from pathlib import Path
from kandev_sandbox import Owner, Policy, inspect, open_jail
bwrap, workspace, uid, word, records, owner = sys.argv[1:]
async def main():
    script = f"setsid env -i sleep {word} & setsid sleep {word} & echo up; exec sleep {word}"
    policy = Policy(workspace=Path(workspace), uid=int(uid) or None)
    async with open_jail(policy, ["/bin/sh", "-c", script], bwrap=inspect(Path(bwrap)), owner=Owner.here(owner),
                         folder=Path(records)) as jail:
        await jail.stdout.receive()
        print("up", flush=True)
        await anyio.sleep_forever()
anyio.run(main)
"""


def test_nothing_outlives_a_killed_host(
    sandbox: Any, watch: Any, host: Callable[..., subprocess.Popen[str]], tmp_path: Path, name: str
) -> None:
    word = f"77{os.getpid()}.{int.from_bytes(os.urandom(3))}"
    policy = sandbox.policy
    arguments = (str(sandbox.bwrap.path), str(policy.workspace), str(policy.uid or 0), word, str(tmp_path), name)
    process = host(HOST, *arguments)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    [jail] = jails(name, tmp_path)
    assert jail.host_alive
    pids = [*watch.pids(word), *(who.pid for who in jail.processes)]
    process.send_signal(signal.SIGKILL)
    assert watch.ended(pids, 3.0)
    assert leftovers(name, tmp_path) == []
    sweep(name, tmp_path)
    assert list(tmp_path.glob("*.json")) == []


STARTING = """
import anyio, sys
from pathlib import Path
from kandev_sandbox import Owner, Policy, inspect, open_jail
bwrap, workspace, uid, word = sys.argv[1:]
async def main():
    policy = Policy(workspace=Path(workspace), uid=int(uid) or None)
    found = inspect(Path(bwrap))
    print("go", flush=True)
    while True:
        async with open_jail(policy, ["sleep", word], bwrap=found, owner=Owner.here("starting-" + word)):
            pass
anyio.run(main)
"""


def test_a_host_killed_while_it_starts_jails_leaves_nothing(
    sandbox: Any, watch: Any, host: Callable[..., subprocess.Popen[str]]
) -> None:
    """bubblewrap #633: between the steps of --die-with-parent nothing binds a jail to its host."""
    policy = sandbox.policy
    word = f"88{os.getpid()}.{int.from_bytes(os.urandom(3))}"
    for delay_ms in range(8, 24, 4):
        arguments = (str(sandbox.bwrap.path), str(policy.workspace), str(policy.uid or 0), word)
        process = host(STARTING, *arguments)
        assert process.stdout is not None
        process.stdout.readline()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(delay_ms / 1000)  # the moment within a start is the point of this test
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 3.0
    while left := leftovers(f"starting-{word}"):
        pids = [who.pid for jail in left for who in jail.processes]
        assert watch.ended(pids, max(0.0, deadline - time.monotonic()))


def _dead() -> Identity:
    process = subprocess.Popen(["/bin/true"])
    who = identify(process.pid)
    process.wait()
    assert who is not None
    return who


@pytest.fixture
def name() -> str:
    """Of an owner that is this test's alone: the same tests run beside these as another user."""
    return f"death-{os.getpid()}-{os.urandom(4).hex()}"


def _sleeper(owner: Owner) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "600"], env={records.VARIABLE: owner.mark("abc")})


def test_a_marked_process_of_a_dead_host_is_swept(name: str) -> None:
    owner = Owner(name, _dead())
    process = _sleeper(owner)
    assert [jail.id for jail in leftovers(name)] == ["abc"]
    assert sweep(name) == 1
    assert process.wait(timeout=60) == -signal.SIGKILL


def test_a_process_of_a_living_host_is_not_swept(name: str) -> None:
    process = _sleeper(Owner.here(name))
    assert sweep(name) == 0
    assert [jail.host_alive for jail in jails(name)] == [True]
    process.kill()
    process.wait()


def test_a_recorded_process_is_found_without_its_mark(name: str, tmp_path: Path) -> None:
    process = subprocess.Popen(["sleep", "600"], env={})
    who = identify(process.pid)
    assert who is not None
    records.write(tmp_path, Owner(name, _dead()), "jail1", (who,), {"task": "t"})
    [jail] = leftovers(name, tmp_path)
    assert jail.labels == {"task": "t"}
    assert sweep(name, tmp_path) == 1
    assert process.wait(timeout=60) == -signal.SIGKILL


def test_a_reused_pid_is_left_alone(name: str, tmp_path: Path) -> None:
    process = subprocess.Popen(["sleep", "600"], env={})
    records.write(tmp_path, Owner(name, _dead()), "jail1", (Identity(process.pid, 1),), {})
    assert sweep(name, tmp_path) == 0
    assert process.poll() is None
    process.kill()
    process.wait()
