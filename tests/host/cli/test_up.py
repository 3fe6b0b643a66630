from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import anyio
import pytest

from kandev_host.client import ClientError, connect


@contextmanager
def up(tmp_path: Path, *more: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "kandev_host", "up", "--port", "0", "--json", *more],
        env={**os.environ, "KANDEV_HOME": str(tmp_path / "data")},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process, json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.wait(60)
        process.stdout.close()


def test_it_serves_and_ends_cleanly_on_sigterm(tmp_path: Path) -> None:
    with up(tmp_path) as (process, ready):
        with urlopen(f"{ready['url']}/health", timeout=60) as answer:
            assert json.load(answer) == {"status": "ok"}
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert not (tmp_path / "data/host.json").exists()


def test_the_data_folder_and_the_token_are_the_users_alone(tmp_path: Path) -> None:
    with up(tmp_path) as (_, ready):
        token = Path(ready["token_path"])
        assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
        assert token.stat().st_mode & 0o777 == 0o600


def test_two_hosts_never_share_a_data_folder(tmp_path: Path, kandev: Any) -> None:
    with up(tmp_path) as (process, _):
        done = kandev("up", "--port", "0")
    assert done.status == 1
    assert f"pid {process.pid}" in done.err
    assert len(done.err.splitlines()) == 1


def test_a_port_in_use_is_one_line(kandev: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = kandev("up", "--port", str(taken.getsockname()[1]), KANDEV_LOG__LEVEL="warning")
    assert done.status == 1
    assert len(done.err.splitlines()) == 1
    assert "--port" in done.err


def test_another_address_than_loopback_is_refused(kandev: Any) -> None:
    done = kandev("up", "--host", "0.0.0.0", "--port", "0")
    assert done.status == 1
    assert "--allow-remote" in done.err
    done = kandev("up", "--host", "0.0.0.0", "--port", "0", "--allow-remote")
    assert done.status == 1
    assert "tls_certificate" in done.err
    assert len(done.err.splitlines()) == 1


def test_every_command_goes_over_a_unix_socket(tmp_path: Path, kandev: Any) -> None:
    path = tmp_path / "data/host.sock"
    with up(tmp_path, "--unix", str(path)) as (process, ready):
        assert ready["url"] == f"unix://{path}"
        assert kandev("host", "health", "--json").json["status"] == "ok"
        done = kandev("link")
        assert done.status == 1
        assert "--unix" in done.err
        elsewhere = {"KANDEV_HOME": str(tmp_path / "other"), "KANDEV_URL": ready["url"]}
        token = Path(ready["token_path"]).read_text().strip()
        assert kandev("host", "health", KANDEV_TOKEN=token, **elsewhere).status == 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert not path.exists()


def exchanged(request: Request) -> str:
    with urlopen(request, timeout=60) as answer:
        return str(json.load(answer)["token"])


def test_a_link_opens_one_session_that_ends_with_the_token(tmp_path: Path, kandev: Any) -> None:
    async def browse(url: str) -> None:
        page, _, ticket = kandev("link").out.strip().partition("#")
        assert page == f"{url}/login"
        request = Request(
            page, f'{{"ticket": "{ticket}"}}'.encode(), {"Origin": url, "Content-Type": "application/json"}
        )
        session = await anyio.to_thread.run_sync(lambda: exchanged(request))
        with pytest.raises(HTTPError, match="401") as refused:
            await anyio.to_thread.run_sync(lambda: exchanged(request))
        refused.value.close()
        async with connect(url, session) as client:
            assert (await client.call("health.check"))["status"] == "ok"
            (tmp_path / "data/token").unlink()  # as token --rotate does, before it makes a new one
            with anyio.fail_after(60), pytest.raises(ClientError) as ended:
                async for _ in client.notifications():
                    pass
            assert ended.value.details["close_code"] == 4401

    with up(tmp_path) as (_, ready):
        anyio.run(browse, ready["url"])
        done = kandev("agent", "types")
        assert done.status == 0, done.err


def test_a_host_that_others_reach_is_asked_over_tls(tmp_path: Path, kandev: Any) -> None:
    names = {"certificate": tmp_path / "certificate.pem", "key": tmp_path / "key.pem"}
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-subj", "/CN=board.example", "-days", "2", "-out", names["certificate"], "-keyout", names["key"]],
        check=True, capture_output=True,
    )  # fmt: skip
    names["key"].chmod(0o600)
    config = tmp_path / "config.toml"
    tls = "\n".join(f'tls_{name} = "{path}"' for name, path in names.items())
    config.write_text(f'[server]\nhost = "0.0.0.0"\nallow_remote = true\n{tls}\n')
    done = kandev("up", "--port", "0", "--config", str(config))
    assert done.status == 1
    assert "[authenticator.local] remote = true" in done.err
    with config.open("a") as file:
        file.write('[gateway]\nhosts = ["board.example:8443"]\n[authenticator.local]\nremote = true\n')
    with up(tmp_path, "--config", str(config)) as (_, ready):
        assert ready["url"].startswith("https://127.0.0.1:")
        assert kandev("host", "health", "--json").json["status"] == "ok"
        assert kandev("link").out.startswith("https://board.example:8443/login#")


def test_a_data_folder_open_to_others_is_refused_with_the_fix(kandev: Any, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o755)
    done = kandev("up", "--port", "0")
    assert done.status == 1
    assert "chmod 700" in done.err


def test_a_running_host_is_used_by_the_other_commands(tmp_path: Path, kandev: Any) -> None:
    with up(tmp_path):
        done = kandev("agent", "types", "--json")
    assert {"name": "demo"}.items() <= next(k for k in done.json["agent_types"] if k["name"] == "demo").items()


@pytest.mark.parametrize("command", [("up", "--port", "0"), ("config", "check")])
def test_the_address_is_checked_wherever_it_comes_from(kandev: Any, command: tuple[str, ...]) -> None:
    done = kandev(*command, SERVER_HOST="0.0.0.0")
    assert done.status == 1
    assert "0.0.0.0 is not a loopback address" in done.err
    assert len(done.err.splitlines()) == 1


def test_variables_of_other_programs_select_nothing(
    tmp_path: Path, kandev: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/user/1000/docker.sock")
    assert kandev("config", "check").status == 0
    with up(tmp_path):
        done = kandev("doctor", "--json")
    assert [check["name"] for check in done.json["checks"] if check["name"].startswith("runtime")] == ["runtime bwrap"]


def test_a_host_that_was_killed_is_taken_for_what_it_is(tmp_path: Path, kandev: Any) -> None:
    with up(tmp_path) as (process, dead):
        process.kill()
        process.wait(60)
    assert (tmp_path / "data/host.json").exists()
    with up(tmp_path) as (_, alive):
        assert alive["url"] != dead["url"]
        assert kandev("agent", "types").status == 0


def test_a_rotated_token_shuts_out_the_old_one_at_once(tmp_path: Path, kandev: Any) -> None:
    async def follow(url: str, old: str) -> None:
        async with connect(url, old) as client:
            await client.call("health.check")
            done = await anyio.to_thread.run_sync(lambda: kandev("token", "--rotate"))
            assert done.status == 0, done.err
            with anyio.fail_after(60), pytest.raises(ClientError) as ended:
                async for _ in client.notifications():
                    pass
            assert ended.value.details["close_code"] == 4401
        with pytest.raises(ClientError, match="UNAUTHORIZED"):
            async with connect(url, old):
                pass

    with up(tmp_path) as (_, ready):
        anyio.run(follow, ready["url"], Path(ready["token_path"]).read_text().strip())
        assert kandev("agent", "types").status == 0


STUBBORN = "#!/bin/sh\ntrap '' TERM INT HUP\necho up >&2\nwhile :; do sleep 1; done\n"


@contextmanager
def with_a_stubborn_agent(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A host whose one agent neither speaks nor minds a SIGTERM; with the marker to look for among processes."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / f"stubborn-{tmp_path.name}"
    program.write_text(STUBBORN)
    program.chmod(0o755)
    config = tmp_path / "config.toml"
    config.write_text(f'[orchestrator]\nauto_start = false\n[agents.stubborn]\ncommand = ["{program}"]\n')

    async def launch(url: str, token: str) -> None:
        async with connect(url, token) as client:
            board = (await client.call("board.create", {"name": "b"}))["board"]
            asked = {"board_id": board["id"], "title": "t", "description": "d", "agent_type": "stubborn"}
            task = (await client.call("task.create", asked))["task"]
            await client.subscribe("*", after_seq=0)
            agent = (await client.call("agent.launch", {"task_id": task["id"]}))["agent"]
            with anyio.fail_after(60):
                while not (await client.call("agent.logs", {"agent_id": agent["id"]}))["logs"]:
                    await anyio.sleep(0.05)

    with up(tmp_path, "--config", str(config)) as (process, ready):
        anyio.run(launch, ready["url"], Path(ready["token_path"]).read_text().strip())
        yield process, program.name


def survivors(marker: str) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if marker.encode() in command:
            found.append(folder.name)
    return found


def test_a_question_leaves_what_a_dead_host_left_to_the_next_one(tmp_path: Path, kandev: Any) -> None:
    """`doctor` and `agent types` start no host that takes over: the next one does, and says what it found."""
    with with_a_stubborn_agent(tmp_path) as (process, _):
        process.kill()
        process.wait(60)
    host = next(check for check in kandev("doctor", "--json").json["checks"] if check["name"] == "host")
    assert (host["state"], host["found"]) == ("warning", "none runs; the last one died")
    assert kandev("agent", "types").status == 0
    with up(tmp_path) as (_, ready):
        assert len(ready["recovered"]["agents_failed"]) == 1
        shown = {check["name"]: check["found"] for check in kandev("doctor", "--json").json["checks"]}
        assert shown["host"].endswith(f"answers at {ready['url']}")
    (tmp_path / "data/host.json").unlink()  # as a host that ended in good order
    shown = {check["name"]: check["found"] for check in kandev("doctor", "--json").json["checks"]}
    assert shown["host"].startswith("none runs; ")


def test_an_agent_that_ignores_sigterm_is_ended_with_its_host(tmp_path: Path) -> None:
    with with_a_stubborn_agent(tmp_path) as (process, marker):
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert survivors(marker) == []


def test_a_second_signal_ends_the_host_at_once_and_its_agents_with_it(tmp_path: Path) -> None:
    """Its status says that it waited for nobody: one that has ended its agents ends with 0."""
    with with_a_stubborn_agent(tmp_path) as (process, marker):
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            process.send_signal(signal.SIGTERM)  # again, as two that come at once are one
            time.sleep(0.05)
        assert process.poll() == 1
        while survivors(marker) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert survivors(marker) == []
