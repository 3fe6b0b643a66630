from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from kandev_bwrap import BwrapSettings
from kandev_bwrap import open_runtime as open_bwrap
from kandev_host import Environment, Mount, ProcessSpec, errors
from kandev_host.services.launcher import failure_of
from kandev_places.places import Place, Places
from kandev_unjailed import HostSettings
from kandev_unjailed import open_runtime as open_host

pytestmark = pytest.mark.anyio


@pytest.fixture
async def bwrap(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Any]:
    async with open_bwrap(BwrapSettings(), Environment(str(tmp_path / "data"), "0")) as made:
        await made.prepare("w1")
        yield made


def sh(script: str, **fields: Any) -> ProcessSpec:
    return ProcessSpec(workspace_id="w1", command=("sh", "-c", script), **fields)


async def test_further_programs_are_there_with_what_they_need(bwrap: Any, tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir(mode=0o755)
    for name, text in (("interpreter", "#!/bin/sh\necho ran by $0\n"), ("server", "#!/usr/bin/env interpreter\n")):
        (tmp_path / "tools" / name).write_text(text)
        (tmp_path / "tools" / name).chmod(0o755)
    server = str(tmp_path / "tools" / "server")
    assert (await bwrap.run(sh(f"test -e {server}"))).exit_code == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{os.environ['PATH']}:{tmp_path}/tools")
        result = await bwrap.run(sh("server; " + server, programs=("server", server)))
    assert result.stdout.decode().split() == ["ran", "by", f"{tmp_path}/tools/interpreter"] * 2


async def test_a_further_program_that_is_missing_is_unavailable(bwrap: Any) -> None:
    with pytest.raises(errors.Unavailable, match="no-such-server"):
        await bwrap.run(sh("true", programs=("no-such-server",)))


async def test_two_mounts_at_one_place_are_a_wrong_setting_and_not_a_runtime_that_may_come_back(bwrap: Any) -> None:
    mounts = (Mount("/usr/bin/env", "~/x"), Mount("/usr/bin/true", "~/x"))
    with pytest.raises(errors.Misconfigured, match="Two binds claim /home/agent/x") as caught:
        await bwrap.run(sh("true", mounts=mounts))
    assert caught.value.details["fix"] == "remove one of them"
    assert failure_of(caught.value) == "config"


async def test_the_searched_folders_may_lie_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "some-agent").write_text("#!/bin/sh\n")
    (tmp_path / "tools" / "some-agent").chmod(0o755)
    environment = Environment(str(tmp_path / "data"), "0")
    async with open_bwrap(BwrapSettings(path=("~/tools",)), environment) as made:
        assert (await made.locate("some-agent")).details["path"] == str(tmp_path / "tools" / "some-agent")


async def test_what_is_there_but_cannot_be_used_is_told_from_what_is_missing(bwrap: Any, tmp_path: Path) -> None:
    broken = tmp_path / "broken-agent"
    broken.write_text("#!/usr/bin/env no-such-interpreter\n")
    broken.chmod(0o755)
    assert (await bwrap.locate("no-such-agent")).details == {"found": False}
    found = await bwrap.locate(str(broken))
    assert (found.details, found.fix) == ({"found": True}, "install no-such-interpreter, or name its path")


async def test_a_full_disk_is_said_and_leaves_no_half_record(
    bwrap: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = tmp_path / "data" / "jails"
    monkeypatch.setattr("kandev_sandbox.records.new_id", lambda: "j1")
    (records / ".j1").symlink_to("/dev/full")
    with pytest.raises(errors.StorageFull):
        await bwrap.run(sh("true"))
    assert [path.name for path in records.iterdir() if "j1" in path.name] == []
    assert (await bwrap.run(sh("true"))).exit_code == 0


async def test_a_place_that_something_is_starting_in_is_not_removed(
    bwrap: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    starting, go_on, get = threading.Event(), threading.Event(), Places.get

    def slow(places: Places, workspace_id: str) -> Place:
        found = get(places, workspace_id)
        starting.set()
        go_on.wait(60)
        return found

    monkeypatch.setattr(Places, "get", slow)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bwrap.run, sh("true"))
        await anyio.to_thread.run_sync(starting.wait, 60)
        try:
            with pytest.raises(errors.Conflict):
                await bwrap.remove("w1")
        finally:
            go_on.set()


async def test_nothing_starts_in_a_place_that_is_being_removed(bwrap: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    removing, go_on, remove = threading.Event(), threading.Event(), Places.remove

    def slow(places: Places, workspace_id: str) -> None:
        removing.set()
        go_on.wait(60)
        remove(places, workspace_id)

    monkeypatch.setattr(Places, "remove", slow)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bwrap.remove, "w1")
        await anyio.to_thread.run_sync(removing.wait, 60)
        try:
            with pytest.raises(errors.NotFound):
                await bwrap.run(sh("true"))
        finally:
            go_on.set()
    await bwrap.prepare("w1")
    assert (await bwrap.run(sh("true"))).exit_code == 0


@pytest.mark.parametrize("look", ["use", "list_files"])
async def test_folders_that_take_long_to_look_at_hold_up_nothing_else(
    bwrap: Any, monkeypatch: pytest.MonkeyPatch, look: str
) -> None:
    go_on, get = threading.Event(), Places.get

    def slow(places: Places, workspace_id: str) -> Place:
        if workspace_id == "w2":
            go_on.wait(60)
        return get(places, workspace_id)

    async def looks() -> None:
        await (bwrap.use("w2") if look == "use" else bwrap.list_files("w2", "", 1, 10))

    await bwrap.prepare("w2")
    monkeypatch.setattr(Places, "get", slow)
    async with anyio.create_task_group() as tasks:
        for _ in range(60):  # more than there are threads
            tasks.start_soon(looks)
        try:
            with anyio.fail_after(50):
                assert (await bwrap.run(sh("true"))).exit_code == 0
        finally:
            go_on.set()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: uids of their own")
async def test_two_workspaces_are_strangers(bwrap: Any, tmp_path: Path) -> None:
    await bwrap.prepare("w2")
    owners = {(tmp_path / "data/workspaces" / name / "workspace").stat().st_uid for name in ("w1", "w2")}
    assert len(owners) == 2
    assert 0 not in owners


async def test_without_consent_the_host_runtime_refuses(tmp_path: Path) -> None:
    async with open_host(HostSettings(), Environment(str(tmp_path), "0")) as made:
        assert not (await made.probe()).ok
        await made.prepare("w1")
        with pytest.raises(errors.Unavailable, match="no jail"):
            await made.run(sh("true"))


async def test_a_jail_that_cannot_be_made_is_said_at_the_start_and_nothing_runs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KANDEV_BWRAP", "/nowhere/bwrap")
    async with open_bwrap(BwrapSettings(), Environment(str(tmp_path / "data"), "0")) as made:
        assert "unset KANDEV_BWRAP" in caplog.text
        await made.prepare("w1")
        with pytest.raises(errors.Unavailable, match="/nowhere/bwrap"):
            await made.run(sh("true"))


async def test_each_unjailed_start_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = HostSettings(i_understand_there_is_no_jail=True)
    async with open_host(settings, Environment(str(tmp_path), "0")) as made:
        await made.prepare("w1")
        await made.run(sh("true"))
    assert [record.levelname for record in caplog.records if "NO JAIL" in record.message] == ["WARNING"]


async def test_a_time_that_no_calendar_has_is_unknown(bwrap: Any) -> None:
    await bwrap.run(sh("touch -d @999999999999 x"))
    found = {entry.path: entry.modified_at for entry in await bwrap.list_files("w1", "", 1, 10)}
    assert found["x"] is None or found["x"].year < 10_000
