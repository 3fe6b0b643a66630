"""Third parties' plugins that raise, sleep and hang, each its own distribution: the host and the others go on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from kandev_host.client import Client, ClientError

pytestmark = pytest.mark.anyio

DEADLINE_S = 120
HEAD = """
import asyncio, os, threading, time
from contextlib import asynccontextmanager
from pathlib import Path
from kandev_host import Action, AgentType, Decision, LaunchExtras, Principal, Provider, hookimpl
"""
COLLECTED = ("agent_types", "actions", "lifespan")
HANG = "@hookimpl\ndef kandev_{0}():\n    time.sleep(3600)\n"
LIFESPAN = "@hookimpl\ndef kandev_lifespan():\n    @asynccontextmanager\n    async def lives():\n{}    return lives()\n"
GOOD = """
@hookimpl
def kandev_agent_types():
    return AgentType(name="good", description="", command=("true",))

@hookimpl
def kandev_actions(services):
    return Action("good.ping", dict, lambda call, request: {"said": request["say"]}, scope="tasks:read")
""" + LIFESPAN.format(
    "        Path(os.environ['KANDEV_HOME'], 'good').write_text('entered')\n"
    "        yield\n"
    "        Path(os.environ['KANDEV_HOME'], 'good').write_text('left')\n"
)
BROKEN = {
    "hang_import": "time.sleep(3600)",
    "exit_import": "raise SystemExit(3)",
    **{f"hang_{hook}": HANG.format(hook) for hook in COLLECTED},
    "exit_hook": "@hookimpl\ndef kandev_agent_types():\n    raise SystemExit(3)\n",
    "raise_entering": LIFESPAN.format("        raise OSError('no device')\n        yield\n"),
    "hang_entering": LIFESPAN.format(
        "        while True:\n"
        "            try:\n                await asyncio.sleep(3600)\n"
        "            except asyncio.CancelledError:\n                pass\n"
        "        yield\n"
    ),
    "raise_working": LIFESPAN.format(
        "        async with asyncio.TaskGroup() as tasks:\n"
        "            tasks.create_task(asyncio.to_thread(int, 'no number'))\n"
        "            yield\n"
    ),
}
# They are fine until they are called, or until the host stops.
LATE = {
    "hang_handler": "@hookimpl\ndef kandev_actions(services):\n"
    "    return Action('stuck.wait', dict, lambda call, request: time.sleep(3600), scope='tasks:read')\n",
    "hang_leaving": LIFESPAN.format(
        "        yield\n"
        "        while True:\n"
        "            try:\n                await asyncio.sleep(3600)\n"
        "            except asyncio.CancelledError:\n                pass\n"
    ),
    "hang_after": LIFESPAN.format(
        "        threading.Thread(target=time.sleep, args=(3600,), name='stays').start()\n        yield\n"
    ),
}


def install(folder: Path, plugins: dict[str, str]) -> str:
    """Distributions of one module each, as pip would leave them; the folder to import them from."""
    for name, source in plugins.items():
        info = folder / f"{name}-1.5.dist-info"
        info.mkdir(parents=True)
        (folder / f"{name}.py").write_text(HEAD + source)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
        (info / "entry_points.txt").write_text(f"[kandev]\n{name} = {name}\n")
    return str(folder)


def ran(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kandev_host", *arguments]
    return subprocess.run(
        command, env={**os.environ, **env}, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )


async def plugins_of(client: Client) -> dict[str, dict[str, Any]]:
    return {plugin["name"]: plugin for plugin in (await client.call("host.info"))["plugins"]}


async def until(client: Client, *names: str) -> tuple[str, dict[str, Any]]:
    with anyio.fail_after(DEADLINE_S):
        async for message in client.notifications():
            if message.action in names:
                return message.action, dict(message.payload)
    raise AssertionError(f"{names} never came")


async def test_p23_plugins_that_raise_or_hang_are_named_and_host_and_others_go_on(
    make_host: Any, tmp_path: Path
) -> None:
    env = {
        "PYTHONPATH": install(tmp_path / "site", {"good": GOOD, **BROKEN, **LATE}),
        "KANDEV_PLUGINS__HOOK_TIMEOUT_S": "2",
        "KANDEV_PLUGINS__START_TIMEOUT_S": "4",
        "KANDEV_PLUGINS__STOP_TIMEOUT_S": "1",
    }
    host = make_host(**env)
    async with Client.connect(host.url, host.token, timeout_s=DEADLINE_S) as client:
        with anyio.fail_after(DEADLINE_S):  # the task in the background may fail a moment later
            while {name for name in BROKEN if (await plugins_of(client))[name]["state"] == "active"}:
                await anyio.sleep(0.02)
        plugins = await plugins_of(client)
        assert {name: plugins[name]["state"] for name in LATE} == dict.fromkeys(LATE, "active")
        for hook in COLLECTED:
            assert plugins[f"hang_{hook}"]["reason"] == f"kandev_{hook}: Overdue: not done after 2 s"
        assert plugins["hang_import"]["reason"] == "hang_import: Overdue: not done after 4 s"
        assert plugins["raise_entering"]["reason"] == "kandev_lifespan: OSError: no device"
        assert "its work failed: ValueError: invalid literal" in plugins["raise_working"]["reason"]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(refused, client, "stuck.wait", "UNAVAILABLE")
            assert await client.call("good.ping", {"say": "here"}) == {"said": "here"}
        await refused(client, "stuck.wait", "UNAVAILABLE")
        assert (await plugins_of(client))["hang_handler"]["reason"] == "stuck.wait: Overdue: not done after 2 s"
        assert plugins["good"] == {**plugins["good"], "state": "active", "reason": None}
    listed = json.loads(ran({**env, "KANDEV_HOME": str(host.home)}, "plugins", "--json").stdout)["plugins"]
    named = {plugin["name"]: plugin for plugin in listed}
    assert named["hang_handler"]["reason"] == "stuck.wait: Overdue: not done after 2 s"
    assert {name for name in BROKEN if named[name]["state"] != "broken"} == set()
    checks = json.loads(ran({**env, "KANDEV_HOME": str(host.home)}, "doctor", "--json").stdout)["checks"]
    told = {check["name"]: check["found"] for check in checks}
    assert {name for name in BROKEN if not told[f"plugin {name}"].startswith("broken: ")} == set()
    assert (host.home / "good").read_text() == "entered"
    assert host.stop() == 0
    assert (host.home / "good").read_text() == "left"
    log = host.log()
    assert {
        name for name in (*BROKEN, "hang_handler", "hang_leaving") if f"plugin {name} is broken" not in log
    } == set()
    assert "still run: stays" in log


async def refused(client: Client, action: str, code: str) -> None:
    with pytest.raises(ClientError) as caught:
        await client.call(action, {})
    assert caught.value.code == code


DECIDING = {
    "policy": """
@hookimpl
def kandev_permission_policy(request):
    time.sleep(3600)
""",
    "adding": """
@hookimpl
def kandev_prepare_launch(agent):
    time.sleep(3600)
""",
    "sometimes": """
@hookimpl
def kandev_turn_policy(turn):
    while Path(os.environ["KANDEV_HOME"], "busy").exists():
        time.sleep(0.02)
""",
    "doors": """
class Doors:
    remote = False

    def holds(self, principal):
        return True

    async def revoke(self, principal):
        return False

    async def authenticate(self, credentials):
        token = credentials.token
        if token == "raise":
            raise OSError("no directory")
        while token == "hang":
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                pass
        scopes = frozenset({"*"})
        return Principal("user_1", "user", "One", scopes) if token == "right" else None

@asynccontextmanager
async def open_doors(settings, environment):
    yield Doors()

@hookimpl
def kandev_authenticators():
    return Provider("doors", open_doors)
""",
}


async def test_p23_what_decides_fails_closed_and_what_adds_is_left_out(make_host: Any, tmp_path: Path) -> None:
    host = make_host(
        '[use]\nauthenticator = "doors"\n[plugins]\nhook_timeout_s = 2.0\n',
        PYTHONPATH=install(tmp_path / "site", DECIDING),
    )
    for token in ("raise", "hang", "wrong"):
        with pytest.raises(ClientError) as caught:
            async with Client.connect(host.url, token, timeout_s=DEADLINE_S):
                pass
        assert caught.value.code == "UNAUTHORIZED"
    async with Client.connect(host.url, "right", timeout_s=DEADLINE_S) as client:
        plugins = await plugins_of(client)
        assert plugins["doors"]["reason"] == "authenticate: Overdue: not done after 2 s"
        board = (await client.call("board.create", {"name": "Work"}))["board"]
        fields = {"board_id": board["id"], "title": "Hello", "description": ""}
        task = (await client.call("task.create", fields))["task"]
        await client.call("task.subscribe", {"task_id": task["id"]})
        launch = {"task_id": task["id"], "agent_type": "demo", "prompt": "write HELLO.md: hello"}
        agent_id = (await client.call("agent.launch", launch))["agent"]["id"]
        asked = (await until(client, "permission.requested"))[1]["permission"]
        assert (asked["state"], asked["reason"]) == (
            "pending",
            "a policy failed: The plugin policy failed: Overdue: not done after 2 s",
        )
        assert (await plugins_of(client))["adding"]["reason"] == "kandev_prepare_launch: Overdue: not done after 2 s"
        option = next(each["optionId"] for each in asked["options"] if each["kind"] == "allow_once")
        await client.call("permission.respond", {"permission_id": asked["id"], "option_id": option})
        await until(client, "acp.result")

        (host.home / "busy").touch()
        await client.call("agent.prompt", {"agent_id": agent_id, "prompt": "say: one"})
        _, error = await until(client, "acp.error")
        assert "a turn policy failed: The plugin sometimes failed: Overdue: not done after 2 s" in error["message"]
        (host.home / "busy").unlink()
        with anyio.fail_after(DEADLINE_S):
            ended = "acp.error"
            while ended == "acp.error":  # until the call that was overdue has returned
                await client.call("agent.prompt", {"agent_id": agent_id, "prompt": "say: two"})
                ended, _ = await until(client, "acp.result", "acp.error")
    assert host.stop() == 0


STORE = """
@asynccontextmanager
async def open_store(settings, environment):
    await asyncio.to_thread(time.sleep, 3600)
    yield None

@hookimpl
def kandev_stores():
    return Provider("far", open_store)
"""


async def test_p23_a_store_that_hangs_ends_the_start_named_and_with_what_to_do(tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    config.write_text('[use]\nstore = "far"\n[plugins]\nstart_timeout_s = 2.0\n')
    site = install(tmp_path / "site", {"distant": STORE})
    env = {"KANDEV_HOME": str(tmp_path / "data"), "KANDEV_CONFIG": str(config), "PYTHONPATH": site}
    done = await anyio.to_thread.run_sync(lambda: ran(env, "up", "--port", "0"))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "kandev-host: [use] store = \"far\" does not start: plugin 'distant': Overdue: not done after 2 s;"
        " mend or update the plugin, or choose another store"
    )
