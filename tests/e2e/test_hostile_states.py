"""Requests at the wrong moment, ids that were used before, and sockets of who has left: each with its code (P18)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import Any

import aiohttp
import anyio
import pytest

from kandev_host.client import Client, ClientError
from kandev_host.models import new_id

from .hostile.states import STATES
from .hostile.wire import DEADLINE_S, TELLING

pytestmark = pytest.mark.anyio


async def until(client: Client, action: str) -> dict[str, Any]:
    with anyio.fail_after(DEADLINE_S):
        async for message in client.notifications():
            if message.action == action:
                return dict(message.payload)
    raise AssertionError("the connection was closed")


async def made(host: Any) -> dict[str, Any]:
    """The world of `STATES`."""
    async with Client.connect(host.url, host.token) as client:

        async def call(action: str, **payload: Any) -> dict[str, Any]:
            return dict(await client.call(action, payload, DEADLINE_S))

        async def task(board_id: str, **more: Any) -> str:
            return str((await call("task.create", board_id=board_id, title="t", description="", **more))["task"]["id"])

        boards = [await call("board.create", name=name) for name in ("Work", "Other", "Gone")]
        board, _, gone_board = (each["board"]["id"] for each in boards)
        blocker, gone, at_work, ended_task = [await task(board) for _ in range(4)]
        blocked = await task(board, blocked_by=[blocker])
        await call("task.update", task_id=blocked, description="of version 2")
        await call("task.delete", task_id=gone)
        await call("board.delete", board_id=gone_board)
        shell, closed = [(await call("shell.open"))["shell"]["id"] for _ in range(2)]
        await call("shell.close", shell_id=closed)
        await client.subscribe("*")
        asks = {"agent_type": "demo", "prompt": "write HELLO.md: hello"}
        ended = (await call("agent.launch", task_id=ended_task, **asks))["agent"]["id"]
        answered = (await until(client, "permission.requested"))["permission"]["id"]
        await call("permission.respond", permission_id=answered, outcome="cancelled")
        await until(client, "acp.result")
        await call("agent.stop", agent_id=ended)
        asking = (await call("agent.launch", task_id=at_work, **asks))["agent"]["id"]
        asked = (await until(client, "permission.requested"))["permission"]["id"]
    return {
        "board": board, "other": boards[1]["columns"][0]["id"], "gone-board": gone_board,
        "task": blocked, "blocker": blocker, "gone": gone, "at-work": at_work,
        "ended": ended, "asking": asking, "answered": answered, "asked": asked,
        "shell": shell, "closed": closed,
    }  # fmt: skip


@pytest.fixture(scope="module")
def world(one_host: Any) -> dict[str, Any]:
    return asyncio.run(made(one_host))


@pytest.fixture
async def client(one_host: Any) -> AsyncIterator[Client]:
    """Beside another one that must not notice."""
    said = len(one_host.log())
    async with (
        Client.connect(one_host.url, one_host.token) as client,
        Client.connect(one_host.url, one_host.token) as bystander,
    ):
        yield client
        assert (await bystander.call("health.check"))["status"] == "ok"
    log = one_host.log()[said:]
    assert "Traceback" not in log
    assert one_host.token not in log


def filled(value: Any, world: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        return {key: filled(each, world) for key, each in value.items()}
    if isinstance(value, list):
        return [filled(each, world) for each in value]
    for name, meant in world.items():
        if isinstance(value, str) and f"<{name}>" in value:
            return meant if value == f"<{name}>" else value.replace(f"<{name}>", meant)
    return value


async def code_of(client: Client, action: str, payload: Any, request_id: str | None = None) -> str:
    with pytest.raises(ClientError) as caught:
        await client.call(action, payload, DEADLINE_S, request_id=request_id)
    assert not TELLING.search(f"{caught.value.message} {caught.value.details}".encode())
    return caught.value.code


@pytest.mark.parametrize("name", STATES)
async def test_p18_a_request_at_the_wrong_moment_changes_nothing(
    client: Client, world: dict[str, Any], name: str
) -> None:
    action, payload, code = STATES[name]
    head = await client.subscribe("*")
    assert await code_of(client, action, filled(payload, world)) == code
    assert await client.subscribe("*") == head


async def test_p18_no_process_but_those_of_its_shell_gets_a_signal(
    one_host: Any, client: Client, world: dict[str, Any]
) -> None:
    for pid in (one_host.process.pid, os.getpid()):
        payload = {"shell_id": world["shell"], "signal": "KILL", "pid": pid}
        assert await client.call("shell.signal", payload) == {"signalled": False}


@pytest.mark.parametrize("id", [None, "1", "../../etc/passwd", "a\0b", "\u202e\U0001f600", "x" * 128])
async def test_p18_an_id_that_was_used_is_good_for_nothing_else(client: Client, id: str | None) -> None:
    """A UUID (None) on every socket, any other on its own."""
    id = id or new_id()
    first = await client.call("board.create", {"name": "One"}, request_id=id)
    head = await client.subscribe("*")
    assert await client.call("board.create", {"name": "One"}, request_id=id) == first
    for action, payload in (
        ("board.create", {"name": "Two"}),
        ("board.create", {"name": "One", "description": "x"}),
        ("board.delete", {"board_id": first["board"]["id"]}),
    ):
        assert await code_of(client, action, payload, id) == "CONFLICT"
    assert await client.subscribe("*") == head


async def test_p18_of_many_requests_with_one_id_one_has_an_effect(one_host: Any, client: Client) -> None:
    """Fifty at once, over several sockets, of which no two say the same."""
    id = new_id()
    codes: list[str] = []
    head = await client.subscribe("*")

    async def ask(socket: Client, number: int) -> None:
        try:
            await socket.call("board.create", {"name": f"Board {number}"}, DEADLINE_S, request_id=id)
            codes.append("")
        except ClientError as error:
            codes.append(error.code)

    async with AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(Client.connect(one_host.url, one_host.token)) for _ in range(5)]
        async with anyio.create_task_group() as asking:
            for number in range(50):
                asking.start_soon(ask, sockets[number % 5], number)
    assert sorted(codes) == ["", *["CONFLICT"] * 49]
    async for message in client.notifications():
        if message.seq is not None and message.seq > head:
            assert message.action == "board.created"
            break
    names = [each["name"] for each in (await client.call("board.list", {"limit": 500}))["boards"]]
    assert sum(name.startswith("Board ") for name in names) == 1


async def session_of(host: Any, ticket: str) -> tuple[int, str]:
    """Exchange a ticket, as the page does: the status, and the token."""
    async with (
        aiohttp.ClientSession(headers={"Origin": host.url}) as session,
        session.post(f"{host.url}/login", json={"ticket": ticket}) as answer,
    ):
        return answer.status, (await answer.json()).get("token", "")


async def test_p18_who_has_logged_out_does_nothing_more_on_any_socket(one_host: Any, client: Client) -> None:
    ticket = (await client.call("auth.ticket"))["ticket"]
    status, token = await session_of(one_host, ticket)
    assert (status, await session_of(one_host, ticket)) == (200, (401, ""))
    async with Client.connect(one_host.url, token) as one, Client.connect(one_host.url, token) as two:
        assert await code_of(one, "auth.ticket", {}) == "CONFLICT", "a session makes no other one"
        assert await code_of(one, "auth.login", {"token": "wrong"}) == "UNAUTHORIZED"
        head = await client.subscribe("*")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ending, one, "auth.logout", {})
            for socket in (one, two):
                for number in range(20):
                    tasks.start_soon(ending, socket, "health.check", {"x": number} if number % 2 else {})
        for socket in (one, two):
            with pytest.raises(ClientError) as caught:
                await socket.call("board.create", {"name": "x"})
            assert caught.value.details.get("close_code") == 4401
    with pytest.raises(ClientError) as refused:
        await Client.connect(one_host.url, token).__aenter__()
    assert refused.value.code == "UNAUTHORIZED"
    assert await client.subscribe("*") == head


async def ending(socket: Client, action: str, payload: dict[str, Any]) -> None:
    """Whatever becomes of it: the socket may end before the answer."""
    with suppress(ClientError):
        await socket.call(action, payload, DEADLINE_S)
