"""Options and modes: one list, set by id or category, on every session; and the modes in which an agent asks."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from kandev_host.errors import Conflict, NotFound, Unavailable, ValidationFailed
from kandev_host.models import Session
from kandev_host.sessions import steering
from kandev_host.sessions.options import call_for, checked, find_option, options_of
from kandev_host.sessions.stage import Resume

pytestmark = pytest.mark.anyio

MODEL = {
    "id": "llm",
    "name": "Model",
    "category": "model",
    "type": "select",
    "currentValue": "small",
    "options": [
        {"group": "g", "name": "Group", "options": [{"value": "small", "name": "Small"}, {"value": "big"}]},
        {"group": "h", "name": "Other", "options": [{"value": "huge", "name": "Huge"}]},
    ],
}
FAST = {"id": "fast", "name": "Fast", "type": "boolean", "currentValue": False}
HOW = {
    "id": "how",
    "name": "How",
    "category": "mode",
    "type": "select",
    "currentValue": "auto",
    "options": [{"value": value, "name": value} for value in ("ask", "plan", "auto")],
}
MODES = {"currentModeId": "auto", "availableModes": [{"id": id, "name": id.title()} for id in ("ask", "plan", "auto")]}


def session(**fields: Any) -> Session:
    return Session(agent_id="a", task_id="t", acp_session_id="s", cwd="/workspace", protocol_version=1, **fields)


def asked(log: Path) -> list[tuple[str, Any]]:
    """What was set, in order: option and value."""
    calls = [json.loads(line) for line in log.read_text().splitlines()]
    return [
        (call["params"].get("configId", "modes"), call["params"].get("value", call["params"].get("modeId")))
        for call in calls
        if str(call.get("method")).startswith("session/set_")
    ]


# --- the list ---------------------------------------------------------------------------------------------------------


def test_groups_are_one_list_of_choices() -> None:
    (option,) = options_of(session(config_options=[MODEL]))
    assert [(choice.value, choice.name, choice.group) for choice in option.choices] == [
        ("small", "Small", "Group"),
        ("big", "big", "Group"),
        ("huge", "Huge", "Other"),
    ]


def test_an_agent_that_has_modes_alone_shows_them_as_one_option() -> None:
    (option,) = options_of(session(modes=MODES))
    assert (option.id, option.category, option.type, option.current_value) == ("mode", "mode", "select", "auto")
    assert call_for(session(modes=MODES), option, "ask") == ("session/set_mode", {"sessionId": "s", "modeId": "ask"})


def test_config_options_supersede_modes() -> None:
    assert [option.id for option in options_of(session(modes=MODES, config_options=[HOW]))] == ["how"]


@pytest.mark.parametrize("category", ["thought_level", "thinking", "what comes next"])
def test_an_option_is_found_by_a_category_that_nobody_knows(category: str) -> None:
    option = find_option(options_of(session(config_options=[FAST, {**MODEL, "category": category}])), category)
    assert option is not None
    assert option.id == "llm"


def test_an_id_goes_before_a_category() -> None:
    options = options_of(session(config_options=[MODEL, {**FAST, "id": "model"}]))
    assert [found.type for name in ("model", "llm") if (found := find_option(options, name))] == ["boolean", "select"]


@pytest.mark.parametrize("raw", [{}, {"id": 7}, {"id": "x", "type": "colour"}, {"id": "x", "type": []}])
def test_what_is_no_option_that_the_host_knows_is_left_out(raw: Any) -> None:
    assert options_of(session(config_options=[raw])) == []


@pytest.mark.parametrize(("given", "taken"), [(True, True), ("true", True), ("False", False)])
def test_a_boolean_option_is_set_with_its_type(given: Any, taken: bool) -> None:
    row = session(config_options=[FAST])
    (option,) = options_of(row)
    assert call_for(row, option, checked(option, given)) == (
        "session/set_config_option",
        {"sessionId": "s", "configId": "fast", "type": "boolean", "value": taken},
    )


@pytest.mark.parametrize(("raw", "value"), [(FAST, "perhaps"), (MODEL, "medium"), (MODEL, True), (MODEL, "")])
def test_a_value_that_the_option_has_not_is_refused(raw: Any, value: Any) -> None:
    (option,) = options_of(session(config_options=[raw]))
    with pytest.raises(ValidationFailed) as caught:
        checked(option, value)
    assert caught.value.details["field"] == "value"


# --- setting one ------------------------------------------------------------------------------------------------------


async def test_an_option_is_set_by_its_category_and_kept(world: Any) -> None:
    agent_id = await world.start({"new": {"configOptions": [MODEL, FAST]}})
    await world.until_idle()
    found = await world.supervisor.live(agent_id).steering.set_option("model", "huge")
    assert [option.current_value for option in found] == ["huge", False]
    assert (await world.session()).config_options[0]["currentValue"] == "huge"
    told = await world.until("acp.status", lambda payload: "update" in payload)
    assert told["update"]["sessionUpdate"] == "config_option_update"


async def test_an_unknown_option_names_the_known_ones(world: Any) -> None:
    agent_id = await world.start({"new": {"configOptions": [MODEL, FAST]}})
    await world.until_idle()
    with pytest.raises(NotFound) as caught:
        await world.supervisor.live(agent_id).steering.set_option("colour", "red")
    assert (caught.value.details["kind"], caught.value.details["known"]) == ("option", ["llm", "fast"])


async def test_an_option_that_the_agent_refuses_stays_as_it_was(world: Any) -> None:
    agent_id = await world.start({"new": {"configOptions": [MODEL]}, "refused_values": ["huge"]})
    await world.until_idle()
    run = world.supervisor.live(agent_id)
    with pytest.raises(Unavailable, match="refused the option: Not today"):
        await run.steering.set_option("llm", "huge")
    assert run.steering.options[0].current_value == "small"


async def test_nothing_can_be_set_before_the_session_is_open(world: Any) -> None:
    agent_id = await world.start({"initialize": None})
    await world.until("acp.status")
    with pytest.raises(Conflict, match="not open yet"):
        await world.supervisor.live(agent_id).steering.set_option("model", "huge")


# --- what the type sets -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["new", "load", "resume"])
async def test_mode_and_options_are_set_after_every_way_of_opening(world: Any, tmp_path: Path, way: str) -> None:
    """Agents forget both, and the mode is the last: options may change it."""
    log = tmp_path / "lines"
    options = {"configOptions": [HOW, MODEL, FAST]}
    capabilities = {"loadSession": True, "sessionCapabilities": {"resume": {}} if way == "resume" else {}}
    script = {"new": options, way: options, "initialize": {"agentCapabilities": capabilities}, "log": str(log)}
    earlier = Resume(session=session(title="Before"), transcript="What was said")
    wanted = {"mode": "ask", "options": {"model": "huge", "fast": True}}
    await world.start(script, prompt="go", resume=None if way == "new" else earlier, **wanted)
    await world.until("acp.result")
    row = await world.session()
    assert (row.opened, row.title) == (way, None if way == "new" else "Before")
    assert asked(log) == [("llm", "huge"), ("fast", True), ("how", "ask")]


async def test_an_option_that_cannot_be_set_is_noted_and_costs_nothing(world: Any) -> None:
    script = {"new": {"configOptions": [MODEL]}, "refused_values": ["big"]}
    await world.start(script, prompt="go", options={"colour": "red", "llm": "big", "model": "none"})
    assert (await world.until("acp.result"))["status"] == "completed"
    await world.supervisor.shutdown()
    noted = [log.message for log in await world.logs()]
    assert [message.partition(" was not set")[0] for message in noted if "not set" in message] == [
        "the agent has no option 'colour', so it",
        "the option 'llm'",
        "the option 'model'",
    ]


async def test_a_mode_among_the_options_goes_before_that_of_the_type(world: Any, tmp_path: Path) -> None:
    log = tmp_path / "lines"
    script = {"new": {"configOptions": [HOW, FAST]}, "log": str(log)}
    await world.start(script, mode="ask", asking_modes=("ask", "plan"), options={"mode": "plan", "fast": "true"})
    await world.until_idle()
    assert asked(log) == [("fast", True), ("how", "plan")]


async def test_a_mode_among_the_options_that_approves_itself_is_not_set(world: Any, tmp_path: Path) -> None:
    log = tmp_path / "lines"
    script = {"new": {"configOptions": [HOW]}, "log": str(log)}
    await world.start(script, mode="ask", asking_modes=("ask", "plan"), options={"mode": "auto"})
    await world.until_idle()
    assert asked(log) == [("how", "ask")]


async def test_an_agent_that_begins_in_a_mode_that_approves_itself_is_put_into_one_that_asks(
    world: Any, tmp_path: Path
) -> None:
    log = tmp_path / "lines"
    await world.start({"new": {"modes": MODES}, "log": str(log)}, asking_modes=("ask", "plan"))
    await world.until_idle()
    assert asked(log) == [("modes", "ask")]


# --- the modes in which it asks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [{"modes": MODES}, {"configOptions": [HOW]}])
async def test_a_mode_that_approves_itself_is_refused(world: Any, shape: Any) -> None:
    agent_id = await world.start({"new": shape}, mode="ask", asking_modes=("ask", "plan"))
    await world.until_idle()
    run = world.supervisor.live(agent_id)
    with pytest.raises(Conflict) as caught:
        await run.steering.set_option("mode", "auto")
    assert (caught.value.details["state"], caught.value.details["asking_modes"]) == ("asking_modes", ["ask", "plan"])
    assert [option.current_value for option in await run.steering.set_option("mode", "plan")] == ["plan"]


async def test_an_unattended_run_may_be_in_any_mode(world: Any) -> None:
    agent_id = await world.start({"new": {"modes": MODES}}, mode="ask", asking_modes=("ask",), preset="unattended")
    await world.until_idle()
    assert [o.current_value for o in await world.supervisor.live(agent_id).steering.set_option("mode", "auto")] == [
        "auto"
    ]


async def unattended_in_auto(world: Any, log: Path, expires_at: float) -> str:
    agent_id: str = await world.start(
        {"new": {"modes": MODES}, "log": str(log)},
        mode="ask",
        asking_modes=("ask", "plan"),
        preset="unattended",
        situation={"expires_at": expires_at},
    )
    await world.until_idle()
    await world.supervisor.live(agent_id).steering.set_option("mode", "auto")
    return agent_id


class Time:
    """Of the module `steering`: it stands still until it has passed, and whoever waits for its passing is woken."""

    Event = anyio.Event

    def __init__(self) -> None:
        self.now = 100.0
        self.waits: list[tuple[float, anyio.CancelScope]] = []

    def monotonic(self) -> float:
        return self.now

    def move_on_after(self, seconds: float | None) -> anyio.CancelScope:
        scope = anyio.CancelScope()
        if seconds is not None:
            self.waits.append((self.now + seconds, scope))
        return scope

    def passes_to(self, then: float) -> None:
        self.now = then
        for due, scope in self.waits:
            if due <= then:
                scope.cancel()


async def test_a_mode_that_approves_itself_ends_with_the_preset_unattended(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, fake = tmp_path / "lines", Time()
    monkeypatch.setattr(steering, "time", fake)
    monkeypatch.setattr(steering, "anyio", fake)
    await unattended_in_auto(world, log, 102.0)
    fake.passes_to(102.0)
    await world.until("acp.status", lambda _payload: asked(log)[-1] == ("modes", "ask"))
    assert asked(log) == [("modes", "ask"), ("modes", "auto"), ("modes", "ask")]


async def test_what_only_unattended_allowed_is_set_back_when_a_turn_begins_after_it(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "lines"
    expires_at = time.monotonic() + 3600
    agent_id = await unattended_in_auto(world, log, expires_at)
    monkeypatch.setattr(steering, "time", SimpleNamespace(monotonic=lambda: expires_at))
    await world.prompt(agent_id, [switch("modes", "auto"), {"text": "Done."}])
    await world.until("acp.status", lambda _payload: asked(log)[-1] == ("modes", "ask"))


async def test_a_mode_of_the_type_in_which_it_does_not_ask_is_not_set(world: Any, tmp_path: Path) -> None:
    log = tmp_path / "lines"
    await world.start({"new": {"modes": MODES}, "log": str(log)}, mode="auto", asking_modes=("ask", "plan"))
    await world.until_idle()
    assert asked(log) == [("modes", "ask")]


def switch(shape: str, mode: str) -> dict[str, Any]:
    if shape == "modes":
        return {"update": {"sessionUpdate": "current_mode_update", "currentModeId": mode}}
    options = [{**HOW, "currentValue": mode}]
    return {"update": {"sessionUpdate": "config_option_update", "configOptions": options}}


@pytest.mark.parametrize("shape", ["modes", "configOptions"])
async def test_a_mode_that_the_agent_changes_is_set_back(world: Any, tmp_path: Path, shape: str) -> None:
    log = tmp_path / "lines"
    new = {"modes": MODES} if shape == "modes" else {"configOptions": [HOW]}
    prompt = [switch(shape, "plan"), switch(shape, "auto"), {"sleep_s": 600}]
    agent_id = await world.start({"new": new, "log": str(log)}, prompt=prompt, mode="ask", asking_modes=("ask", "plan"))
    told = await world.until("acp.error", lambda payload: payload["code"] == "MODE_CHANGED")
    assert "'auto'" in told["message"]
    assert "set back to 'plan'" in told["message"]
    await world.supervisor.cancel(agent_id)
    await world.until("acp.result")
    await world.until("acp.status", lambda payload: payload.get("update", {}) and "plan" in str(payload["update"]))
    assert asked(log)[-1] == ("modes" if shape == "modes" else "how", "plan")


async def test_an_agent_that_insists_on_its_mode_is_set_back_once_a_turn(world: Any, tmp_path: Path) -> None:
    log = tmp_path / "lines"
    prompt = [*[switch("modes", "auto"), switch("modes", "ask")] * 50, switch("modes", "auto"), {"text": "Done."}]
    script = {"new": {"modes": MODES}, "log": str(log)}
    agent_id = await world.start(script, prompt=prompt, mode="ask", asking_modes=("ask",))
    await world.until("acp.result")
    told = [error["message"] for error in world.payloads("acp.error")]
    assert ["is set back" in message for message in told] == [True, False]
    await world.prompt(agent_id, [switch("modes", "auto"), {"text": "Again."}])
    await world.until("acp.status", lambda _payload: len(asked(log)) == 3)
    assert asked(log) == [("modes", "ask")] * 3  # at the opening, and once in each turn


async def test_an_agent_whose_asking_modes_are_not_known_is_left_alone(world: Any) -> None:
    await world.start({"new": {"modes": MODES}}, prompt=[switch("modes", "auto"), {"text": "Done."}], mode="ask")
    await world.until("acp.result")
    assert world.payloads("acp.error") == []


# --- the title --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("titles", "kept"),
    [
        ([{"title": "Fix it"}], "Fix it"),
        ([{"title": "Fix it"}, {"updatedAt": "2026-01-01T00:00:00Z"}], "Fix it"),
        ([{"title": "Fix it"}, {"title": None}], None),
        ([{"title": "x" * 9999}], "x" * 500),
    ],
)
async def test_what_the_agent_calls_the_session_is_kept(world: Any, titles: Any, kept: str | None) -> None:
    steps = [{"update": {"sessionUpdate": "session_info_update", **title}} for title in titles]
    await world.start(prompt=[*steps, {"text": "Done."}])
    await world.until("acp.result")
    assert (await world.session()).title == kept
