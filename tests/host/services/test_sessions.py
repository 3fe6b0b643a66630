"""What people see and set in a session, through the services: the demo agent, in the jail."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from kandev_agents.presets import DEMO
from kandev_host.errors import Conflict, NotFound, ValidationFailed
from kandev_host.models import Session
from kandev_host.protocol.actions.agents import AgentLaunch, AgentPrompt, AgentStop, AgentTypeUpdate
from kandev_host.protocol.actions.boards import BoardCreate
from kandev_host.protocol.actions.sessions import AgentAuthenticate, AgentLogout, AgentSession, AgentSetOption
from kandev_host.protocol.actions.tasks import TaskCreate
from kandev_host.services.sessions import resumable
from kandev_host.settings import Settings

pytestmark = pytest.mark.anyio
WAIT_S = 60.0


class Bench:
    """A house with a task, and its agent."""

    def __init__(self, house: Any, task_id: str) -> None:
        self.house = house
        self.task_id = task_id
        self.agent_id = ""

    async def launch(self) -> Any:
        """The agent, with its session open."""
        request = AgentLaunch(task_id=self.task_id, agent_type="demo")
        self.agent_id = (await self.house.agents.launch(self.house.me, request)).agent.id
        await self.until("agent.updated", lambda told: told["agent"]["activity"] == "idle")
        return await self.session()

    async def session(self) -> Any:
        return await self.house.agent_sessions.session(self.house.me, AgentSession(agent_id=self.agent_id))

    async def until(self, action: str, accept: Any) -> None:
        seen = 0
        with anyio.fail_after(WAIT_S):
            while True:
                for item in self.house.events[seen:]:
                    seen += 1
                    if item.action == action and accept(msgspec.json.decode(item.payload)):
                        return
                await self.house.arrived.wait()

    async def call(self, method: str, request: Any) -> Any:
        return await getattr(self.house.agent_sessions, method)(self.house.me, request)


@pytest.fixture
async def bench(tmp_path: Path, open_house: Any) -> AsyncIterator[Bench]:
    async with open_house(tmp_path / "data", [DEMO], Settings()) as house:
        board = (await house.boards.create(house.me, BoardCreate(name="Work"))).board
        created = await house.tasks.create(house.me, TaskCreate(board_id=board.id, title="t", description=""))
        yield Bench(house, created.task.id)


async def test_a_session_tells_its_options_commands_and_log_ins(bench: Bench) -> None:
    told = await bench.launch()
    assert told.session.opened == "new"
    assert [option.id for option in told.options] == ["mode", "model", "thoughts"]
    assert [method.kind for method in told.auth_methods] == ["agent"]
    assert (told.login, told.resumable.how) == (None, "resume")
    assert told.capabilities["loadSession"] is True


async def test_an_agent_that_ended_still_tells_its_session(bench: Bench) -> None:
    await bench.launch()
    await bench.house.agents.stop(bench.house.me, AgentStop(agent_id=bench.agent_id))
    told = await bench.session()
    assert told.session.closed_at is not None
    assert [method.id for method in told.auth_methods] == ["demo"]


async def test_an_option_that_a_person_sets_is_kept(bench: Bench) -> None:
    await bench.launch()
    request = AgentSetOption(agent_id=bench.agent_id, option_id="thought_level", value="off")
    assert (await bench.call("set_option", request)).options[2].current_value == "off"
    assert (await bench.session()).options[2].current_value == "off"


async def test_a_mode_in_which_it_would_not_ask_is_a_conflict(bench: Bench) -> None:
    await bench.launch()
    request = AgentSetOption(agent_id=bench.agent_id, option_id="mode", value="accept-edits")
    with pytest.raises(Conflict, match="would not ask; use one of ask, read-only"):
        await bench.call("set_option", request)


async def test_an_agent_that_was_logged_out_goes_on_after_a_log_in(bench: Bench) -> None:
    await bench.launch()
    house = bench.house
    await bench.call("logout", AgentLogout(agent_id=bench.agent_id))
    await house.agents.prompt(house.me, AgentPrompt(agent_id=bench.agent_id, prompt="say: hello"))
    await bench.until("agent.updated", lambda told: told["agent"]["activity"] == "needs_login")
    assert f"kandev-host agent login {bench.agent_id} demo" in (await bench.session()).login
    await bench.call("authenticate", AgentAuthenticate(agent_id=bench.agent_id, method_id="demo"))
    await house.agents.prompt(house.me, AgentPrompt(agent_id=bench.agent_id, prompt="say: hello"))
    await bench.until("acp.result", lambda told: told["status"] == "completed")
    assert (await bench.session()).login is None


@pytest.mark.parametrize(
    ("method", "request_of"),
    [
        ("set_option", lambda agent: AgentSetOption(agent_id=agent, option_id="mode", value="ask")),
        ("authenticate", lambda agent: AgentAuthenticate(agent_id=agent, method_id="demo")),
        ("logout", lambda agent: AgentLogout(agent_id=agent)),
    ],
)
async def test_nothing_is_set_in_an_agent_that_ended(bench: Bench, method: str, request_of: Any) -> None:
    await bench.launch()
    await bench.house.agents.stop(bench.house.me, AgentStop(agent_id=bench.agent_id))
    with pytest.raises(Conflict, match="does not run any more"):
        await bench.call(method, request_of(bench.agent_id))
    with pytest.raises(NotFound):
        await bench.call(method, request_of("nobody"))


async def test_default_options_are_set_on_the_sessions_that_follow(bench: Bench) -> None:
    types = bench.house.agent_types
    wanted = AgentTypeUpdate(name="demo", default_options={"thought_level": "off", "mode": "read-only"})
    reply = await types.update(bench.house.me, wanted)
    assert reply.agent_type.default_options == {"thought_level": "off", "mode": "read-only"}
    await types.load()  # as after a restart
    told = await bench.launch()
    assert [option.current_value for option in told.options] == ["read-only", "scripted", "off"]
    reply = await types.update(bench.house.me, AgentTypeUpdate(name="demo", default_options=None))
    assert reply.agent_type.default_options == {}


async def test_a_default_mode_in_which_it_would_not_ask_is_refused(bench: Bench) -> None:
    wanted = AgentTypeUpdate(name="demo", default_options={"mode": "accept-edits"})
    with pytest.raises(ValidationFailed) as caught:
        await bench.house.agent_types.update(bench.house.me, wanted)
    assert caught.value.details["field"] == "default_options.mode"


@pytest.mark.parametrize(
    ("capabilities", "how"),
    [
        ({"loadSession": True, "sessionCapabilities": {"resume": {}}}, "resume"),
        ({"loadSession": True}, "load"),
        ({}, "transcript"),
    ],
)
def test_how_a_session_would_be_gone_on_with(capabilities: Any, how: str) -> None:
    row = Session(
        agent_id="a", task_id="t", acp_session_id="s", cwd="/", protocol_version=1, agent_capabilities=capabilities
    )
    assert resumable(row).how == how
