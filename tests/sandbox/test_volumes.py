"""A volume bounds bytes and inodes, and nothing of its mount outlives the process that holds it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from kandev_sandbox import Bwrap, volumes
from kandev_sandbox.errors import VolumeFailed
from kandev_sandbox.namespaces import within

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root mounts volumes"),
]
MIB = 1 << 20
CYCLES = 1000
SIDE_BY_SIDE = 8


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "volume.img"
    volumes.create(path, 16 * MIB, 100)
    (tmp_path / "point").mkdir()
    yield path
    os.close(volumes.locked(path))  # whatever a test did, nothing has it mounted now


def loops(image: Path) -> list[str]:
    found = []
    for path in Path("/sys/block").glob("loop*"):
        try:
            backing = (path / "loop" / "backing_file").read_text()
        except OSError:  # it has none; or another test's, until this moment
            continue
        if backing.strip() == str(image):
            found.append(path.name)
    return found


def is_mounted(image: Path) -> bool:
    """Is anything of its folder to be seen among the mounts of this process?"""
    return str(image.parent) in Path("/proc/self/mountinfo").read_text()


@pytest.fixture
def volume(image: Path, sandbox: Any) -> Iterator[int]:
    """Mounted so that the sandbox's folders are in it."""
    policy = sandbox.policy
    shown = {"workspace": policy.workspace, "home": policy.home, "tmp": policy.tmp}
    descriptor = volumes.mount(image, image.with_name("point"), shown, policy.uid)
    yield descriptor
    os.close(descriptor)


async def test_what_a_jail_writes_lies_in_the_volume(sandbox: Any, volume: int) -> None:
    policy = sandbox.policy
    script = "echo 1 > file; echo 2 > ~/file; echo 3 > /tmp/file; id -u > who"
    assert (await sandbox.sh(script, namespace=volume)).code == 0
    assert not any((folder / "file").exists() for folder in (policy.workspace, policy.home, policy.tmp))
    assert (await sandbox.sh("cat file ~/file /tmp/file", namespace=volume)).out == "1\n2\n3\n"


async def test_its_bytes_are_bounded(sandbox: Any, volume: int) -> None:
    done = await sandbox.sh("head -c 33554432 /dev/zero > file", namespace=volume)
    assert (done.code, "No space left" in done.err) == (1, True)


async def test_its_inodes_are_bounded(sandbox: Any, volume: int) -> None:
    done = await sandbox.sh("i=0; while [ $i -lt 300 ]; do i=$((i+1)); : > $i || exit 9; done", namespace=volume)
    assert done.code != 0
    assert "No space left" in done.err


async def test_devices_and_set_user_bits_are_of_no_use_in_it(sandbox: Any, volume: int) -> None:
    options = within(volume, lambda: Path("/proc/thread-self/mounts").read_text())
    [line] = [line for line in options.splitlines() if line.split()[1] == str(sandbox.policy.workspace)]
    assert {"nosuid", "nodev"} <= set(line.split()[3].split(","))


async def test_jails_share_one_mount(sandbox: Any, volume: int, image: Path) -> None:
    async with sandbox.open("sh", "-c", "read x; cat file", namespace=volume) as first:
        await sandbox.sh("echo shared > file", namespace=volume)
        assert len(loops(image)) == 1
        await first.stdin.send(b"\n")
        assert await first.stdout.receive() == b"shared\n"


async def test_a_missing_mount_point_is_made_in_the_volume(sandbox: Any, volume: int, tmp_path: Path) -> None:
    from kandev_sandbox import Bind

    (tmp_path / "login").write_text("secret")
    binds = (Bind(tmp_path / "login", "/home/agent/.config/login"),)
    assert (await sandbox.sh("cat ~/.config/login", namespace=volume, binds=binds)).out == "secret"
    assert list(sandbox.policy.home.iterdir()) == []


async def test_files_stay_when_it_is_mounted_again(sandbox: Any, image: Path) -> None:
    shown = {"workspace": sandbox.policy.workspace}
    for script in ("echo stays > file", "cat file"):
        descriptor = volumes.mount(image, image.with_name("point"), shown, sandbox.policy.uid)
        done = await sandbox.sh(script, namespace=descriptor)
        os.close(descriptor)
    assert done.out == "stays\n"


def test_the_host_sees_nothing_of_the_mount(volume: int, image: Path) -> None:
    assert not is_mounted(image)
    assert within(volume, os.path.ismount, image.with_name("point"))


def test_closing_the_descriptor_unmounts_and_frees_the_device(image: Path) -> None:
    os.close(volumes.mount(image, image.with_name("point"), {}, 0))
    os.close(volumes.locked(image))
    assert loops(image) == []


def test_it_is_never_mounted_twice(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    descriptor = volumes.mount(image, image.with_name("point"), {}, 0)
    try:
        with pytest.raises(VolumeFailed, match="still mounted"):
            volumes.locked(image, timeout_s=0.05)
    finally:
        os.close(descriptor)


def test_a_file_that_is_no_volume_is_refused_and_frees_the_device(tmp_path: Path) -> None:
    path = tmp_path / "volume.img"
    path.write_bytes(bytes(MIB))
    (tmp_path / "point").mkdir()
    with pytest.raises(VolumeFailed, match="cannot be mounted"):
        volumes.mount(path, tmp_path / "point", {}, 0)
    os.close(volumes.locked(path))
    assert loops(path) == []


def test_one_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(VolumeFailed):
        volumes.create(tmp_path / "volume.img", 4096, 1)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_one_takes_little(tmp_path: Path) -> None:
    volumes.create(tmp_path / "volume.img", 16 << 30, 2_000_000)
    assert (tmp_path / "volume.img").stat().st_blocks * 512 < 2 * MIB


def test_the_check_leaves_it_unmounted(image: Path) -> None:
    volumes.check(image, image.with_name("point"))
    assert loops(image) == []


HOST = """
import anyio, os, sys
from pathlib import Path
from kandev_sandbox import Policy, inspect, open_jail, volumes
bwrap, workspace, uid, image = sys.argv[1:]
async def main():
    shown = {"workspace": Path(workspace)}
    namespace = volumes.mount(Path(image), Path(image).with_name("point"), shown, int(uid))
    policy = Policy(workspace=Path(workspace), uid=int(uid))
    async with open_jail(policy, ["/bin/sh", "-c", "echo kept > file; sync file; echo up; exec sleep 600"],
                         bwrap=inspect(Path(bwrap)), namespace=namespace) as jail:
        await jail.stdout.receive()
        print("up", flush=True)
        await anyio.sleep_forever()
anyio.run(main)
"""


async def test_a_killed_host_leaves_no_mount_and_no_device(
    sandbox: Any, image: Path, host: Callable[..., subprocess.Popen[str]]
) -> None:
    policy = replace(sandbox.policy)
    process = host(HOST, str(sandbox.bwrap.path), str(policy.workspace), str(policy.uid), str(image))
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    assert len(loops(image)) == 1
    process.send_signal(signal.SIGKILL)
    process.wait()
    os.close(volumes.locked(image))  # waits for the kernel
    assert loops(image) == []
    descriptor = volumes.mount(image, image.with_name("point"), {"workspace": policy.workspace}, policy.uid)
    assert within(descriptor, (policy.workspace / "file").read_text) == "kept\n"
    os.close(descriptor)


@pytest.mark.timeout(300)
async def test_a_thousand_mounts_leave_nothing(sandbox: Any, bwraps: list[Bwrap], tmp_path: Path) -> None:
    """Eight at a time, with a jail in each: all thousand for the first bubblewrap there is, some for the others."""
    shown = {"workspace": sandbox.policy.workspace}
    images = [tmp_path / f"{number}" / "volume.img" for number in range(SIDE_BY_SIDE)]
    for path in images:
        path.with_name("point").mkdir(parents=True)
        volumes.create(path, 16 * MIB, 100)

    async def cycle(path: Path, number: int) -> None:
        namespace = await anyio.to_thread.run_sync(
            volumes.mount, path, path.with_name("point"), shown, sandbox.policy.uid
        )
        try:
            assert (await sandbox.sh("echo . >>dots; wc -l <dots", namespace=namespace)).out == f"{number}\n"
        finally:
            await anyio.to_thread.run_sync(os.close, namespace)

    async def cycles(path: Path, first: int, last: int) -> None:
        for number in range(first, last + 1):
            await cycle(path, number)

    async def side_by_side(first: int, last: int) -> None:
        async with anyio.create_task_group() as tasks:
            for path in images:
                tasks.start_soon(cycles, path, first, last)

    await side_by_side(1, 1)  # what the first jails and threads of a process open for all
    before = sorted(os.listdir("/proc/self/fd"))
    thousand = CYCLES if sandbox.bwrap.path == bwraps[0].path else CYCLES // 5
    await side_by_side(2, 1 + thousand // SIDE_BY_SIDE)
    for path in images:
        os.close(volumes.locked(path))  # waits for the kernel
        assert loops(path) == []
        assert not is_mounted(path)
    assert sorted(os.listdir("/proc/self/fd")) == before
