"""Users on a real host: by socket, by POST and on the command line."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import aiohttp
import anyio
import pytest

from kandev_host.cli.app import run
from kandev_host.client import Client, ClientError, connect

pytestmark = pytest.mark.anyio

PASSWORD = "correct horse battery"
OTHER = "another staple entirely"
DEADLINE_S = 60.0
# Waits that a busy machine needs not keep.
HOST_ENV = {
    "KANDEV_USE__AUTHENTICATOR": "users",
    "KANDEV_GATEWAY__HANDSHAKE_TIMEOUT_S": "60",
    "KANDEV_GATEWAY__LOGIN_TIMEOUT_S": "60",
}


@pytest.fixture
def kandev(one_host: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """A command in this process: its status and what it printed. `stdin` and more environment by keyword."""

    def command(*words: str, stdin: str = "", **env: str) -> tuple[int, str]:
        with monkeypatch.context() as patch:
            for name, value in {**HOST_ENV, "KANDEV_HOME": str(one_host.home), **env}.items():
                patch.setenv(name, value)
            patch.setattr("sys.stdin", io.StringIO(stdin))
            capsys.readouterr()
            status = run(words)
            shown = capsys.readouterr()
            return status, shown.out + shown.err

    return command


@asynccontextmanager
async def admin(host: Any) -> AsyncIterator[Client]:
    async with connect(host.url, host.token, timeout_s=DEADLINE_S) as client:
        yield client


@asynccontextmanager
async def user(host: Any, name: str, role: str = "member") -> AsyncIterator[tuple[Client, dict[str, Any]]]:
    """A new user's socket, logged in on by password, and what the log-in was told."""
    async with admin(host) as root:
        await root.call("user.create", {"name": name, "role": role, "password": PASSWORD})
    async with connect(host.url, None, timeout_s=DEADLINE_S) as client:
        yield client, await client.call("auth.login", {"name": name, "password": PASSWORD})


async def ended(client: Client) -> None:
    """Wait until the host has closed it for what was revoked."""
    with anyio.fail_after(DEADLINE_S):
        while client.closed is None:
            await anyio.sleep(0.02)
    assert client.closed.details["close_code"] == 4401


async def refusals(host: Any, action: str, outcome: str, name: str | None = None) -> list[dict[str, Any]]:
    """Rows of the audit, once there are some (of the user who is named)."""
    async with admin(host) as root:
        with anyio.fail_after(DEADLINE_S):
            while True:
                found = (await root.call("audit.list", {"kind": "auth", "limit": 500}))["rows"]
                rows = [row for row in found if (row["action"], row["outcome"]) == (action, outcome)]
                if any(name in (None, row["details"].get("user")) for row in rows):
                    return rows
                await anyio.sleep(0.1)


async def code_of(asking: Any) -> str:
    with pytest.raises(ClientError) as error:
        await asking
    return error.value.code


async def post(host: Any, **body: Any) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.post(f"{host.url}/login", json=body) as answer:
        return answer.status, await answer.json()


async def test_a_token_opens_what_its_users_role_opens(one_host: Any) -> None:
    async with user(one_host, "reader", "viewer") as (client, told):
        async with connect(one_host.url, told["token"], timeout_s=DEADLINE_S) as other:
            await other.call("task.list")
            assert await code_of(other.call("board.create", {"name": "B"})) == "FORBIDDEN"
            assert await code_of(other.call("user.list")) == "FORBIDDEN"
        again = await client.call("auth.refresh", {"refresh_token": told["refresh_token"]})
        assert again["principal"] == told["principal"]
        assert await code_of(client.call("auth.login", {"name": "reader", "password": PASSWORD})) == "CONFLICT"
        status, by_post = await post(one_host, refresh_token=again["refresh_token"])
        assert (status, by_post["principal"]) == (200, told["principal"])
        async with connect(one_host.url, None, timeout_s=DEADLINE_S) as first:
            reply = await first.call("auth.refresh", {"refresh_token": by_post["refresh_token"]})
            assert reply["principal"] == told["principal"]
            await first.call("health.check")


@pytest.mark.parametrize(
    "change",
    [{"disabled": True}, {"role": "viewer"}, {"password": OTHER}, None],
    ids=["disabled", "role", "password", "deleted"],
)
async def test_a_change_of_a_user_closes_their_sockets(one_host: Any, change: Any) -> None:
    name = f"u-{next(iter(change)) if change else 'deleted'}"
    async with (
        user(one_host, name) as (client, told),
        connect(one_host.url, told["token"], timeout_s=DEADLINE_S) as other,
    ):
        async with admin(one_host) as root:
            await root.call("user.update" if change else "user.delete", {"user": name, **(change or {})})
        await ended(client)
        await ended(other)
        assert (await post(one_host, refresh_token=told["refresh_token"]))[0] == 401


async def test_a_refresh_token_that_is_used_again_closes_all_sockets_of_its_log_in(one_host: Any) -> None:
    async with user(one_host, "stolen") as (client, told):
        again = await client.call("auth.refresh", {"refresh_token": told["refresh_token"]})
        async with connect(one_host.url, again["token"], timeout_s=DEADLINE_S) as other:
            assert (await post(one_host, refresh_token=told["refresh_token"]))[0] == 401
            await ended(client)
            await ended(other)
    (row,) = await refusals(one_host, "auth.refresh", "reused")
    assert (row["actor_name"], row["actor"]) == ("stolen", told["principal"]["id"])
    assert (row["details"]["user"], row["details"]["credential"][:6]) == ("stolen", "login:")


async def test_of_a_failed_log_in_the_audit_has_the_user_and_never_what_was_typed(one_host: Any) -> None:
    async with admin(one_host) as root:
        await root.call("user.create", {"name": "Guessed", "password": PASSWORD})
    typed = "a pass word in the wrong field"
    for name, password in (("guessed", OTHER), (typed, PASSWORD)):
        assert (await post(one_host, name=name, password=password))[0] == 401
    rows = await refusals(one_host, "auth.login", "failed", "Guessed")
    assert [(row["actor"], row["details"]) for row in rows if "user" in row["details"]] == [
        ("unknown", {"user": "Guessed"})
    ]
    assert typed not in json.dumps(await refusals(one_host, "auth.login", "failed"))


async def test_a_log_out_and_a_revoked_key_close_their_sockets(one_host: Any) -> None:
    async with (
        user(one_host, "leaving") as (client, told),
        connect(one_host.url, told["token"], timeout_s=DEADLINE_S) as other,
    ):
        made = await client.call("key.create", {"name": "ci", "scopes": ["tasks:read", "metrics:read"]})
        async with connect(one_host.url, made["token"], timeout_s=DEADLINE_S) as by_key:
            await by_key.call("task.list")
            assert await code_of(by_key.call("board.list")) == "FORBIDDEN"
            assert await by_key.call("auth.logout") == {"revoked": False}
            await client.call("key.revoke", {"key_id": made["key"]["id"]})
            await ended(by_key)
        assert await other.call("auth.logout") == {"revoked": True}
        await ended(client)


async def test_users_own_what_they_make_and_a_name_may_be_given_again(one_host: Any) -> None:
    for _ in range(2):
        async with user(one_host, "maker") as (client, told), admin(one_host) as root:
            board = (await client.call("board.create", {"name": "Mine"}))["board"]
            assert board["owner_id"] == told["principal"]["id"]
            await root.call("user.delete", {"user": "maker"})
            assert (await root.call("board.get", {"board_id": board["id"]}))["board"]["owner_id"] == board["owner_id"]


async def test_a_right_password_lets_in_during_a_flood_of_wrong_ones(one_host: Any) -> None:
    async with user(one_host, "victim"):
        pass
    wrong = 0

    async def flood(name: str) -> None:
        nonlocal wrong
        async with aiohttp.ClientSession() as session:
            while True:
                async with session.post(f"{one_host.url}/login", json={"name": name, "password": OTHER}) as answer:
                    assert answer.status in {401, 429}
                    wrong += 1

    with anyio.fail_after(4 * DEADLINE_S):
        async with anyio.create_task_group() as group:
            for number in range(8):
                group.start_soon(flood, "victim" if number % 2 else f"nobody-{number}")
            while wrong < 8:
                await anyio.sleep(0.05)
            assert (await post(one_host, name="victim", password=PASSWORD))[0] == 200
            async with connect(one_host.url, None, timeout_s=DEADLINE_S) as client:
                await client.call("auth.login", {"name": "victim", "password": PASSWORD})
            group.cancel_scope.cancel()


def test_users_and_keys_on_the_command_line(one_host: Any, kandev: Any) -> None:
    assert kandev("user", "add", "ada", "--role", "admin", "--password-stdin", stdin=PASSWORD)[0] == 0
    assert "--password-stdin" in kandev("user", "add", "bob")[1]
    assert "ada" in kandev("user", "list")[1]
    made = json.loads(kandev("key", "create", "laptop", "--user", "ada", "--expires", "1h", "--json")[1])
    by_key = {"KANDEV_URL": one_host.url, "KANDEV_TOKEN": made["token"]}
    assert "laptop" in kandev("key", "list", **by_key)[1]
    assert "The local token has no password: name USER" in kandev("user", "password", "--password-stdin")[1]
    for lines, missing in (("", "current password"), (f"{PASSWORD}\n", "new password")):
        status, said = kandev("user", "password", "--password-stdin", stdin=lines, **by_key)
        assert (status, f"no {missing} on standard input: give two lines, the current" in said) == (2, True), said
    assert kandev("user", "password", "--password-stdin", stdin=f"{PASSWORD}\n{OTHER}\n", **by_key)[0] == 0
    assert anyio.run(partial(post, one_host, name="ada", password=OTHER))[0] == 200
    assert kandev("user", "set", "ada", "--disable")[0] == 0
    status, said = kandev("key", "list", **by_key)
    assert (status, "name one that holds in KANDEV_TOKEN" in said) == (1, True)
    assert kandev("user", "set", "ada", "--enable")[0] == 0
    assert kandev("board", "create", "Handed", "--owner", "ada")[0] == 0
    assert kandev("board", "update", "Handed", "--owner", "nobody")[0] == 2
    assert f"owner_id:    {made['key']['owner_id']}" in kandev("board", "show", "Handed")[1]
    narrow = json.loads(kandev("key", "create", "ci", "--scope", "tasks:read", "--json")[1])["token"]
    assert kandev("task", "create", "A task", "--board", "Handed")[0] == 0
    by_narrow = {**by_key, "KANDEV_TOKEN": narrow}
    status, said = kandev("task", "list", **by_narrow)
    board = json.loads(kandev("board", "show", "Handed", "--json")[1])["board"]["id"]
    assert (status, board[-8:] in said, "Handed" in said) == (0, True, False)
    status, said = kandev("board", "list", **by_narrow)
    assert (status, "users of the role viewer" in said, "--scope boards:read" in said) == (1, True, True)
    own = json.loads(kandev("key", "create", "own", "--json")[1])["key"]["id"]
    assert kandev("key", "revoke", own[-8:])[0] == 0
    assert kandev("key", "revoke", made["key"]["id"])[0] == 0
    assert kandev("user", "remove", "ada", "--yes")[0] == 0


def test_a_host_without_users_says_how_to_have_some(make_host: Any, kandev: Any) -> None:
    plain = make_host()
    for words in (("user", "list"), ("key", "create", "x")):
        status, said = kandev(*words, KANDEV_HOME=str(plain.home))
        assert (status, '[use] authenticator = "users"' in said) == (1, True)
    status, said = anyio.run(partial(post, plain, name="ada", password=PASSWORD))
    assert (status, said["code"]) == (503, "UNAVAILABLE")


def test_a_host_in_which_nobody_has_a_name_says_so_at_its_start(make_host: Any, kandev: Any) -> None:
    host = make_host(**HOST_ENV)
    hint = "kandev-host user add NAME --role admin"
    assert hint in host.log()
    added = kandev(
        "user", "add", "ada", "--role", "admin", "--password-stdin", KANDEV_HOME=str(host.home), stdin=PASSWORD
    )
    assert added[0] == 0, added
    host.stop()
    said = len(host.log())
    host.start()
    assert hint not in host.log()[said:]


async def test_nothing_that_lets_in_is_on_the_disk_or_in_the_log(
    one_host: Any, holding: Callable[[Path, bytes], list[Path]]
) -> None:
    async with user(one_host, "secretive") as (client, told):
        key = await client.call("key.create", {"name": "k"})
        for wrong in (told["token"][:-9] + "AAAAAAAAA", key["token"][:-1] + "~"):
            with pytest.raises(ClientError):
                await client.call("auth.login", {"token": wrong})
    secrets = (PASSWORD, told["token"], told["refresh_token"], key["token"])
    assert [secret for secret in secrets if holding(one_host.home.parent, secret.encode())] == []


def test_a_backup_with_secrets_has_the_users(one_host: Any, make_host: Any, kandev: Any, tmp_path: Path) -> None:
    assert kandev("user", "add", "kept", "--password-stdin", stdin=PASSWORD)[0] == 0
    told = anyio.run(partial(post, one_host, name="kept", password=PASSWORD))[1]
    plain, whole, home = tmp_path / "plain.zip", tmp_path / "whole.zip", tmp_path / "data"
    assert kandev("backup", str(plain))[0] == 0
    assert kandev("backup", str(whole), "--with-secrets")[0] == 0
    assert [name for name in ZipFile(plain).namelist() if name.startswith("secrets/")] == []
    status, said = kandev("restore", str(whole), KANDEV_HOME=str(home))
    assert (status, "Left in it, without --with-secrets" in said) == (0, True)
    status, said = kandev("restore", str(whole), "--with-secrets", KANDEV_HOME=str(home))
    assert (status, "users.db" in said) == (0, True)
    other = type(one_host)(home, dict(HOST_ENV))
    other.start()
    try:
        assert anyio.run(partial(post, other, name="kept", password=PASSWORD))[0] == 200
        assert anyio.run(partial(post, other, refresh_token=told["refresh_token"]))[0] == 200
    finally:
        other.stop()


def test_a_secret_that_everybody_knows_stops_the_start(tmp_path: Path) -> None:
    home = tmp_path / "data"
    home.mkdir(mode=0o700)
    (home / "jwt-secret").touch(0o600)
    (home / "jwt-secret").write_text("your-super-secret-jwt-token-with-at-least-32-characters-long\n")
    command = [sys.executable, "-m", "kandev_host", "up", "--port", "0"]
    env = {**os.environ, **HOST_ENV, "KANDEV_HOME": str(home)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 1
    assert "example that everybody knows" in done.stderr
