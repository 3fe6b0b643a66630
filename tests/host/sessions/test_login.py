"""The want of a log-in: told with what to do, waited for, and gone on from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kandev_host.errors import Conflict, NotFound, Unavailable
from kandev_host.interfaces import AgentType
from kandev_host.models import Session, Turn
from kandev_host.sessions.logins import auth_methods, login_fix
from kandev_host.sessions.stage import Resume
from kandev_host.settings import SessionSettings

pytestmark = pytest.mark.anyio

KEY = {"id": "key", "name": "Key"}
CLI = {"id": "cli", "name": "Terminal", "type": "terminal", "args": ["--setup", "it's"], "env": [{"name": "HOW"}]}
CLAUDE = AgentType(
    name="claude",
    command=("claude-agent-acp", "--acp"),
    env_optional=("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"),
    login_files=(".claude/.credentials.json",),
)


def script(*needed: str, **login: Any) -> dict[str, Any]:
    return {
        "initialize": {"authMethods": [KEY, CLI]},
        "login": {"needed": list(needed), "methods": ["key"], **login},
    }


async def until_needed(world: Any) -> str:
    """What it says that is to be done."""
    await world.until("acp.status", lambda payload: payload["activity"] == "needs_login")
    told = await world.until("acp.error", lambda payload: payload["code"] == "NEEDS_LOGIN")
    return str(told["message"])


# --- what is to be done -----------------------------------------------------------------------------------------------


def test_a_terminal_method_is_told_as_the_agents_own_command() -> None:
    (method,) = auth_methods(CLAUDE, "a1", [CLI])
    assert method.kind == "terminal"
    assert method.fix == (
        "run `claude-agent-acp --acp --setup 'it'\"'\"'s'` with HOW set as it lists them in a terminal, "
        'set [agents.claude] share_login = [".claude/.credentials.json"] in the settings, and launch the agent again'
    )


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        (KEY, "agent"),
        ({"id": "k", "type": "agent"}, "agent"),
        ({"id": "k", "type": "newer"}, "agent"),
        ({"id": "k", "type": "env_var", "vars": [{"name": "A_KEY"}]}, "env_var"),
        ({"id": "k", "vars": [{"name": "A_KEY"}]}, "env_var"),
        ({"id": "k", "varName": "A_KEY"}, "env_var"),
        ({"id": "k", "_meta": {"type": "terminal", "terminal-auth": {"command": "rm"}}}, "agent"),
    ],
)
def test_the_kind_of_a_method_is_its_type_and_never_its_meta(method: Any, kind: str) -> None:
    (found,) = auth_methods(CLAUDE, "a1", [method])
    assert found.kind == kind
    assert ("A_KEY" in found.fix) == (kind == "env_var")
    assert "rm" not in found.fix.split()


@pytest.mark.parametrize("listed", [None, [], [{}, {"id": 7}, {"id": ""}]])
def test_methods_without_an_id_are_none(listed: Any) -> None:
    assert auth_methods(CLAUDE, "a1", listed) == []


def test_without_methods_the_keys_and_files_of_the_type_are_told() -> None:
    fix = login_fix(CLAUDE, "a1", [])
    assert "start the host with ANTHROPIC_API_KEY set" in fix
    assert 'share_login = [".claude/.credentials.json"]' in fix
    assert "BASE_URL" not in fix


def test_several_methods_of_the_agents_own_are_one_command() -> None:
    fix = login_fix(CLAUDE, "a1", auth_methods(CLAUDE, "a1", [KEY, {"id": "web"}]))
    assert fix.endswith("or run `kandev-host agent login a1 METHOD`, where METHOD is one of key, web")


def test_what_an_agent_lists_cannot_move_the_cursor() -> None:
    (method,) = auth_methods(CLAUDE, "a1", [{"id": "a\x1b[2J", "name": "\x1b]0;x", "type": "terminal"}])
    assert "\x1b" not in method.fix + method.name


# --- while the session is opened --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["initialize", "session/new"])
async def test_an_agent_that_needs_a_log_in_waits_for_it_and_goes_on(world: Any, method: str) -> None:
    agent_id = await world.start(script(method), prompt="hello")
    told = await until_needed(world)
    assert told.startswith("The agent needs a log-in: Authentication required (-32000). To log in: ")
    if method == "session/new":
        assert f"kandev-host agent login {agent_id} key" in told
    run = world.supervisor.live(agent_id)
    assert run.login.needed is not None
    await run.login.authenticate("key")
    assert (await world.until("acp.result"))["summary"] == "Done."
    assert (await world.session()).auth_methods == [KEY, CLI]
    assert run.login.needed is None


@pytest.mark.parametrize("way", ["load", "resume"])
async def test_a_log_in_that_is_missing_is_no_reason_to_begin_anew(world: Any, tmp_path: Path, way: str) -> None:
    log = tmp_path / "lines"
    capabilities = {"loadSession": True, "sessionCapabilities": {"resume": {}} if way == "resume" else {}}
    wanted = {**script(f"session/{way}"), way: {}, "log": str(log)}
    wanted["initialize"] = {"agentCapabilities": capabilities, "authMethods": [KEY]}
    session = Session(agent_id="a", task_id=world.task.id, acp_session_id="s", cwd="/workspace", protocol_version=1)
    agent_id = await world.start(wanted, prompt="more", resume=Resume(session=session, transcript="What was said"))
    await until_needed(world)
    await world.supervisor.live(agent_id).login.authenticate("key")
    await world.until("acp.result")
    methods = [json.loads(line).get("method") for line in log.read_text().splitlines()]
    assert methods[1:4] == [f"session/{way}", "authenticate", f"session/{way}"]
    assert (await world.session()).opened == way


async def test_nobody_who_logs_in_ends_the_run_in_time(open_world: Any) -> None:
    world = await open_world(SessionSettings(login_timeout_s=0.3, kill_grace_s=0.3))
    agent = await world.ended(await world.start(script("session/new")))
    assert (agent.status, agent.failure) == ("FAILED", "login")
    assert "kandev-host agent login" in agent.error_message


async def test_a_run_of_the_queue_does_not_wait_for_a_log_in(world: Any) -> None:
    agent = await world.ended(await world.start(script("session/new"), prompt="go", orchestrated=True))
    assert (agent.status, agent.failure) == ("FAILED", "login")
    assert f"kandev-host agent launch {world.task.id} --agent scripted" in agent.error_message


async def test_an_agent_that_waits_for_a_log_in_can_be_stopped(world: Any) -> None:
    agent_id = await world.start(script("session/new"))
    await until_needed(world)
    assert (await world.supervisor.stop(agent_id)).status == "STOPPED"


async def test_an_agent_that_dies_behind_its_log_in_has_crashed(world: Any) -> None:
    agent_id = await world.start({**script("session/new"), "new_steps": [{"exit": 5}]})
    await until_needed(world)
    await world.supervisor.live(agent_id).login.authenticate("key")
    agent = await world.ended(agent_id)
    assert (agent.status, agent.failure, agent.exit_code) == ("FAILED", "crash", 5)


# --- at a prompt ------------------------------------------------------------------------------------------------------


async def test_a_prompt_that_needs_a_log_in_says_what_to_do_and_goes_on_after_it(world: Any) -> None:
    agent_id = await world.start(script("session/prompt"), prompt="first")
    await world.prompt(agent_id, "second")
    told = await until_needed(world)
    error = await world.until("acp.error", lambda payload: payload["code"] == "TURN_FAILED")
    assert error["message"] == told
    run = world.supervisor.live(agent_id)
    await run.login.authenticate("key")
    assert (await world.until("acp.result"))["status"] == "completed"
    assert [turn.state for turn in await world.rows(Turn)] == ["failed", "ended"]
    assert run.login.needed is None


async def test_a_further_prompt_tries_again_what_needed_a_log_in(world: Any) -> None:
    """A person may have logged in where the host cannot see it."""
    agent_id = await world.start(script("session/prompt"), prompt="first")
    await until_needed(world)
    await world.prompt(agent_id, "second")
    await world.until("acp.error", lambda payload: payload["code"] == "TURN_FAILED" and len(failed(world)) == 2)


def failed(world: Any) -> list[Any]:
    return [each for each in world.payloads("acp.error") if each["code"] == "TURN_FAILED"]


async def test_the_prompt_of_a_run_of_the_queue_ends_it_with_what_to_do(world: Any) -> None:
    agent = await world.ended(await world.start(script("session/prompt"), prompt="go", orchestrated=True))
    assert (agent.status, agent.failure) == ("FAILED", "login")
    assert "To log in: " in agent.error_message


async def test_a_run_of_the_queue_that_needs_a_log_in_leaves_the_prompts_that_wait(world: Any) -> None:
    agent_id = await world.start(script("session/prompt"), prompt="go", orchestrated=True)
    await world.prompt(agent_id, "second")
    agent = await world.ended(agent_id)
    assert (agent.status, agent.failure) == ("FAILED", "login")
    assert [turn.state for turn in await world.rows(Turn)] == ["failed", "queued"]


# --- logging in and out -----------------------------------------------------------------------------------------------


async def test_a_terminal_method_is_told_and_never_called(world: Any, tmp_path: Path) -> None:
    log = tmp_path / "lines"
    agent_id = await world.start({**script("session/new"), "log": str(log)})
    await until_needed(world)
    with pytest.raises(Conflict) as caught:
        await world.supervisor.live(agent_id).login.authenticate("cli")
    assert caught.value.details["state"] == "terminal"
    assert "--setup" in caught.value.details["fix"]
    assert b"authenticate" not in log.read_bytes()


async def test_an_unknown_method_names_the_known_ones(world: Any) -> None:
    agent_id = await world.start(script("session/new"))
    await until_needed(world)
    with pytest.raises(NotFound) as caught:
        await world.supervisor.live(agent_id).login.authenticate("other")
    assert (caught.value.details["kind"], caught.value.details["known"]) == ("auth_method", ["key", "cli"])


async def test_a_log_in_that_the_agent_refuses_changes_nothing(world: Any) -> None:
    agent_id = await world.start(script("session/new", error={"code": -32603, "message": "Wrong key"}))
    await until_needed(world)
    run = world.supervisor.live(agent_id)
    with pytest.raises(Unavailable, match="refused the log-in: Wrong key"):
        await run.login.authenticate("key")
    assert run.activity == "needs_login"


async def test_a_log_out_is_only_asked_of_agents_that_offer_it(world: Any) -> None:
    agent_id = await world.start()
    await world.until_idle()
    with pytest.raises(Conflict, match="offers no log-out"):
        await world.supervisor.live(agent_id).login.logout()


async def test_an_agent_that_was_logged_out_needs_a_log_in(world: Any) -> None:
    wanted = script("session/prompt")
    wanted["initialize"] |= {"agentCapabilities": {"auth": {"logout": {}}}}
    agent_id = await world.start(wanted)
    await world.until_idle()
    run = world.supervisor.live(agent_id)
    await run.login.authenticate("key")
    await run.login.logout()
    await world.prompt(agent_id, "hello")
    await until_needed(world)


async def test_a_method_of_the_type_that_is_refused_is_waited_for(world: Any) -> None:
    error = {"code": -32000, "message": "Authentication required"}
    agent_id = await world.start(script(error=error), authenticate="key")
    await until_needed(world)
    assert world.supervisor.live(agent_id).session is None
