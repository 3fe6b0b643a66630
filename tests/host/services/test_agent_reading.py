"""What is read of agents, however much they said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kandev_host.events import event
from kandev_host.interfaces import Environment, Principal
from kandev_host.protocol.actions.agents import AgentTranscript
from kandev_host.services.agent_reading import TRANSCRIPT_PAGE_BYTES, AgentReading
from kandev_host.testing.world import TASK, a_world, write
from kandev_sqlite import SqliteSettings, open_store

pytestmark = pytest.mark.anyio

USER = Principal("user", "user", "A user")


async def test_p14_a_page_of_a_transcript_is_bounded_in_bytes(tmp_path: Path) -> None:
    """Nobody could read, or send, 500 of the longest lines at once."""
    half = {"update": {"text": "x" * (TRANSCRIPT_PAGE_BYTES // 2)}}
    nobody: Any = None
    async with open_store(SqliteSettings(), Environment(str(tmp_path), "0")) as store:
        await a_world(store)
        numbers = await write(store, *(event("acp.log", half, task_id=TASK.id) for _ in range(5)))
        reading, pages, after = AgentReading(store, nobody, nobody), [], 0
        while after is not None:
            page = await reading.transcript(USER, AgentTranscript(task_id=TASK.id, after_seq=after))
            pages.append([entry.seq for entry in page.updates])
            after = page.next_after_seq
    assert pages == [numbers[:2], numbers[2:4], numbers[4:]]
