"""Running a host: what a service manager is told, settings read again, how it is, and its end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import anyio
import pytest

from kandev_host.client import Client

DEADLINE_S = 60
STOPPED_S = 20  # P10: 10 s; the rest is for a machine that is busy with others


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str


def kandev(host: Any, *arguments: str) -> Done:
    done = subprocess.run(
        [sys.executable, "-m", "kandev_host", *arguments, "--data-dir", str(host.home)],
        env={**os.environ, **host.env},
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def settings_of(host: Any) -> Path:
    return Path(host.env["KANDEV_CONFIG"])


class Told:
    """The datagrams of a host, as systemd gets them."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self.seen: list[dict[str, str]] = []

    def until(self, key: str, value: str | None = None) -> dict[str, str]:
        """The next word with this key; those before it are kept in `seen`."""
        ends = time.monotonic() + DEADLINE_S
        while (left := ends - time.monotonic()) > 0:
            self._listener.settimeout(left)
            text = self._listener.recv(8192).decode()
            word = dict(line.split("=", 1) for line in text.splitlines())
            self.seen.append(word)
            if key in word and value in (None, word[key]):
                return word
        raise AssertionError(f"{key} was not told: {self.seen}")


@pytest.fixture(params=["file", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Told]]:
    """The address for NOTIFY_SOCKET, and what comes there."""
    name = f"@kandev-test-{os.urandom(6).hex()}" if request.param == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name[1:] if name.startswith("@") else name)
        yield name, Told(listener)


def test_a_service_manager_is_told_of_start_life_reload_and_stop(make_host: Any, manager: tuple[str, Told]) -> None:
    address, told = manager
    host = make_host("", NOTIFY_SOCKET=address, WATCHDOG_USEC="2000000")
    ready = told.until("READY")
    assert host.url in ready["STATUS"]
    assert int(told.seen[0]["EXTEND_TIMEOUT_USEC"]) >= 10_000_000, "a start takes as long as there is to recover"
    assert not any("WATCHDOG" in word for word in told.seen[:-1]), "it is not alive before it serves"
    told.until("WATCHDOG", "1")
    told.until("WATCHDOG", "1")
    before_usec = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    host.process.send_signal(signal.SIGHUP)
    assert int(told.until("RELOADING", "1")["MONOTONIC_USEC"]) >= before_usec
    told.until("READY", "1")
    assert host.stop() == 0
    told.until("STOPPING", "1")


def origin_allowed(host: Any, origin: str) -> bool:
    try:
        with urlopen(Request(f"{host.url}/health", headers={"Origin": origin}), timeout=DEADLINE_S) as answer:
            return bool(answer.status == 200)
    except HTTPError as error:
        error.close()
        return False


def health(host: Any) -> str:
    with urlopen(f"{host.url}/health", timeout=DEADLINE_S) as answer:
        return str(json.load(answer)["status"])


RELOADED = """
[gateway]
origins = ["https://board.example"]
sockets_total = 7
journal_typo = 1
[orchestrator]
max_agents = 9
[journal]
events_kept_s = 1000.0
[store.sqlite]
reader_threads = 3
[log]
level = "debug"
[rules.no_curl]
effect = "deny"
command = ["curl"]
[agents.demo]
enabled = false
"""


@pytest.mark.anyio
async def test_what_can_be_reloaded_is_and_the_rest_is_named(make_host: Any) -> None:
    host = make_host()
    path = settings_of(host)
    path.write_text(RELOADED)
    async with Client.connect(host.url, host.token) as client:
        began = (await client.call("host.info"))["settings"]["loaded_at"]
        # Wrong: nothing is taken over, and it says where.
        done = await anyio.to_thread.run_sync(kandev, host, "reload")
        assert done.status == 1
        assert f"{path}, line 5: gateway.journal_typo is not a setting" in done.err
        assert not origin_allowed(host, "https://board.example")
        assert health(host) == "degraded"
        info = await client.call("host.info")
        assert info["settings"]["loaded_at"] == began
        assert [each["part"] for each in info["problems"]] == ["settings"]
        assert "line 5" in info["problems"][0]["message"]
        status = await anyio.to_thread.run_sync(kandev, host, "status")
        assert status.status == 1
        assert "line 5" in status.out
        assert "refused since: " in status.out
        # What no parser can take ends nothing, either.
        path.write_text(f"x = {'[' * 3000}")
        done = await anyio.to_thread.run_sync(kandev, host, "reload")
        assert (done.status, health(host)) == (1, "degraded")
        # Right: each part goes by it at once.
        path.write_text(RELOADED.replace("journal_typo = 1\n", ""))
        done = await anyio.to_thread.run_sync(kandev, host, "reload", "--json")
        assert done.status == 0
        told = json.loads(done.out)
        assert told["restart"] == ["store.sqlite"]
        assert set(told["changed"]) == {
            *("gateway.origins", "gateway.sockets_total", "orchestrator.max_agents", "journal.events_kept_s"),
            *("log.level", "rules.no_curl", "agents.demo"),
        }
        assert health(host) == "ok"
        assert origin_allowed(host, "https://board.example")
        assert (await client.call("orchestrator.status"))["capacity"]["limit"] == 9
        assert (await client.call("host.info"))["limits"]["sockets_total"] == 7
        rules = (await client.call("permission.rules"))["rules"]
        assert [rule["id"] for rule in rules] == ["settings:no_curl"]
        kinds = {kind["name"]: kind for kind in (await client.call("agent.types"))["agent_types"]}
        assert kinds["demo"]["enabled"] is False
        status = await anyio.to_thread.run_sync(kandev, host, "status")
        assert status.status == 0
        assert "store.sqlite" in status.out
        # Gone again: the defaults come back.
        path.write_text("")
        done = await anyio.to_thread.run_sync(kandev, host, "reload")
        assert "rules.no_curl" in done.out
        assert (await client.call("permission.rules"))["rules"] == []
        assert not origin_allowed(host, "https://board.example")
    assert "Only a restart makes these true: store.sqlite" in host.log()


def test_a_reload_refuses_what_would_keep_the_next_start_from_starting(make_host: Any) -> None:
    host = make_host()
    settings_of(host).write_text(
        '[use]\ntelemetry = ["otel"]\n[telemetry.otel.headers]\nauthorization = "file:/nowhere"\n'
    )
    why = "telemetry.otel.headers.authorization: /nowhere cannot be read"
    for command in ("config check", "reload"):
        done = kandev(host, *command.split())
        assert (done.status, why in done.err) == (1, True), done
    told = {check["name"]: check for check in json.loads(kandev(host, "doctor", "--json").out)["checks"]}
    assert (told["settings"]["state"], why in told["settings"]["found"]) == ("warning", True)
    assert told["host"]["state"] == "ok"
    settings_of(host).write_text("[use]\nruntime = 'bwarp'\n")
    assert "did you mean 'bwrap'" in kandev(host, "reload").err
    assert health(host) == "degraded"


def test_status_tells_each_part_and_down_stops_the_host(make_host: Any) -> None:
    host = make_host()
    found = json.loads(kandev(host, "status", "--json").out)
    assert found["status"] == "ok"
    assert found["process"]["pid"] == host.process.pid
    assert found["process"]["addresses"] == [host.url]
    assert found["process"]["memory_bytes"] > 1 << 20
    assert found["store"]["size_bytes"] > 0
    assert found["disk"]["free_bytes"] > 0
    assert found["queue"] == {"waiting": 0, "running": 0, "capacity": 4, "live_agents": 0}
    assert found["backup"]["next_at"] is not None
    plain = kandev(host, "status")
    assert plain.status == 0
    for part in ("store", "bus", "disk", "queue", "backup", "plugins", "runtime bwrap (default)"):
        assert f"\n{part}:" in plain.out
    down = kandev(host, "down", "--timeout", "90")
    assert (down.status, host.ended(DEADLINE_S)) == (0, 0)
    assert f"pid {host.process.pid}" in down.out
    assert kandev(host, "down", "--timeout", "90").status == 0, "none runs, which is no error"
    gone = kandev(host, "status")
    assert gone.status == 3
    assert "kandev-host up" in gone.out


def test_what_asks_the_running_host_works_with_settings_that_are_wrong(make_host: Any) -> None:
    host = make_host()
    settings_of(host).write_text("x = ")
    assert kandev(host, "status").status == 0
    asked = kandev(host, "board", "list")
    assert asked.status == 0
    assert "the settings are wrong" in asked.err
    assert kandev(host, "plugins").status == 0
    assert kandev(host, "down", "--timeout", "90").status == 0
    assert host.ended(DEADLINE_S) == 0


def test_down_ends_no_stranger(tmp_path: Path, make_host: Any) -> None:
    host = make_host()
    assert host.stop() == 0
    lock = host.home / "host.lock"
    with subprocess.Popen(["sleep", "100"]) as stranger:
        # A number that is left in the file, and has become somebody else's.
        lock.write_text(f"{stranger.pid}\n")
        done = kandev(host, "down", "--timeout", "90")
        assert done.status == 0
        assert "No host runs" in done.out
        # Held by one process, and naming another.
        with subprocess.Popen(["flock", str(lock), "cat"], stdin=subprocess.PIPE) as holder:
            ends = time.monotonic() + DEADLINE_S
            while (
                "is not the host" not in (done := kandev(host, "down", "--timeout", "90")).err
                and time.monotonic() < ends
            ):
                pass
            assert done.status == 1
            assert "fuser" in done.err
            assert holder.stdin is not None
            holder.stdin.close()
        assert stranger.poll() is None
        stranger.kill()


@pytest.mark.anyio
async def test_p10_a_stop_comes_in_time_with_a_stalled_client_a_database_that_is_held_and_an_agent_that_hangs(
    make_host: Any,
) -> None:
    import kandev_host.testing

    script = {
        "ignore_cancel": True,
        "ignore_term": True,
        "ignore_eof": True,
        "prompt": [{"text": "no"}, {"hang": True}],
    }
    source = Path(kandev_host.testing.__file__).with_name("scripted_agent.py").read_text()
    host = make_host(KANDEV_SERVER__STOP_TIMEOUT_S="10")
    agent = host.home.parent / "agent"
    agent.write_text(f"#!{sys.executable}\n{source}")
    agent.chmod(0o755)
    settings_of(host).write_text(f"[agents.stubborn]\ncommand = {json.dumps([str(agent), json.dumps(script)])}\n")
    assert (await anyio.to_thread.run_sync(kandev, host, "reload")).status == 0
    async with Client.connect(host.url, host.token) as client:
        board = (await client.call("board.create", {"name": "Work"}))["board"]
        task = (await client.call("task.create", {"board_id": board["id"], "title": "t", "description": ""}))["task"]
        await client.call("agent.launch", {"task_id": task["id"], "agent_type": "stubborn", "prompt": "go"})
        with anyio.fail_after(DEADLINE_S):
            async for message in client.notifications():
                if message.action == "acp.log":
                    break
        with stalled(host), held(host.home / "kandev.db"):
            began = time.monotonic()
            host.process.send_signal(signal.SIGTERM)
            await anyio.to_thread.run_sync(host.ended, DEADLINE_S)
            assert time.monotonic() - began < STOPPED_S
    host.start()
    async with Client.connect(host.url, host.token) as client:
        assert (await client.call("task.get", {"task_id": task["id"]}))["task"]["title"] == "t"


class stalled:  # noqa: N801
    """Clients that ask, and never read the answer: of HTTP, and of a request that has no end."""

    def __init__(self, host: Any) -> None:
        self._address = host.url.removeprefix("http://").rpartition(":")
        self._token = host.token
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> None:
        name = f"{self._address[0]}:{self._address[2]}"
        head = f"Host: {name}\r\nAuthorization: Bearer {self._token}\r\n"
        for text in (
            f"GET /schema.json HTTP/1.1\r\n{head}\r\n" * 50,
            f"POST /login HTTP/1.1\r\n{head}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n",
            f"GET /health HTTP/1.1\r\n{head}",
        ):
            peer = socket.create_connection((self._address[0], int(self._address[2])), DEADLINE_S)
            peer.sendall(text.encode())
            self._sockets.append(peer)

    def __exit__(self, *_: object) -> None:
        for peer in self._sockets:
            peer.close()


class held:  # noqa: N801
    """Another process holds the database."""

    def __init__(self, path: Path) -> None:
        code = (
            "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None);"
            "db.execute('BEGIN EXCLUSIVE'); print('held', flush=True); sys.stdin.read()"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __enter__(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"held\n"

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=DEADLINE_S)


def test_a_host_whose_terminal_is_closed_ends(tmp_path: Path) -> None:
    """SIGHUP means to read the settings again, but for the terminal that it was started in."""
    master, slave = os.openpty()
    command = [sys.executable, "-m", "kandev_host", "up", "--port", "0", "--json"]
    env = {**os.environ, "KANDEV_HOME": str(tmp_path / "data")}
    with subprocess.Popen(
        [sys.executable, "-c", OWN_TERMINAL, *command],
        env=env,
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        os.close(slave)
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["pid"] == process.pid
        process.send_signal(signal.SIGHUP)
        asked = [sys.executable, "-m", "kandev_host", "status", "--json"]
        ends = time.monotonic() + DEADLINE_S
        while time.monotonic() < ends:
            done = subprocess.run(asked, env=env, check=False, capture_output=True, text=True, timeout=60)
            if json.loads(done.stdout)["settings"]["loads"] == 2:
                break
        else:
            raise AssertionError(done.stdout)
        os.close(master)
        assert process.wait(DEADLINE_S) == 0


OWN_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)
