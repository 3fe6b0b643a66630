"""Metrics of a real host at work, as a real Prometheus server reads them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from kandev_host.client import Client, ClientError

pytestmark = pytest.mark.anyio
SHIPPED = Path(__file__).resolve().parents[2] / "config/prometheus"
DEADLINE_S = 60.0
LISTENING = re.compile(r'msg="?Listening on"?.*address="?127\.0\.0\.1:(\d+)')


@pytest.fixture
def measured(make_host: Any) -> Any:
    return make_host('[use]\ntelemetry = ["prometheus"]')


def get(url: str, token: str = "", **headers: str) -> tuple[int, str, str]:
    """Status, type and body."""
    sent = {**headers, **({"Authorization": f"Bearer {token}"} if token else {})}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=sent), timeout=30) as reply:
            return reply.status, reply.headers["Content-Type"], reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read().decode()


def until(what: Callable[[], Any]) -> Any:
    """What it answers as soon as that is something."""
    deadline = time.monotonic() + DEADLINE_S
    while not (found := what()):
        assert time.monotonic() < deadline, f"not within {DEADLINE_S:g} s"
        time.sleep(0.1)
    return found


class Prometheus:
    """A server with the shipped configuration, but for the target's address and the interval."""

    def __init__(self, folder: Path, host: Any) -> None:
        shutil.copytree(SHIPPED, folder)
        shutil.copy(host.home / "metrics-token", folder)
        config = folder / "prometheus.yml"
        text = config.read_text().replace("127.0.0.1:8080", host.url.removeprefix("http://"))
        config.write_text(re.sub(r"interval: 15s", "interval: 1s", text))
        command = [
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            "--storage.tsdb.retention.size=64MB",
            "--web.listen-address=127.0.0.1:0",
        ]
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        self.url = f"http://127.0.0.1:{until(self._port)}/api/v1"

    def _port(self) -> str | None:
        text = self._log.read_text()
        assert self.process.poll() is None, text
        found = LISTENING.search(text)
        return found and found[1]

    def ask(self, path: str, **parameters: str) -> Any:
        status, _, body = get(f"{self.url}/{path}?{urllib.parse.urlencode(parameters)}")
        return json.loads(body)["data"] if status == 200 else None

    def value(self, query: str) -> float | None:
        answer = self.ask("query", query=query)
        return float(answer["result"][0]["value"][1]) if answer and answer["result"] else None

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(DEADLINE_S)


@pytest.fixture
def server(tmp_path: Path, measured: Any) -> Iterator[Prometheus]:
    if shutil.which("prometheus") is None:
        pytest.skip("needs a Prometheus server (Debian's package prometheus)")
    server = Prometheus(tmp_path / "prometheus", measured)
    yield server
    server.stop()


async def work(host: Any, repository: Path) -> None:
    """A task that is done, with a permission that a person gives."""
    async with Client.connect(host.url, host.token) as client:
        board = (await client.call("board.create", {"name": "Work"}))["board"]
        task = {"board_id": board["id"], "title": "write A.md: hello", "description": "", "agent_type": "demo"}
        task = (await client.call("task.create", {**task, "repository_url": str(repository)}))["task"]
        await client.call("orchestrator.start", {"task_id": task["id"]})
        with anyio.fail_after(DEADLINE_S):
            async for message in client.notifications():
                if message.action == "permission.requested":
                    asked = message.payload["permission"]
                    chosen = next(each["optionId"] for each in asked["options"] if each["kind"] == "allow_once")
                    await client.call("permission.respond", {"permission_id": asked["id"], "option_id": chosen})
                if message.action == "task.state_changed" and message.payload["new_state"] == "COMPLETED":
                    return


# What a task done by the demo agent, with one permission, must have left behind.
EXACTLY = {
    "kandev_tasks_created_total": 1,
    'kandev_tasks_finished_total{outcome="completed"}': 1,
    'kandev_agent_launches_total{agent_type="demo",outcome="started"}': 1,
    'kandev_agent_runs_total{agent_type="demo",failure="none",outcome="completed"}': 1,
    'kandev_turn_duration_seconds_count{outcome="ended"}': 1,
    "kandev_permissions_requested_total": 1,
    'kandev_permissions_answered_total{by="person",outcome="allowed"}': 1,
    "kandev_permissions_waiting": 0,
    "kandev_permission_wait_seconds_count": 1,
    'kandev_acp_messages_total{direction="out",kind="request",method="session/prompt"}': 1,
    'kandev_acp_messages_total{direction="in",kind="request",method="session/request_permission"}': 1,
    'kandev_action_duration_seconds_count{action="task.create",outcome="ok"}': 1,
    'kandev_bus_events_total{event="task.created"}': 1,
}
SOME = (
    'kandev_tokens_total{agent_type="demo",kind="input"}',
    'kandev_tokens_total{agent_type="demo",kind="output"}',
    'kandev_acp_messages_total{direction="in",kind="notification",method="session/update"}',
    'kandev_spawns_total{kind="process",outcome="started",runtime="bwrap"}',
    'kandev_spawn_duration_seconds_count{kind="process",runtime="bwrap"}',
    'kandev_command_duration_seconds_count{runtime="bwrap"}',
    'kandev_agent_launch_duration_seconds_count{agent_type="demo"}',
    'kandev_store_duration_seconds_count{operation="commit"}',
    'kandev_store_commits_total{outcome="written"}',
    "kandev_agent_to_socket_latency_seconds_count",
    "kandev_bus_lag_seconds_count",
    "kandev_uptime_seconds",
    "process_open_fds",
)


def samples(text: str) -> dict[str, float]:
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


async def test_a_server_scrapes_what_a_task_left_behind(measured: Any, server: Prometheus, repository: Path) -> None:
    await work(measured, repository)
    token = (measured.home / "metrics-token").read_text().strip()

    def over() -> dict[str, float] | None:
        found = samples(get(f"{measured.url}/metrics", token)[2])
        ended = 'kandev_agent_runs_total{agent_type="demo",failure="none",outcome="completed"}'
        return found if ended in found else None

    found = await anyio.to_thread.run_sync(until, over)
    assert {name: found.get(name) for name in EXACTLY} == EXACTLY
    assert [name for name in SOME if not found.get(name)] == []
    assert not [name for name in found if "other" in name]

    text = get(f"{measured.url}/metrics", token)[2]
    lint = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False, timeout=60
    )
    assert (lint.returncode, lint.stdout + lint.stderr) == (0, "")

    finished = 'kandev_tasks_finished_total{job="kandev-host",outcome="completed"}'
    assert await anyio.to_thread.run_sync(until, lambda: server.value(finished)) == 1
    assert server.value('up{job="kandev-host"}') == 1

    def judged() -> list[dict[str, Any]] | None:
        rules = server.ask("rules")["groups"][0]["rules"]
        return rules if all(rule["health"] != "unknown" for rule in rules) else None

    rules = await anyio.to_thread.run_sync(until, judged)
    assert {(rule["name"], rule["health"]) for rule in rules if rule["health"] != "ok"} == set()
    dashboard = json.loads((SHIPPED / "grafana.json").read_text())
    for query in (target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())):
        filled = query.replace("$job", "kandev-host").replace("$__rate_interval", "1m").replace("$__range", "1h")
        assert server.ask("query", query=filled) is not None, query


async def test_only_a_token_of_the_data_folder_reads_metrics(measured: Any) -> None:
    file = measured.home / "metrics-token"
    own, url = file.read_text().strip(), f"{measured.url}/metrics"
    assert file.stat().st_mode & 0o777 == 0o600
    assert [get(url)[0], get(url, "x" * 43)[0], get(url, own)[0], get(url, measured.token)[0]] == [401, 401, 200, 200]
    assert get(url, own, Host="evil.example")[0] == 421
    assert get(url, own, Origin="https://evil.example")[0] == 403
    status, kind, body = get(url, own, Accept="application/openmetrics-text")
    assert (status, kind.partition(";")[0], body[-6:]) == (200, "application/openmetrics-text", "# EOF\n")
    assert own not in measured.log()

    with pytest.raises(ClientError, match="UNAUTHORIZED"):
        async with Client.connect(measured.url, own) as client:
            await client.call("health.check")

    file.unlink()
    assert get(url, own)[0] == 401
    assert get(url, file.read_text().strip())[0] == 200
    file.chmod(0o644)
    assert get(url, file.read_text().strip())[0] == 401


async def test_without_telemetry_there_is_neither_route_nor_token(host: Any) -> None:
    assert get(f"{host.url}/metrics", host.token)[0] == 404
    assert not (host.home / "metrics-token").exists()
