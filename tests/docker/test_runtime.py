from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import anyio
import docker
import pytest

from kandev_docker import counted
from kandev_host import Mount, ProcessSpec, errors
from kandev_host.models import Limits

pytestmark = pytest.mark.anyio


def sh(script: str, **fields: Any) -> ProcessSpec:
    return ProcessSpec(workspace_id="w1", command=("sh", "-c", script), **fields)


async def test_probe_says_that_it_works_and_what_it_can(runtime: Any) -> None:
    found = await runtime.probe()
    assert found.ok
    assert found.details["allowlist"] == "yes"
    assert (found.details["limits"], found.details["limits_fix"]) == ("full", None)


async def test_locate_looks_into_the_image(runtime: Any) -> None:
    assert (await runtime.locate("git")).details["path"] == "/usr/bin/git"
    found = await runtime.locate("no-such-agent")
    assert (found.ok, found.details) == (False, {"found": False})
    assert "image" in str(found.fix)


async def test_run_answers_exit_code_and_both_outputs(runtime: Any) -> None:
    result = await runtime.run(sh("cat; echo err >&2; exit 3"), stdin=b"in")
    assert (result.exit_code, result.stdout, result.stderr) == (3, b"in", b"err\n")


async def test_output_beyond_the_bound_is_dropped_and_said_so(runtime: Any) -> None:
    result = await runtime.run(sh("head -c 300000 /dev/zero"), max_output_bytes=1000)
    assert (len(result.stdout), result.truncated) == (1000, True)


async def test_a_line_of_megabytes_arrives_whole(runtime: Any) -> None:
    result = await runtime.run(sh("head -c 5000000 /dev/zero | tr '\\0' x; echo"))
    assert result.stdout == b"x" * 5_000_000 + b"\n"


async def test_run_ends_at_its_deadline(runtime: Any) -> None:
    with pytest.raises(errors.TimedOut):
        await runtime.run(sh("sleep 600"), timeout_s=0.2)


async def test_a_command_that_the_image_has_not_is_unavailable(runtime: Any) -> None:
    with pytest.raises(errors.Unavailable, match="no no-such-agent") as caught:
        await runtime.run(ProcessSpec(workspace_id="w1", command=("no-such-agent",)))
    assert "use an image that has no-such-agent" in caught.value.details["fix"]


async def test_a_command_that_the_workspace_has_not_ends_with_127(runtime: Any) -> None:
    result = await runtime.run(ProcessSpec(workspace_id="w1", command=("/workspace/none",)))
    assert result.exit_code == 127


async def test_a_place_that_was_never_prepared_is_not_found(runtime: Any) -> None:
    with pytest.raises(errors.NotFound):
        await runtime.run(ProcessSpec(workspace_id="w2", command=("true",)))


async def test_files_stay_in_workspace_and_home(runtime: Any) -> None:
    await runtime.write_home("w1", ".agent/settings", b"mine")
    await runtime.run(sh("echo 1 > file; echo 2 > ~/file"))
    assert (await runtime.run(sh("cat file ~/file ~/.agent/settings"))).stdout == b"1\n2\nmine"


async def test_a_running_process_is_listed_with_its_labels_and_measured(runtime: Any) -> None:
    async with runtime.spawn(sh("echo up; read line", labels={"session": "s1"})) as process:
        await process.receive()
        [owned] = await runtime.list_owned()
        assert (owned.ref, owned.labels) == (process.ref, {"session": "s1"})
        stats = await process.stats()
        assert stats.rss_bytes > 0
        assert stats.pids >= 1
    assert await runtime.list_owned() == []


async def test_leaving_the_context_kills_and_removes(runtime: Any, sdk: docker.APIClient) -> None:
    async with runtime.spawn(sh("echo up; sleep 600")) as process:
        await process.receive()
    assert await process.wait() == -9
    assert sdk.containers(all=True) == []


async def test_terminate_reaches_the_command(runtime: Any) -> None:
    async with runtime.spawn(sh("trap 'exit 5' TERM; echo up; while :; do sleep 0.01; done")) as process:
        await process.receive()
        await process.terminate()
        assert await process.wait() == 5


async def test_the_end_of_stdin_reaches_the_command(runtime: Any) -> None:
    async with runtime.spawn(sh("cat; exit 4")) as process:
        await process.send(b"some")
        await process.close_stdin()
        assert await process.receive() == b"some"
        assert await process.wait() == 4


async def test_sending_to_an_ended_process_is_a_broken_pipe(runtime: Any) -> None:
    async with runtime.spawn(sh("exit 0")) as process:
        await process.wait()
        with pytest.raises(BrokenPipeError):
            await process.send(b"x")


async def test_what_a_process_started_ends_with_it(runtime: Any, tmp_path: Path) -> None:
    await runtime.run(sh("(setsid sh -c 'sleep 600' &) ; echo started"))
    assert await runtime.list_owned() == []


async def test_a_process_of_this_host_is_not_reaped(runtime: Any) -> None:
    async with runtime.spawn(sh("read line")) as process:
        assert await runtime.reap(process.ref) is False


async def test_a_place_in_use_is_not_removed(runtime: Any) -> None:
    async with runtime.spawn(sh("read line")):
        with pytest.raises(errors.Conflict):
            await runtime.remove("w1")


async def test_remove_deletes_everything(runtime: Any, tmp_path: Path) -> None:
    await runtime.run(sh("mkdir -p a/b && touch a/b/c && chmod 500 a/b a"))
    await runtime.remove("w1")
    assert list((tmp_path / "data").rglob("w1")) == []


async def test_two_workspaces_are_strangers(runtime: Any, tmp_path: Path) -> None:
    await runtime.prepare("w2")
    owners = {(tmp_path / "data/containers" / name / "workspace").stat().st_uid for name in ("w1", "w2")}
    assert len(owners) == 2
    assert 0 not in owners


async def test_a_mount_appears_below_the_home_also_of_what_only_root_reads(runtime: Any, tmp_path: Path) -> None:
    login = tmp_path / "login.json"
    login.write_text("mine")
    login.chmod(0o600)
    script = "cat ~/.agent/login.json; echo > ~/.agent/login.json"
    result = await runtime.run(sh(script, mounts=(Mount(str(login), "~/.agent/login.json"),)))
    assert result.stdout == b"mine"
    assert login.read_text() == "mine"
    assert list((tmp_path / "data/copies").iterdir()) == []


async def test_the_sockets_of_engines_are_never_mounted(runtime: Any, dockerd: Any, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(dockerd.socket)
    for source in (dockerd.socket, str(dockerd.folder), str(tmp_path / "link"), "/var/run/docker.sock"):
        with pytest.raises(errors.ValidationFailed):
            await runtime.run(sh("true", mounts=(Mount(source, "/engine", read_only=False),)))


async def test_a_read_only_workspace_cannot_be_written(runtime: Any) -> None:
    await runtime.run(sh("echo kept > a"))
    result = await runtime.run(sh("cat a; touch b; rm a; ls", read_only=True))
    assert result.stdout == b"kept\na\n"


async def test_snapshots_are_seen_by_the_hosts_own_programs_alone(runtime: Any) -> None:
    await runtime.run(sh("echo taken > /snapshots/a", snapshots=True))
    assert (await runtime.run(sh("cat /snapshots/a", snapshots=True))).stdout == b"taken\n"
    assert (await runtime.run(sh("ls /snapshots"))).exit_code != 0


async def test_what_a_process_is_not_to_change_it_cannot(runtime: Any) -> None:
    await runtime.run(sh("git init -q . && echo kind > AGENTS.md", pin_git=False))
    script = "echo rude > AGENTS.md; mv .git other; git config a.b c; cat AGENTS.md; ls -a"
    pinned = await runtime.run(sh(script, protected=("AGENTS.md",)))
    assert pinned.stdout.split()[0] == b"kind"
    assert b".git" in pinned.stdout.split()
    assert b"could not write config file" in pinned.stderr
    assert (await runtime.run(sh("echo rude > AGENTS.md; cat AGENTS.md", pin_git=False))).stdout == b"rude\n"


async def test_what_would_be_protected_through_a_link_is_left_alone(runtime: Any, tmp_path: Path) -> None:
    await runtime.run(sh("ln -s /etc/passwd AGENTS.md"))
    result = await runtime.run(sh("cat AGENTS.md", protected=("AGENTS.md",)))
    assert b"agent:x:1000" in result.stdout  # the image's own


async def test_its_memory_limit_is_named_when_it_ends_a_process(runtime: Any) -> None:
    script = "import sys; x = bytearray(300 << 20)"
    spec = ProcessSpec(workspace_id="w1", command=("python3", "-c", script), limits=Limits(memory_limit="64m"))
    async with runtime.spawn(spec) as process:
        assert await process.wait() == 137
        assert "at its memory limit of 64.0 MiB" in str(process.ending)


@pytest.mark.parametrize("inside", [True, False])
async def test_what_is_killed_without_meeting_its_memory_limit_is_not_said_to_have(
    runtime: Any, sdk: docker.APIClient, inside: bool
) -> None:
    async with runtime.spawn(sh("echo up; read x; kill -9 $$")) as process:
        await process.receive()
        if inside:
            await process.send(b"\n")
        else:
            await anyio.to_thread.run_sync(sdk.kill, process.ref, "KILL")
        assert await process.wait() == 137
        assert process.ending == "it was killed (SIGKILL), and not at a limit of its own"


async def test_a_kill_of_which_nothing_was_counted_is_named_with_both_possibilities(
    runtime: Any, sdk: docker.APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counted, "_read", lambda path: None)  # as on a busy machine: its cgroup was gone already
    async with runtime.spawn(sh("echo up; read x")) as process:
        await process.receive()
        await anyio.to_thread.run_sync(sdk.kill, process.ref, "KILL")
        await process.wait()
        assert "perhaps at its memory limit of 8.0 GiB" in str(process.ending)


async def test_its_time_limit_is_named_when_it_ends_a_process(opener: Any) -> None:
    async with opener(time_limit_s=0.5) as made:
        await made.prepare("w1")
        async with made.spawn(sh("sleep 600")) as process:
            assert await process.wait() == -9
            assert process.ending == "it ran longer than its limit of 0.5 s"


async def test_a_place_that_holds_too_much_ends_what_runs_there(opener: Any) -> None:
    async with opener(disk_limit_bytes=8 << 20, disk_watch_interval_s=0.1) as made:
        await made.prepare("w1")
        async with made.spawn(sh("head -c 20000000 /dev/zero > big; sleep 600")) as process:
            assert await process.wait() == -9
            assert "above its disk limit" in str(process.ending)


async def test_an_image_that_is_missing_and_not_pulled_is_said_with_the_fix(opener: Any) -> None:
    async with opener(image="no-such-image") as made:
        await made.prepare("w1")
        with pytest.raises(errors.Unavailable, match="no-such-image") as caught:
            await made.run(sh("true"))
        assert "docker pull no-such-image" in caught.value.details["fix"]


async def test_an_image_that_could_not_be_pulled_is_not_asked_for_again_at_once(
    opener: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "kandev_docker")
    async with opener(pull="missing") as made:
        await made.prepare("w1")
        for _ in range(3):
            with pytest.raises(errors.Unavailable, match="cannot be pulled") as caught:
                await made.run(sh("true", image="127.0.0.1:9/nothing:1"))
            assert "image list" in caught.value.details["fix"]
    assert [record.getMessage() for record in caplog.records].count("pulling the image 127.0.0.1:9/nothing:1") == 1


@pytest.mark.parametrize("pull", ["missing", "always"])
@pytest.mark.parametrize("name", ["kandev-base:none", "kandev/nothing"])
async def test_an_image_that_is_made_here_is_never_pulled_by_itself(opener: Any, name: str, pull: str) -> None:
    async with opener(pull=pull) as made:
        await made.prepare("w1")
        with pytest.raises(errors.Unavailable, match="is not pulled") as caught:
            await made.run(sh("true", image=name))
        assert "kandev-host image build" in caught.value.details["fix"]
        assert not (await made.locate("sh", name)).ok


async def test_an_image_that_labels_its_containers_as_the_hosts_own_is_refused(runtime: Any, sdk: Any) -> None:
    sdk.tag("kandev-base", "labelled")
    container = sdk.create_container("labelled", ["sh"])
    sdk.commit(container["Id"], "labelled", changes=["LABEL kandev.label.allow_of=t1"])
    try:
        with pytest.raises(errors.Unavailable, match="has labels of our containers"):
            await runtime.run(sh("true", image="labelled"))
    finally:
        sdk.remove_container(container["Id"])
        sdk.remove_image("labelled")


async def test_the_image_of_a_process_is_used(runtime: Any) -> None:
    with pytest.raises(errors.Unavailable, match="another-image"):
        await runtime.run(sh("true", image="another-image"))


async def test_an_engine_that_is_not_there_is_unavailable_with_the_fix(opener: Any, tmp_path: Path) -> None:
    async with opener(socket=str(tmp_path / "nobody")) as made:
        found = await made.probe()
        assert (found.ok, "install docker.io" in found.fix) == (False, True)
        await made.prepare("w1")
        with pytest.raises(errors.Unavailable, match="no Docker engine"):
            await made.run(sh("true"))


async def test_an_engine_elsewhere_is_refused(opener: Any) -> None:
    with pytest.raises(errors.Unavailable, match="not reached over a socket"):
        async with opener(socket="tcp://192.0.2.1:2375"):
            pass


async def test_the_hosts_own_interpreter_is_the_images(runtime: Any) -> None:
    import sys

    spec = ProcessSpec(workspace_id="w1", command=(sys.executable, "-c", "print(1)"))
    assert (await runtime.run(spec)).stdout == b"1\n"


async def test_containers_run_as_the_owner_of_the_place_with_nothing_else(runtime: Any, tmp_path: Path) -> None:
    script = "id -u; grep -E 'CapEff|CapBnd|NoNewPrivs|Seccomp:' /proc/self/status; touch /x || echo closed"
    lines = (await runtime.run(sh(script + "; ls /sys/class/net"))).stdout.decode().split()
    owner = os.stat(tmp_path / "data/containers/w1/workspace").st_uid
    assert lines[0] == str(owner)
    expected = ["CapEff:", "0" * 16, "CapBnd:", "0" * 16, "NoNewPrivs:", "1", "Seccomp:", "2", "closed", "lo"]
    assert lines[1:] == expected


@pytest.mark.parametrize(
    ("says", "why"),
    [
        ({"SecurityOptions": ["name=seccomp", "name=userns"]}, "userns-remap"),
        ({"SecurityOptions": []}, "no filter of system calls"),
    ],
)
async def test_an_engine_that_would_not_confine_is_refused(
    opener: Any, monkeypatch: pytest.MonkeyPatch, says: dict[str, Any], why: str
) -> None:
    info = docker.APIClient.info
    monkeypatch.setattr(docker.APIClient, "info", lambda client: {**info(client), **says})
    async with opener() as made:
        found = await made.probe()
        assert not found.ok
        assert why in str(found.reason)
        await made.prepare("w1")
        with pytest.raises(errors.Unavailable, match=why):
            await made.run(sh("true"))


async def test_an_image_that_is_to_be_pulled_is_not_pulled_by_a_look(opener: Any) -> None:
    async with opener(image="no-such-image", pull="missing") as made:
        found = await made.probe()
        assert (found.ok, found.details["image"]) == (True, "no-such-image (to be pulled)")
        assert (await made.locate("agent")).ok
