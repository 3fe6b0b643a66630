from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kandev_bwrap import BwrapSettings
from kandev_bwrap import open_runtime as open_bwrap
from kandev_host import Environment, Mount, ProcessSpec, errors
from kandev_unjailed import HostSettings
from kandev_unjailed import open_runtime as open_host

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["bwrap", "host"])
async def runtime(request: pytest.FixtureRequest, tmp_path: Path, anyio_backend: str) -> AsyncIterator[Any]:
    environment = Environment(str(tmp_path / "data"), "0")
    opened = (
        open_bwrap(BwrapSettings(), environment)
        if request.param == "bwrap"
        else open_host(HostSettings(i_understand_there_is_no_jail=True), environment)
    )
    async with opened as made:
        await made.prepare("w1")
        yield made


@pytest.fixture
async def bwrap(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Any]:
    async with open_bwrap(BwrapSettings(), Environment(str(tmp_path / "data"), "0")) as made:
        await made.prepare("w1")
        yield made


def sh(script: str, **fields: Any) -> ProcessSpec:
    return ProcessSpec(workspace_id="w1", command=("sh", "-c", script), **fields)


async def test_probe_says_that_it_works(runtime: Any) -> None:
    assert (await runtime.probe()).ok


async def test_locate_names_the_fix_for_a_missing_command(runtime: Any) -> None:
    found = await runtime.locate("no-such-agent")
    assert (found.ok, found.fix) == (False, "install no-such-agent, or name its path")


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


async def test_run_answers_exit_code_and_both_outputs(runtime: Any) -> None:
    result = await runtime.run(sh("cat; echo err >&2; exit 3"), stdin=b"in")
    assert (result.exit_code, result.stdout, result.stderr) == (3, b"in", b"err\n")


async def test_output_beyond_the_bound_is_dropped_and_said_so(runtime: Any) -> None:
    result = await runtime.run(sh("head -c 300000 /dev/zero"), max_output_bytes=1000)
    assert (len(result.stdout), result.truncated) == (1000, True)


async def test_run_ends_at_its_deadline(runtime: Any) -> None:
    with pytest.raises(errors.TimedOut):
        await runtime.run(sh("sleep 600"), timeout_s=0.2)


async def test_a_command_that_cannot_be_found_is_unavailable(runtime: Any) -> None:
    with pytest.raises(errors.Unavailable) as caught:
        await runtime.run(ProcessSpec(workspace_id="w1", command=("no-such-agent",)))
    assert "install no-such-agent" in caught.value.details["fix"]


async def test_a_place_that_was_never_prepared_is_not_found(runtime: Any) -> None:
    with pytest.raises(errors.NotFound):
        await runtime.run(ProcessSpec(workspace_id="w2", command=("true",)))


@pytest.mark.parametrize("id", ["../x", "", "a/b", ".", "x" * 65])
async def test_a_workspace_id_is_no_path(runtime: Any, id: str) -> None:
    with pytest.raises(errors.ValidationFailed):
        await runtime.prepare(id)


async def test_files_stay_in_workspace_and_home(runtime: Any) -> None:
    await runtime.run(sh("echo 1 > file; echo 2 > ~/file"))
    assert (await runtime.run(sh("cat file ~/file"))).stdout == b"1\n2\n"


async def test_write_home_makes_a_file_once(runtime: Any) -> None:
    await runtime.write_home("w1", ".config/agent/settings.json", b"first")
    await runtime.write_home("w1", ".config/agent/settings.json", b"second")
    assert (await runtime.run(sh("cat ~/.config/agent/settings.json"))).stdout == b"first"


async def test_write_home_follows_no_link(runtime: Any, tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    await runtime.run(sh(f"ln -s {tmp_path}/victim ~/linked"))
    with pytest.raises(errors.ValidationFailed):
        await runtime.write_home("w1", "linked/file", b"x")
    assert not (tmp_path / "victim" / "file").exists()


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", ""])
async def test_write_home_stays_in_the_home(runtime: Any, path: str) -> None:
    with pytest.raises(errors.ValidationFailed):
        await runtime.write_home("w1", path, b"x")


async def test_a_running_process_is_listed_with_its_labels_and_measured(runtime: Any) -> None:
    async with runtime.spawn(sh("echo up; read line", labels={"session": "s1"})) as process:
        await process.receive()
        [owned] = await runtime.list_owned()
        assert (owned.ref, owned.labels) == (process.ref, {"session": "s1"})
        assert (await process.stats()).rss_bytes > 0
    assert await runtime.list_owned() == []


async def test_leaving_the_context_kills(runtime: Any) -> None:
    async with runtime.spawn(sh("echo up; sleep 600")) as process:
        await process.receive()
    assert await process.wait() in {-9, 137}


async def test_terminate_reaches_the_command(runtime: Any) -> None:
    async with runtime.spawn(sh("trap 'exit 5' TERM; echo up; while :; do sleep 0.01; done")) as process:
        await process.receive()
        await process.terminate()
        assert await process.wait() == 5


async def test_sending_to_an_ended_process_is_a_broken_pipe(runtime: Any) -> None:
    async with runtime.spawn(sh("exit 0")) as process:
        await process.wait()
        with pytest.raises(BrokenPipeError):
            await process.send(b"x")


async def test_a_process_of_this_host_is_not_reaped(runtime: Any) -> None:
    async with runtime.spawn(sh("read line")) as process:
        assert await runtime.reap(process.ref) is False


async def test_remove_deletes_everything_also_closed_folders(runtime: Any, tmp_path: Path) -> None:
    await runtime.run(sh("mkdir -p a/b && touch a/b/c && chmod 500 a/b a"))
    await runtime.remove("w1")
    await runtime.remove("w1")
    assert list((tmp_path / "data").rglob("w1")) == []


async def test_a_place_in_use_is_not_removed(bwrap: Any) -> None:
    async with bwrap.spawn(sh("read line")):
        with pytest.raises(errors.Conflict):
            await bwrap.remove("w1")


async def test_a_mount_appears_below_the_home(bwrap: Any, tmp_path: Path) -> None:
    login = tmp_path / "login.json"
    login.write_text("token")
    login.chmod(0o600)
    result = await bwrap.run(sh("cat ~/.agent/login.json", mounts=(Mount(str(login), "~/.agent/login.json"),)))
    assert result.stdout == b"token"


async def test_a_command_of_the_workspace_that_is_not_there_ends_with_127(bwrap: Any) -> None:
    result = await bwrap.run(ProcessSpec(workspace_id="w1", command=("/workspace/none",)))
    assert result.exit_code == 127


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


async def test_each_unjailed_start_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = HostSettings(i_understand_there_is_no_jail=True)
    async with open_host(settings, Environment(str(tmp_path), "0")) as made:
        await made.prepare("w1")
        await made.run(sh("true"))
    assert [record.levelname for record in caplog.records if "NO JAIL" in record.message] == ["WARNING"]
