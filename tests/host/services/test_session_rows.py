"""Which sessions there are, and having one forgotten, by the host and by the agent."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from kandev_host.errors import AgentError, Conflict, NotFound, ValidationFailed
from kandev_host.interfaces import Put
from kandev_host.models import AgentInstance, Session, now
from kandev_host.protocol.actions.agents import AgentLaunch, AgentResume, AgentStop
from kandev_host.protocol.actions.session_list import AgentSessionDelete, AgentSessions
from kandev_host.settings import Settings

pytestmark = pytest.mark.anyio

OFFERS = {"sessionCapabilities": {"list": {}, "delete": {}, "close": {}, "resume": {}}}
PAGES = [
    {"sessions": [{"sessionId": "scripted-session", "cwd": "/workspace"}, {"sessionId": "old", "cwd": "/workspace",
      "title": "Before", "updatedAt": "2026-01-10T10:30:00Z"}], "nextCursor": "1"},
    {"sessions": [{"sessionId": f"older-{n}", "cwd": "/workspace"} for n in range(3)]},
]  # fmt: skip


def script(**more: Any) -> dict[str, Any]:
    return {"initialize": {"agentCapabilities": OFFERS}, "list": PAGES, "delete": {}, "close": {}, "resume": {}, **more}


async def listed(shop: Any, **fields: Any) -> Any:
    return await shop.house.session_rows.list(shop.house.me, AgentSessions(**fields))


async def delete(shop: Any, session_id: str, **fields: Any) -> Any:
    return await shop.house.session_rows.delete(shop.house.me, AgentSessionDelete(session_id=session_id, **fields))


async def agent_of(shop: Any) -> AgentInstance:
    found: AgentInstance = (await shop.house.store.find(AgentInstance, order=("-created_at", "-id"))).rows[0]
    return found


async def stopped(shop: Any) -> AgentInstance:
    agent = await agent_of(shop)
    await shop.house.agents.stop(shop.house.me, AgentStop(agent_id=agent.id))
    return agent


async def test_the_hosts_sessions_are_listed_with_what_can_be_done(open_shop: Any) -> None:
    title = {"update": {"sessionUpdate": "session_info_update", "title": "Building it"}}
    async with open_shop(Settings(), script()) as shop:
        await shop.plays(title, {"text": "Done."})
        (entry,) = (await listed(shop)).sessions
        assert (entry.live, entry.resumable, entry.title, entry.opened) == (True, None, "Building it", "new")
        agent = await stopped(shop)
        for wanted in ({}, {"agent_id": agent.id}, {"agent_type": "scripted"}):
            (entry,) = (await listed(shop, **wanted)).sessions
            assert (entry.live, entry.resumable, entry.title) == (False, "resume", "Building it")
        assert (await listed(shop, agent_type="demo")).sessions == []
        with pytest.raises(ValidationFailed):
            await listed(shop, agent_id=agent.id, agent_type="scripted")


async def test_a_live_agent_is_asked_for_its_own_page_by_page(open_shop: Any) -> None:
    async with open_shop(Settings(), script()) as shop:
        await shop.plays({"text": "Done."})
        agent, cursor, names, known = await agent_of(shop), None, [], []
        while True:
            page = await listed(shop, agent_id=agent.id, limit=2, cursor=cursor)
            assert len(page.sessions) <= 2
            names += [entry.acp_session_id for entry in page.sessions]
            known += [entry for entry in page.sessions if entry.session_id is not None]
            if (cursor := page.next_cursor) is None:
                break
        assert names == ["scripted-session", "old", "older-0", "older-1", "older-2"]
        assert len(known) == 1


@pytest.mark.parametrize(
    "answer", [{"error": {"code": -32603, "message": "no disk"}}, {"sessions": [{"sessionId": 5}]}, {}]
)
async def test_a_list_that_the_agent_does_not_give_is_said_and_hides_nothing(open_shop: Any, answer: Any) -> None:
    async with open_shop(Settings(), script(list=[answer])) as shop:
        await shop.plays({"text": "Done."})
        page = await listed(shop, agent_id=(await agent_of(shop)).id)
    assert len(page.sessions) == 1
    assert "session/list" in page.not_listed


async def test_an_open_session_is_not_deleted(open_shop: Any) -> None:
    async with open_shop(Settings(), script()) as shop:
        await shop.plays({"text": "Done."})
        (row,) = (await shop.house.store.find(Session)).rows
        with pytest.raises(Conflict, match="is open"):
            await delete(shop, row.id)
        with pytest.raises(Conflict, match="is open"):
            await delete(shop, "scripted-session", agent_id=row.agent_id)


async def test_nothing_goes_on_with_a_deleted_session(open_shop: Any) -> None:
    async with open_shop(Settings(), script()) as shop:
        await shop.plays({"text": "Done."})
        agent = await stopped(shop)
        (row,) = (await shop.house.store.find(Session)).rows
        reply = await delete(shop, row.id)
        assert (reply.session.deleted_at is not None, reply.deleted_by_agent) == (True, False)
        assert (await delete(shop, row.id)).session == reply.session
        assert (await listed(shop)).sessions[0].resumable is None
        with pytest.raises(Conflict, match="deleted"):
            await shop.house.agents.resume(shop.house.me, AgentResume(agent_id=agent.id))


async def test_a_live_agent_deletes_a_session_that_it_knows(open_shop: Any) -> None:
    async with open_shop(Settings(), script()) as shop:
        await shop.plays({"text": "Done."})
        reply = await delete(shop, "old", agent_id=(await agent_of(shop)).id)
    assert (reply.session, reply.deleted_by_agent) == (None, True)


async def test_a_session_that_nobody_knows_or_can_delete_is_not_found(open_shop: Any) -> None:
    async with open_shop(Settings(), {}) as shop:
        await shop.plays({"text": "Done."})
        with pytest.raises(NotFound):
            await delete(shop, "old", agent_id=(await agent_of(shop)).id)
        with pytest.raises(NotFound):
            await delete(shop, "old")


async def test_a_session_that_the_agent_keeps_is_not_marked(open_shop: Any) -> None:
    refuses = script(delete={"error": {"code": -32603, "message": "in use"}})
    async with open_shop(Settings(), refuses) as shop:
        await shop.plays({"text": "Done."})
        agent = await agent_of(shop)
        (row,) = (await shop.house.store.find(Session)).rows
        earlier = Session(
            agent_id=agent.id, task_id=row.task_id, acp_session_id="old", cwd=row.cwd, protocol_version=1,
            closed_at=now(),
        )  # fmt: skip
        await shop.house.journal.record(Put(earlier))
        with pytest.raises(AgentError, match="in use"):
            await delete(shop, earlier.id)
        assert (await shop.house.store.get(Session, earlier.id)).deleted_at is None


@pytest.mark.parametrize("offered", [True, False])
async def test_a_session_is_closed_before_its_agent_is_ended_where_that_is_offered(
    open_shop: Any, offered: bool
) -> None:
    capabilities = OFFERS if offered else {}
    told = {"log": "/workspace/lines", "initialize": {"agentCapabilities": capabilities}, "ignore_eof": False}
    async with open_shop(Settings(), script(**told)) as shop:
        launch = AgentLaunch(task_id=shop.task.id, agent_type="scripted", prompt=json.dumps([{"text": "Done."}]))
        await shop.house.agents.launch(shop.house.me, launch)
        await shop.heard("acp.result")
        with anyio.fail_after(60):
            await stopped(shop)
        lines = await shop.reads("lines")
    assert ("session/close" in lines) is offered
