"""What a place takes of the disk, told and bounded."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from kandev_bwrap import BwrapSettings, open_runtime
from kandev_host import Environment, ProcessSpec, errors
from kandev_host.models import Limits
from kandev_places import places
from kandev_places.mounted import IDLE
from kandev_places.places import Places
from kandev_places.watch import Quota
from kandev_sandbox import volumes as sandbox_volumes
from kandev_sandbox.errors import VolumeFailed
from kandev_sandbox.volumes import locked

pytestmark = pytest.mark.anyio
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root mounts volumes")
MIB = 1 << 20
SETTINGS = BwrapSettings(disk_limit_bytes=8 * MIB, inodes_limit=200, disk_watch_interval_s=0.05, disk="watch")


@pytest.fixture
async def bwrap(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Any]:
    async with open_runtime(SETTINGS, Environment(str(tmp_path / "data"), "0")) as made:
        await made.prepare("w1")
        await made.prepare("w2")
        yield made


def sh(script: str, workspace: str = "w1", **fields: Any) -> ProcessSpec:
    return ProcessSpec(workspace_id=workspace, command=("/bin/sh", "-c", script), **fields)


async def ending(bwrap: Any, spec: ProcessSpec) -> str:
    with anyio.fail_after(60):
        async with bwrap.spawn(spec) as process:
            assert await process.wait() == -9
    return process.ending or ""


@pytest.mark.parametrize("folder", ["/workspace", "~", "/tmp"])
async def test_the_use_of_a_place_is_all_of_its_folders(bwrap: Any, folder: str) -> None:
    before = await bwrap.use("w1")
    await bwrap.run(sh(f"head -c 1048576 /dev/zero > {folder}/file"))
    after = await bwrap.use("w1")
    assert (after.bytes - before.bytes, after.inodes - before.inodes) == (MIB, 1)
    assert (after.bytes_limit, after.inodes_limit, after.enforced) == (8 * MIB, 200, False)


async def test_the_use_of_a_place_that_is_not_there_is_not_found(bwrap: Any) -> None:
    with pytest.raises(errors.NotFound):
        await bwrap.use("w9")


async def test_a_place_that_grows_beyond_its_limit_is_ended_with_the_reason(bwrap: Any) -> None:
    told = await ending(bwrap, sh("head -c 12582912 /dev/zero > file; sleep 600"))
    assert "above its disk limit of 8.0 MiB" in told


async def test_too_many_files_are_ended_with_the_reason(bwrap: Any) -> None:
    told = await ending(bwrap, sh("i=0; while [ $i -lt 300 ]; do i=$((i+1)); : > $i; done; sleep 600"))
    assert told == "its workspace holds more than the 200 files of its limit"


async def test_deleted_files_that_are_held_open_count(bwrap: Any) -> None:
    told = await ending(bwrap, sh("exec 3> file; rm file; head -c 12582912 /dev/zero >&3; sleep 600"))
    assert "above its disk limit" in told


async def test_a_runs_own_disk_limit_goes_before_the_settings(bwrap: Any) -> None:
    spec = sh("head -c 4194304 /dev/zero > file; sleep 600", limits=Limits(disk_limit="2m"))
    assert "disk limit of 2.0 MiB" in await ending(bwrap, spec)


async def test_another_place_is_left_alone(bwrap: Any) -> None:
    async with bwrap.spawn(sh("read line; echo $line", "w2")) as other:
        await ending(bwrap, sh("head -c 12582912 /dev/zero > file; sleep 600"))
        await other.send(b"here\n")
        assert await other.receive() == b"here\n"


async def test_whatever_runs_in_the_place_is_ended(bwrap: Any) -> None:
    async with bwrap.spawn(sh("sleep 600")) as other:
        await ending(bwrap, sh("head -c 12582912 /dev/zero > file; sleep 600"))
        with anyio.fail_after(60):
            assert await other.wait() == -9


async def test_a_place_beyond_its_limit_can_be_cleaned_up(bwrap: Any) -> None:
    await ending(bwrap, sh("head -c 12582912 /dev/zero > file; sleep 600"))
    result = await bwrap.run(sh("sleep 0.5; rm file; echo clean"))
    assert result.stdout == b"clean\n"
    assert (await bwrap.use("w1")).bytes < 8 * MIB


async def test_a_place_beyond_its_limit_grows_no_further(bwrap: Any) -> None:
    await ending(bwrap, sh("head -c 12582912 /dev/zero > file; sleep 600"))
    assert "disk limit" in await ending(bwrap, sh("head -c 1048576 /dev/zero > more; sleep 600"))
    assert "disk limit" in await ending(bwrap, sh("sleep 600"))


async def test_a_place_with_too_many_files_to_be_counted_stays_closed(
    bwrap: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "MORE_INODES", 0)
    for number in range(1000):
        (tmp_path / "data/workspaces/w1/workspace" / str(number)).touch()
    assert (await bwrap.use("w1")).inodes < 410
    assert "200 files" in await ending(bwrap, sh("sleep 600"))
    assert "200 files" in await ending(bwrap, sh("sleep 600"))


async def test_folders_that_move_do_not_end_what_stays_within_its_limit(bwrap: Any) -> None:
    script = "mkdir -p a/b/c; i=0; while [ $i -lt 300 ]; do i=$((i+1)); mv a/b/c a/d; mv a/d a/b/c; done; echo done"
    assert (await bwrap.run(sh(script))).stdout == b"done\n"


def in_volumes(**fields: Any) -> BwrapSettings:
    return BwrapSettings(disk_limit_bytes=16 * MIB, inodes_limit=200, disk_watch_interval_s=0.05, **fields)


@pytest.fixture
async def volumes(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Any]:
    async with open_runtime(in_volumes(), Environment(str(tmp_path / "data"), "0")) as made:
        await made.prepare("w1")
        yield made


@as_root
async def test_the_kernel_refuses_what_goes_beyond_a_volume(volumes: Any, tmp_path: Path) -> None:
    result = await volumes.run(sh("head -c 33554432 /dev/zero > ~/file"))
    assert (result.exit_code, b"No space left" in result.stderr) == (1, True)
    used = await volumes.use("w1")
    assert (used.enforced, used.bytes <= used.bytes_limit <= 16 * MIB) == (True, True)
    assert (tmp_path / "data" / "workspaces" / "w1" / "volume.img").stat().st_size == 16 * MIB


@as_root
async def test_inodes_of_a_volume_are_counted_and_bounded(volumes: Any) -> None:
    before = await volumes.use("w1")
    await volumes.run(sh("i=0; while [ $i -lt 500 ]; do i=$((i+1)); : > $i || exit 1; done"))
    used = await volumes.use("w1")
    assert before.inodes < used.inodes <= used.inodes_limit < 500


@as_root
async def test_files_in_a_volume_stay_for_the_next_host(volumes: Any, tmp_path: Path) -> None:
    await volumes.write_home("w1", ".config/settings", b"written by the host")
    await volumes.run(sh("echo 1 > file; echo 2 > /tmp/file"))
    volumes.close()
    async with open_runtime(in_volumes(disk="watch"), Environment(str(tmp_path / "data"), "0")) as again:
        await again.prepare("w1")
        result = await again.run(sh("cat file /tmp/file ~/.config/settings; stat -c %u ~/.config/settings"))
        assert result.stdout == b"1\n2\nwritten by the host1000\n"


@as_root
async def test_a_volume_is_removed_with_its_place(volumes: Any, tmp_path: Path) -> None:
    await volumes.run(sh("mkdir -p a/b; chmod 0 a; mkfifo f"))
    await volumes.remove("w1")
    assert list((tmp_path / "data" / "workspaces").iterdir()) == []
    await volumes.remove("w1")
    await volumes.prepare("w1")
    assert (await volumes.run(sh("ls -A"))).stdout == b""


def mounted(folder: Path) -> list[str]:
    backing = [path for path in Path("/sys/block").glob("loop*/loop/backing_file") if path.exists()]
    return [image for path in backing if str(folder) in (image := path.read_text())]


@as_root
async def test_many_volumes_keep_few_idle_mounts(volumes: Any, tmp_path: Path) -> None:
    names = [f"many{number}" for number in range(IDLE + 3)]
    for name in names:
        await volumes.prepare(name)
        await volumes.run(sh("echo $0 > file", name))
    assert len(mounted(tmp_path)) == IDLE
    for name in names:
        assert (await volumes.run(sh("cat file", name))).exit_code == 0


@as_root
async def test_closing_the_runtime_unmounts_its_volumes(tmp_path: Path) -> None:
    async with open_runtime(in_volumes(), Environment(str(tmp_path / "data"), "0")) as made:
        await made.prepare("w1")
        await made.run(sh("true"))
    os.close(locked(tmp_path / "data" / "workspaces" / "w1" / "volume.img"))


@as_root
async def test_a_place_that_was_made_without_a_volume_stays_as_it_is(bwrap: Any, tmp_path: Path) -> None:
    await bwrap.run(sh("echo old > file"))
    async with open_runtime(in_volumes(disk="volume"), Environment(str(tmp_path / "data"), "0")) as again:
        await again.prepare("w1")
        assert (await again.run(sh("cat file"))).stdout == b"old\n"
        assert not (await again.use("w1")).enforced


@as_root
async def test_without_loop_devices_places_are_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> int:
        raise VolumeFailed("no loop devices here")

    monkeypatch.setattr(sandbox_volumes, "mount", refuse)
    async with open_runtime(in_volumes(), Environment(str(tmp_path / "data"), "0")) as made:
        await made.prepare("w1")
        assert not (await made.use("w1")).enforced
    async with open_runtime(in_volumes(disk="volume"), Environment(str(tmp_path / "data2"), "0")) as made:
        await made.prepare("w1")
        with pytest.raises(errors.Unavailable, match="no loop devices here"):
            await made.run(sh("true"))


def test_an_ordinary_user_cannot_ask_for_volumes(tmp_path: Path) -> None:
    places = Places(tmp_path / "workspaces", None, Quota(16 * MIB, 200), "volume")
    with pytest.raises(VolumeFailed, match="Only root"):
        places.prepare("w1")
