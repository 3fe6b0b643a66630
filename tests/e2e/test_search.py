"""search.query finds what people wrote, what agents said, logged and ran."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kandev_host.client import Client, ClientError

pytestmark = pytest.mark.anyio

DEADLINE_S = 60
PROMPT = "say: The walrus has spoken\nrun: printf 'an octopus swims' > octopus.txt"


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def client(one_host: Any) -> AsyncIterator[Client]:
    async with Client.connect(one_host.url, one_host.token) as client:
        yield client


@pytest.fixture
async def task_id(client: Client) -> str:
    """A task that the demo agent has worked on."""
    board = (await client.call("board.create", {"name": "Sea"}))["board"]
    task = (
        await client.call(
            "task.create", {"board_id": board["id"], "title": "Count the narwhals", "description": PROMPT}
        )
    )["task"]
    await client.call("orchestrator.start", {"task_id": task["id"], "agent_type": "demo", "preset": "contained"})
    with anyio.fail_after(DEADLINE_S):
        async for message in client.notifications():
            if message.action == "task.state_changed" and message.payload["new_state"] != "IN_PROGRESS":
                assert message.payload["new_state"] == "COMPLETED"
                break
    return str(task["id"])


async def found(client: Client, text: str, **more: Any) -> list[tuple[str, str]]:
    hits = (await client.call("search.query", {"text": text, **more}))["hits"]
    assert all("[" in hit["snippet"] for hit in hits)
    return [(hit["kind"], hit["task_id"]) for hit in hits]


async def test_tasks_messages_and_commands_are_found(client: Client, task_id: str) -> None:
    assert ("task", task_id) in await found(client, "narw*")
    assert ("message", task_id) in await found(client, '"walrus has spoken"', kinds=["message"])
    assert ("command", task_id) in await found(client, "octopus", kinds=["command"], task_id=task_id)
    assert await found(client, "narwhals octopus-that-is-not-there") == []


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ({"text": ""}, "VALIDATION_ERROR"),
        ({"text": "x", "kinds": ["picture"]}, "VALIDATION_ERROR"),
        ({"text": "x", "limit": 0}, "VALIDATION_ERROR"),
        ({"text": "x", "task_id": "nobody"}, "NOT_FOUND"),
    ],
)
async def test_what_cannot_be_searched_is_refused(client: Client, payload: dict[str, Any], code: str) -> None:
    with pytest.raises(ClientError) as caught:
        await client.call("search.query", payload)
    assert caught.value.code == code


def test_no_text_is_an_error(one_host: Any) -> None:
    async def ask(texts: list[str]) -> None:
        async with Client.connect(one_host.url, one_host.token) as client:
            for text in texts:
                assert isinstance((await client.call("search.query", {"text": text}))["hits"], list)

    @settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=60), min_size=1, max_size=5))
    def check(texts: list[str]) -> None:
        anyio.run(ask, texts)

    check()
