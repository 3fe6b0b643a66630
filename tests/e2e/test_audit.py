"""What a real host writes into its audit, and what a kill leaves of it (docs/audit.md)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import apsw
import pytest

from kandev_host.audit.key import load_key, read_head
from kandev_host.audit.verify import Verdict, Verifier
from kandev_host.client import Client, ClientError, connect
from kandev_host.interfaces import Environment
from kandev_host.models import AUDIT_KINDS, LOCAL_USER_ID, AuditRow, key_id_of
from kandev_sqlite import SqliteSettings, open_store

pytestmark = pytest.mark.anyio

DEADLINE_S = 60
CANARY = "c4n4ry-5ecret-0123456789abcdef"
CONFIG = """
[agents.giver]
command = ["/bin/sh", "-c", "exit 3"]
credentials = ["models"]

[credentials.models]
variables = ["MODELS_TOKEN"]
"""
ANYTHING: dict[str, Any] = {}
USER = {"actor_kind": "user", "actor_name": "local", "address": "127.0.0.1"}
# Kind, action, outcome, and what else its row must say: of each kind at least one, as a real socket brings it about.
EXPECTED: list[tuple[str, str, str, dict[str, Any]]] = [
    ("audit", "audit.began", "ok", {"why": "first start"}),
    ("host", "host.started", "ok", {"authenticator": "local"}),
    ("host", "host.stopped", "ok", ANYTHING),
    ("auth", "auth.login", "ok", {**USER, "credential": "local-1"}),
    ("auth", "auth.login", "failed", {"actor": "unknown", "address": "127.0.0.1"}),
    ("auth", "auth.ticket", "ok", USER),
    ("auth", "auth.exchange", "ok", USER),
    ("auth", "auth.logout", "ok", USER),
    ("auth", "auth.revoked", "ok", USER),
    ("auth", "token.rotated", "ok", {"actor": "unknown"}),
    ("policy", "permission.rule_made", "deny", USER),
    ("policy", "permission.rule_delete", "ok", USER),
    ("approval", "permission.resolved", "rejected", {**USER, "tool_kind": "edit"}),
    ("approval", "permission.resolved", "rejected", {"actor": "policy", "tool_kind": "edit"}),
    ("approval", "elicitation.resolved", "accepted", {**USER, "mode": "form"}),
    ("credential", "credential.used", "ok", {"way": "variable", "what": "MODELS_TOKEN"}),
    ("launch", "agent.launched", "ok", {**USER, "runtime": "bwrap", "network": "allowlist", "preset": "ask"}),
    ("launch", "agent.resumed", "ok", USER),
    ("launch", "agent.stop", "ok", USER),
    ("launch", "agent.ended", "stopped", {"agent_type": "demo"}),
    ("launch", "shell.opened", "ok", {**USER, "allow": ["example.org"], "pty": False}),
    ("deletion", "agent.session_delete", "ok", USER),
    ("deletion", "workspace.deleted", "ok", USER),
    ("deletion", "task.deleted", "ok", {**USER, "task": "To be deleted"}),
    ("deletion", "column.deleted", "ok", {**USER, "column": "Gone"}),
    ("deletion", "board.deleted", "ok", {**USER, "board": "Gone too", "tasks": 2}),
    ("settings", "agent.type_update", "ok", {**USER, "name": "demo", "enabled": False}),
    ("settings", "settings.changed", "ok", ANYTHING),
    ("backup", "backup.create", "ok", USER),
    ("action", "task.update", "ok", {**USER, "allow": ["example.org"]}),
]


def kandev(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kandev_host", *arguments],
        env={**os.environ, "KANDEV_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def doctor(home: Path) -> Any:
    """What the doctor says of the audit."""
    checks = json.loads(kandev(home, "doctor", "--json").stdout)["checks"]
    return next(check for check in checks if check["name"] == "audit")


def verdict(home: Path, *arguments: str) -> dict[str, Any]:
    ran = kandev(home, "audit", "verify", "--json", *arguments)
    assert ran.stdout, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    assert ran.returncode == (0 if found["problem"] is None else 1)
    return found


async def checked(home: Path) -> Verdict:
    """The same of a folder that no host uses, without a process."""
    key = load_key(home)
    verifier = Verifier({key_id_of(key): key}, read_head(home), needs_head=True)
    async with open_store(SqliteSettings(), Environment(str(home), "0")) as store:
        cursor = None
        while True:
            page = await store.find(AuditRow, order=("seq",), limit=500, cursor=cursor)
            for row in page.rows:
                verifier.add(row)
            cursor = page.next_cursor
            if cursor is None:
                return verifier.verdict()


async def until(client: Client, *actions: str) -> dict[str, Any]:
    with anyio.fail_after(DEADLINE_S):
        async for message in client.notifications():
            if message.action in actions:
                return dict(message.payload)
    raise AssertionError(f"{actions} never came")


async def new_task(client: Client, board_id: str, title: str) -> str:
    payload = {"board_id": board_id, "title": title, "description": ""}
    task_id = str((await client.call("task.create", payload))["task"]["id"])
    await client.call("task.subscribe", {"task_id": task_id})
    return task_id


async def new_board(client: Client, name: str) -> dict[str, Any]:
    return dict(await client.call("board.create", {"name": name}))


async def log_ins(host: Any, client: Client) -> None:
    with pytest.raises(ClientError):
        async with Client.connect(host.url, "wrong"):
            pass
    ticket = (await client.call("auth.ticket"))["ticket"]
    async with aiohttp.ClientSession(headers={"Origin": host.url}) as session:
        async with session.post(f"{host.url}/login", json={"ticket": ticket}) as reply:
            token = (await reply.json())["token"]
        async with session.post(f"{host.url}/login", json={"ticket": ticket}) as reply:
            assert reply.status == 401
    async with connect(host.url, token) as short:
        assert (await short.call("auth.logout"))["revoked"]
        with anyio.fail_after(DEADLINE_S):
            while short.closed is None:
                await anyio.sleep(0.05)


async def runs_of_an_agent(client: Client, task_id: str) -> None:
    prompt = "write HELLO.md: hello"
    launch = {"task_id": task_id, "agent_type": "demo", "prompt": prompt}
    agent_id = (await client.call("agent.launch", launch))["agent"]["id"]
    asked = (await until(client, "permission.requested"))["permission"]
    option = next(each["optionId"] for each in asked["options"] if each["kind"] == "reject_once")
    answer = {"permission_id": asked["id"], "option_id": option, "remember": "task"}
    rule = (await client.call("permission.respond", answer))["rule"]
    await until(client, "acp.result")
    await client.call("agent.prompt", {"agent_id": agent_id, "prompt": prompt})  # which the rule answers
    await until(client, "acp.result")
    await client.call("permission.rule_delete", {"rule_id": rule["id"]})
    await client.call("agent.prompt", {"agent_id": agent_id, "prompt": f"ask: What of {CANARY}?"})
    form = (await until(client, "elicitation.requested"))["elicitation"]
    content = dict.fromkeys(form["requested_schema"]["properties"], CANARY)
    given = {"elicitation_id": form["id"], "outcome": "accept", "content": content}
    await client.call("elicitation.respond", given)
    await until(client, "acp.result")
    await client.call("agent.stop", {"agent_id": agent_id})
    resumed = (await client.call("agent.resume", {"agent_id": agent_id}))["agent"]["id"]
    await client.call("agent.stop", {"agent_id": resumed, "force": True})
    sessions = (await client.call("agent.sessions", {"agent_id": agent_id}))["sessions"]
    await client.call("agent.session_delete", {"session_id": sessions[0]["session_id"]})


async def everything(host: Any) -> list[dict[str, Any]]:
    async with connect(host.url, host.token) as client:
        await log_ins(host, client)
        board = await new_board(client, "Kept")
        task_id = await new_task(client, board["board"]["id"], "To be deleted")
        await client.call("task.update", {"task_id": task_id, "allow": ["example.org"]})
        await runs_of_an_agent(client, task_id)
        await client.call("agent.launch", {"task_id": task_id, "agent_type": "giver", "prompt": "go"})
        await until(client, "acp.error")
        shell = (await client.call("shell.open", {"task_id": task_id}))["shell"]["id"]
        await client.call("shell.close", {"shell_id": shell})
        await client.call("workspace.delete", {"task_id": task_id, "force": True})
        await client.call("task.delete", {"task_id": task_id, "force": True})
        column = await client.call("column.create", {"board_id": board["board"]["id"], "name": "Gone"})
        await client.call("column.delete", {"column_id": column["column"]["id"]})
        other = (await new_board(client, "Gone too"))["board"]["id"]
        for title in ("one", "two"):
            await new_task(client, other, title)
        await client.call("board.delete", {"board_id": other, "force": True})
        await client.call("agent.type_update", {"name": "demo", "enabled": False})
        await client.call("backup.create", {})
    host.stop()
    (host.home / "token").unlink()
    host.env["KANDEV_GATEWAY__REQUESTS_PER_S"] = "1000"
    host.start()
    rows: list[dict[str, Any]] = []
    async with connect(host.url, host.token) as client:
        with anyio.fail_after(DEADLINE_S):
            while "token.rotated" not in [row["action"] for row in rows]:
                rows = (await client.call("audit.list", {"limit": 500, "oldest_first": True}))["rows"]
                await anyio.sleep(0.05)
    return rows


@pytest.fixture(scope="module")
def told(make_host: Any) -> tuple[Any, list[dict[str, Any]]]:
    host = make_host(CONFIG, MODELS_TOKEN=CANARY)
    return host, anyio.run(everything, host)


async def test_everything_that_matters_has_a_row(told: Any) -> None:
    rows = [{**row["details"], **{name: value for name, value in row.items() if name != "details"}} for row in told[1]]
    missing = [
        (kind, action, outcome, more)
        for kind, action, outcome, more in EXPECTED
        if not any(has(row, {"kind": kind, "action": action, "outcome": outcome, **more}) for row in rows)
    ]
    assert not missing, "\n".join(map(str, [*missing, "of", *told[1]]))
    placed = [row for row in rows if row["action"] in ("agent.stop", "agent.session_delete", "shell.close")]
    assert {row["action"]: None not in (row["board_id"], row["task_id"]) for row in placed} == {
        "agent.stop": True, "agent.session_delete": True, "shell.close": True,
    }  # fmt: skip
    assert {kind for kind, *_ in EXPECTED} | {"access"} == set(AUDIT_KINDS)  # access: tests/host/gateway


def has(row: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return all(row.get(name) == value for name, value in wanted.items())


async def test_the_audit_of_a_host_holds_and_tells_no_secret(told: Any, tmp_path: Path) -> None:
    host, rows = told
    assert CANARY not in json.dumps(rows)
    assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
    assert verdict(host.home)["problem"] is None
    # Elsewhere, with the key: an export, and one in which a line was changed.
    exported, key = tmp_path / "audit.jsonl", host.home / "audit-key"
    assert kandev(host.home, "audit", "export", str(exported)).returncode == 0
    elsewhere = tmp_path / "elsewhere"
    assert verdict(elsewhere, str(exported), "--key", str(key))["problem"] is None
    lines = exported.read_text().splitlines()
    lines[3] = lines[3].replace("127.0.0.1", "10.0.0.1")
    exported.write_text("\n".join(lines) + "\n")
    assert verdict(elsewhere, str(exported), "--key", str(key))["problem"]["seq"] == 3
    assert key.read_text().strip() not in exported.read_text()


async def test_filters_and_pages_of_the_audit(told: Any) -> None:
    host, rows = told
    async with connect(host.url, host.token) as client:
        launches = [row["seq"] for row in rows if row["kind"] == "launch"]
        found: list[int] = []
        cursor = None
        while True:
            asked = {"kind": "launch", "limit": 2, "until": rows[-1]["created_at"]}
            page = await client.call("audit.list", asked if cursor is None else {**asked, "cursor": cursor})
            found += [row["seq"] for row in page["rows"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert found == launches[::-1]
        by_policy = (await client.call("audit.list", {"actor": "policy"}))["rows"]
        assert {row["kind"] for row in by_policy} == {"approval"}
        by_name, by_id = [
            (await client.call("audit.list", {"actor": actor}))["rows"] for actor in ("local", LOCAL_USER_ID)
        ]
        assert [row["seq"] for row in by_name] == [row["seq"] for row in by_id] != []
        with pytest.raises(ClientError, match="until"):
            await client.call("audit.list", {"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"})


async def test_kill_9_leaves_a_whole_chain_with_all_that_was_acknowledged(make_host: Any) -> None:
    host = make_host()
    boards: set[str] = set()

    async def writes(client: Client) -> None:
        with suppress(ClientError):  # once the host is killed
            while True:
                board = (await new_board(client, "Work"))["board"]["id"]
                await client.call("board.delete", {"board_id": board})
                boards.add(board)

    for _ in range(2):
        enough = len(boards) + 20
        async with connect(host.url, host.token) as client, anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(writes, client)
            with anyio.fail_after(DEADLINE_S):
                while len(boards) < enough:
                    await anyio.sleep(0.01)
            await anyio.to_thread.run_sync(host.kill)
        found = await checked(host.home)  # the folder that it left
        assert (found.problem, found.marks) == (None, ())
        host.start()
    async with connect(host.url, host.token) as client:
        rows: list[dict[str, Any]] = []
        cursor = None
        while cursor is not None or not rows:
            asked = {"kind": "deletion", "limit": 500, **({} if cursor is None else {"cursor": cursor})}
            page = await client.call("audit.list", asked)
            rows, cursor = rows + page["rows"], page["next_cursor"]
    assert boards <= {row["board_id"] for row in rows}
    # What somebody does to the file of a stopped host is found, too.
    host.stop()
    db = apsw.Connection(str(host.home / "kandev.db"))
    db.execute("DROP TRIGGER audit_update; UPDATE audit SET actor = 'mallory' WHERE seq = 5").fetchall()
    db.close()
    assert verdict(host.home)["problem"]["seq"] == 5
    told = doctor(host.home)
    assert (told["state"], "row 5 is bad" in told["found"]) == ("failed", True), told


def test_the_doctor_looks_at_the_audit(make_host: Any, tmp_path: Path) -> None:
    for _ in range(2):  # a look makes the key, and no row
        assert doctor(tmp_path / "new")["state"] == "ok"
    assert verdict(tmp_path / "new")["problem"] is None
    host = make_host()
    lived = doctor(host.home)
    assert (lived["state"], "all in order" in lived["found"]) == ("ok", True), lived
    host.stop()
    assert doctor(host.home)["state"] == "ok"
    (host.home / "audit-head").unlink()
    assert "audit-head" in doctor(host.home)["found"]
    (host.home / "audit-key").unlink()
    without = doctor(host.home)
    assert (without["state"], "there is no key" in without["found"]) == ("warning", True), without
