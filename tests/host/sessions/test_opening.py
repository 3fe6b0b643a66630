"""Opening a session: version, log-in, mode."""

from __future__ import annotations

from typing import Any

import pytest

from kandev_host.errors import AgentError
from kandev_host.models import Session
from kandev_host.protocol.acp import InitializeResult
from kandev_host.sessions.answers import check_auth, choose_mode

pytestmark = pytest.mark.anyio


def session(**fields: Any) -> Session:
    return Session(agent_id="a", task_id="t", acp_session_id="s", cwd="/workspace", protocol_version=1, **fields)


def option(current: str, *values: str) -> dict[str, Any]:
    choices = [{"value": value, "name": value} for value in values]
    return {"id": "how", "category": "mode", "type": "select", "currentValue": current, "options": choices}


def test_a_config_option_of_category_mode_supersedes_modes() -> None:
    modes = {"currentModeId": "auto", "availableModes": [{"id": "ask"}, {"id": "auto"}]}
    method, params = choose_mode(session(modes=modes, config_options=[option("auto", "auto", "ask")]), "ask") or (
        "",
        {},
    )
    assert (method, params["configId"], params["value"]) == ("session/set_config_option", "how", "ask")


def test_plain_modes_are_set_as_modes() -> None:
    modes = {"currentModeId": "auto", "availableModes": [{"id": "ask"}, {"id": "auto"}]}
    assert choose_mode(session(modes=modes), "ask") == ("session/set_mode", {"sessionId": "s", "modeId": "ask"})


def test_a_mode_that_is_set_already_is_left() -> None:
    assert choose_mode(session(config_options=[option("ask", "ask")]), "ask") is None


@pytest.mark.parametrize("fields", [{}, {"modes": {"availableModes": "?"}}, {"config_options": [{"category": "mode"}]}])
def test_an_agent_without_the_mode_is_an_error(fields: Any) -> None:
    with pytest.raises(AgentError, match="no mode 'ask'"):
        choose_mode(session(**fields), "ask")


def test_a_log_in_for_a_terminal_is_never_called() -> None:
    with pytest.raises(AgentError, match="terminal"):
        check_auth(InitializeResult(protocol_version=1, auth_methods=[{"id": "cli", "type": "terminal"}]), "cli")


def test_an_unknown_log_in_names_the_known_ones() -> None:
    with pytest.raises(AgentError, match="it has key"):
        check_auth(InitializeResult(protocol_version=1, auth_methods=[{"id": "key"}, {"id": 7}]), "cli")


async def test_the_sessions_row_holds_what_the_agent_said(world: Any) -> None:
    script = {
        "initialize": {"agentCapabilities": {"loadSession": True}},
        "new": {"sessionId": "scripted-session", "models": {"ignored": True}},
    }
    agent_id = await world.start(script)
    await world.until_idle()
    row = await world.session()
    assert (row.acp_session_id, row.cwd, row.protocol_version) == ("scripted-session", "/workspace", 1)
    assert (row.agent_info, row.agent_capabilities) == ({"name": "scripted", "version": "1"}, {"loadSession": True})
    assert world.supervisor.live(agent_id).agent.session_id == row.id


@pytest.mark.parametrize("new", [{"sessionId": 5}, {"sessionId": None}])
async def test_a_session_without_an_id_is_no_session(world: Any, new: Any) -> None:
    agent = await world.ended(await world.start({"new": new}))
    assert agent.error_message == "The agent answered session/new without a session"
