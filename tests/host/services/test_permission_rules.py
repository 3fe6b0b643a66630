"""The preset of a launch, and the rules of the user."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
from msgspec.structs import replace

from kandev_agents.presets import DEMO
from kandev_host.errors import Conflict, Forbidden, NotFound, ValidationFailed
from kandev_host.interfaces import AgentType, Principal, Put
from kandev_host.models import AgentLog, QueueEntry, Task
from kandev_host.protocol.actions.agents import AgentLaunch, AgentPrompt, AgentStop, PermissionList, PermissionRespond
from kandev_host.protocol.actions.boards import BoardCreate
from kandev_host.protocol.actions.orchestrator import OrchestratorStart, OrchestratorTrigger
from kandev_host.protocol.actions.permissions import PermissionRuleDelete, PermissionRules
from kandev_host.protocol.actions.tasks import TaskUpdate
from kandev_host.services.mcp import McpServers
from kandev_host.services.orchestration.entries import waiting_anew
from kandev_host.services.rules import check_preset, outward_of
from kandev_host.sessions.policy import Situation
from kandev_host.settings import CredentialSettings, McpSettings, PermissionSettings, RuleSettings, Settings

pytestmark = pytest.mark.anyio


@dataclass
class Place:
    """What matters of a runtime here."""

    name: str = "bwrap"
    confines: bool = True


ONLINE = AgentType(name="demo", command=("demo",), network="host")
OFFLINE = replace(ONLINE, network="none")


def situation(
    preset: Any,
    agent_type: AgentType = OFFLINE,
    place: Any = None,
    settings: PermissionSettings | None = None,
    outward: str | None = None,
) -> Situation:
    settings = settings or PermissionSettings()
    return check_preset(preset, agent_type, place or Place(), task_id="t", outward=outward, settings=settings)


def test_unattended_is_refused_with_the_hosts_network() -> None:
    with pytest.raises(ValidationFailed, match="without a network") as refused:
        situation("unattended", ONLINE)
    assert refused.value.details["field"] == "preset"


def test_unattended_is_refused_with_what_leads_out_of_the_jail() -> None:
    with pytest.raises(ValidationFailed, match=r"the task may reach x:1: take that away, or use the preset contained"):
        situation("unattended", outward="the task may reach x:1")
    assert situation("contained", outward="the task may reach x:1").preset == "contained"


@pytest.mark.parametrize("preset", ["contained", "unattended"])
def test_what_relies_on_a_jail_is_refused_without_one(preset: Any) -> None:
    with pytest.raises(ValidationFailed, match="needs a jail"):
        situation(preset, place=Place("host", confines=False))


def test_a_preset_of_the_settings_that_does_not_fit_is_ask() -> None:
    found = situation(None, ONLINE, settings=PermissionSettings(preset="unattended"))
    assert found.preset == "ask"
    assert found.note == (
        "the preset unattended of the settings needs an agent without a network, and demo has the network host:"
        " the preset is ask"
    )


def test_read_only_mounts_the_workspace_so_where_there_is_a_jail() -> None:
    assert situation("read-only").read_only
    assert not situation("read-only", place=Place("host", confines=False)).read_only
    assert not situation("contained").read_only


def test_only_unattended_ends_by_itself() -> None:
    assert situation("contained").expires_at is None
    assert situation("unattended").expires_at is not None


async def test_an_agent_that_is_read_only_cannot_write(open_house: Any, tmp_path: Path, make_desk: Any) -> None:
    async with open_house(tmp_path / "data", [DEMO], Settings()) as house:
        desk = await a_desk(house, make_desk)
        task = await desk.task(None)
        await house.agents.launch(
            house.me, AgentLaunch(task_id=task.id, agent_type="demo", preset="read-only", prompt="write a.txt: hello")
        )
        found = await resolved(house, task.id)
        assert (found.state, found.reason) == ("rejected", "preset read-only")


async def test_the_agents_log_says_which_preset_of_the_settings_it_does_not_get(
    open_house: Any, tmp_path: Path, make_desk: Any
) -> None:
    settings = Settings(permissions=PermissionSettings(preset="unattended"))
    async with open_house(tmp_path / "data", [replace(DEMO, network="host")], settings) as house:
        task = await (await a_desk(house, make_desk)).task(None)
        reply = await house.agents.launch(house.me, AgentLaunch(task_id=task.id, agent_type="demo"))
        logs = (await house.store.find(AgentLog, [("agent_instance_id", "=", reply.agent.id)])).rows
        assert "the preset is ask" in logs[0].message
        await house.agents.stop(house.me, AgentStop(agent_id=reply.agent.id, force=True))


async def test_a_preset_that_a_task_cannot_have_is_refused_when_it_is_queued_and_when_it_is_started(
    open_house: Any, tmp_path: Path, make_desk: Any
) -> None:
    async with open_house(tmp_path / "data", [replace(DEMO, network="host")], Settings()) as house:
        task = await (await a_desk(house, make_desk)).task(None)
        fields: dict[str, Any] = {"task_id": task.id, "agent_type": "demo", "preset": "unattended"}
        for doing, request in (
            (house.agents.launch, AgentLaunch(**fields)),
            (house.orchestrator.start, OrchestratorStart(**fields)),
            (house.orchestrator.trigger, OrchestratorTrigger(**fields)),
        ):
            with pytest.raises(ValidationFailed, match="without a network"):
                await doing(house.me, request)


TOKEN = {"token": CredentialSettings(variables=("SOME_TOKEN",))}
TOOLS = {"tools": McpSettings(command=("sh",), env_required=("SOME_TOKEN",))}
SERVED = {"tools": McpSettings(command=("sh",), allow=("127.0.0.1:4",))}
GIT = {"push": CredentialSettings(git="push", repository="https://git.example.org/a.git")}
GIVEN: dict[str, tuple[Settings, dict[str, Any], dict[str, Any], str]] = {
    # settings, of the agent type, of the task, why it asks
    "variable": (Settings(credentials=TOKEN), {}, {"credentials": ("token",)}, "the task has the credential token"),
    "git": (Settings(credentials=GIT), {}, {"credentials": ("push",)}, "the task has the credential push"),
    "type": (Settings(credentials=GIT), {"credentials": ("push",)}, {}, "demo always has the credential push"),
    "allow": (Settings(), {}, {"allow": ("127.0.0.1:4",)}, "the task may reach 127.0.0.1:4"),
    "mcp": (Settings(mcp=TOOLS), {}, {"mcp_servers": ("tools",)}, "the MCP server tools has a secret"),
    "served": (Settings(mcp=SERVED), {"mcp_servers": ("tools",)}, {}, "the MCP server tools may reach 127.0.0.1:4"),
}


@pytest.mark.parametrize("way", GIVEN)
def test_what_an_agent_is_given_that_leads_out_of_its_jail_is_named(way: str) -> None:
    settings, of_type, of_task, why = GIVEN[way]
    task = Task(board_id="b", title="t", description="", created_by="me", **of_task)
    kind = replace(OFFLINE, **of_type)
    assert outward_of(kind, task, McpServers(settings.mcp).outward(kind, task)) == why


@pytest.mark.parametrize("way", ["git", "allow"])
async def test_who_is_given_a_credential_or_a_service_is_not_unattended_and_contained_asks_before_it_runs_anything(
    open_house: Any, tmp_path: Path, make_desk: Any, way: str
) -> None:
    settings, of_type, of_task, why = GIVEN[way]
    async with open_house(tmp_path / "data", [replace(DEMO, **of_type)], settings) as house:
        task = await a_task(house, make_desk, **of_task)
        fields: dict[str, Any] = {"task_id": task.id, "agent_type": "demo", "preset": "unattended"}
        for doing, request in (
            (house.agents.launch, AgentLaunch(**fields)),
            (house.orchestrator.trigger, OrchestratorTrigger(**fields)),
        ):
            with pytest.raises(ValidationFailed, match=why):
                await doing(house.me, request)
        launch = AgentLaunch(task_id=task.id, agent_type="demo", preset="contained", prompt="write a.txt: hi\nrun: ls")
        await house.agents.launch(house.me, launch)
        asked = await request_of(house, task.id)
        assert asked.reason == f"preset contained, but {why}"
        (wrote, _) = (await house.permissions.list(house.me, PermissionList(task_id=task.id))).permissions
        assert (wrote.state, wrote.reason) == ("allowed", "preset contained")


async def test_the_agents_own_key_and_the_service_of_its_type_leave_contained_and_unattended_as_they_are(
    open_house: Any, tmp_path: Path, make_desk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "x" * 40)
    kind = replace(DEMO, env_required=("SOME_API_KEY",), allow=("127.0.0.1:4",))
    async with open_house(tmp_path / "data", [kind], Settings()) as house:
        task = await a_task(house, make_desk)
        launch = AgentLaunch(task_id=task.id, agent_type="demo", preset="unattended", prompt="run: ls")
        await house.agents.launch(house.me, launch)
        assert (await resolved(house, task.id)).reason == "preset unattended"


async def test_a_service_that_the_task_may_reach_meanwhile_is_asked_about_from_then_on(
    open_house: Any, tmp_path: Path, make_desk: Any
) -> None:
    async with open_house(tmp_path / "data", [DEMO], Settings()) as house:
        task = await a_task(house, make_desk)
        agent = (
            await house.agents.launch(house.me, AgentLaunch(task_id=task.id, agent_type="demo", preset="contained"))
        ).agent
        await house.tasks.update(house.me, TaskUpdate(task_id=task.id, allow=["127.0.0.1:4"]))
        await house.agents.prompt(house.me, AgentPrompt(agent_id=agent.id, prompt="run: ls"))
        assert (await request_of(house, task.id)).reason == "preset contained, but the task may reach 127.0.0.1:4"


@pytest.mark.parametrize("kind", ["agent", "service"])
async def test_only_users_name_a_preset_that_answers_in_their_place(
    open_house: Any, tmp_path: Path, make_desk: Any, kind: Any
) -> None:
    async with open_house(tmp_path / "data", [DEMO], Settings()) as house:
        task = await (await a_desk(house, make_desk)).task(None)
        other = Principal("other", kind, "other", frozenset({"*"}))
        for preset in ("contained", "unattended"):
            fields: dict[str, Any] = {"task_id": task.id, "agent_type": "demo", "preset": preset}
            for doing, request in (
                (house.agents.launch, AgentLaunch(**fields)),
                (house.orchestrator.start, OrchestratorStart(**fields)),
                (house.orchestrator.trigger, OrchestratorTrigger(**fields)),
            ):
                with pytest.raises(Forbidden):
                    await doing(other, request)


@pytest.mark.parametrize(("attempt", "preset"), [(0, "unattended"), (1, None)])
async def test_a_task_that_begins_anew_gets_no_second_time_unattended(attempt: int, preset: str | None) -> None:
    entry = QueueEntry(id="t", board_id="b", created_by="u", preset="unattended", attempt=attempt)
    assert waiting_anew(entry).preset == preset


async def test_a_rule_is_listed_deleted_and_gone(open_house: Any, tmp_path: Path, make_desk: Any) -> None:
    settings = Settings(rules={"tests": RuleSettings(effect="allow", command=("make",))})
    async with open_house(tmp_path / "data", [DEMO], settings) as house:
        task = await (await a_desk(house, make_desk)).task(None)
        launch = AgentLaunch(task_id=task.id, agent_type="demo", prompt="write a.txt: hello")
        agent = (await house.agents.launch(house.me, launch)).agent
        asked = await request_of(house, task.id)
        yes = next(option["optionId"] for option in asked.options if option["kind"] == "allow_once")
        answer = PermissionRespond(permission_id=asked.id, option_id=yes, digest=asked.digest, remember="task")
        rule = (await house.permissions.respond(house.me, answer)).rule
        assert (rule.effect, rule.task_id, rule.path) == ("allow", task.id, "a.txt")
        listed = (await house.permissions.rules(house.me, PermissionRules())).rules
        assert [each.id for each in listed] == ["settings:tests", rule.id]
        named = PermissionRules(task_id=task.id, agent_type="demo")
        assert (await house.permissions.rules(house.me, named)).rules == [rule]
        agent_itself = Principal(agent.id, "agent", "demo", frozenset({"*"}))
        with pytest.raises(Forbidden):
            await house.permissions.rule_delete(agent_itself, PermissionRuleDelete(rule_id=rule.id))
        assert (await house.permissions.rule_delete(house.me, PermissionRuleDelete(rule_id=rule.id))).rule == rule
        assert house.broker.rules.all() == house.broker.rules.of_settings
        with pytest.raises(NotFound, match="permission rule"):
            await house.permissions.rule_delete(house.me, PermissionRuleDelete(rule_id=rule.id))
        with pytest.raises(Conflict) as refused:
            await house.permissions.rule_delete(house.me, PermissionRuleDelete(rule_id="settings:tests"))
        assert refused.value.details["state"] == "settings"


async def a_desk(house: Any, make_desk: Any) -> Any:
    return make_desk(house, (await house.boards.create(house.me, BoardCreate(name="Work"))).board.id)


async def a_task(house: Any, make_desk: Any, **fields: Any) -> Any:
    task = replace(await (await a_desk(house, make_desk)).task(None), **fields)
    await house.journal.record(Put(task))
    return task


async def resolved(house: Any, task_id: str) -> Any:
    """The task's request for permission, once it is resolved."""
    return await request_of(house, task_id, "permission.resolved")


async def request_of(house: Any, task_id: str, action: str = "permission.requested") -> Any:
    with anyio.fail_after(60):
        while True:
            arrived = house.arrived
            if any(event.action == action and event.task_id == task_id for event in house.events):
                return (await house.permissions.list(house.me, PermissionList(task_id=task_id))).permissions[-1]
            await arrived.wait()
