"""Three turns of each agent: two of one run, and one of a run in a new process that goes on with its session."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
from released import RELEASED, Released
from runs import running

pytestmark = pytest.mark.agents


@dataclass(frozen=True)
class Story:
    """`served` are the model server's tallies of the turns, the others are rows."""

    agent: Released
    served: list[Any]
    turns: list[dict[str, Any]]
    sessions: list[dict[str, Any]]
    usage: list[dict[str, Any]]
    permissions: list[dict[str, Any]]
    changed: list[str]


@pytest.fixture(scope="module", params=RELEASED, ids=lambda agent: agent.name)
def story(
    request: pytest.FixtureRequest, host: Any, fake_models: Any, models: Any, repository: Callable[..., Path]
) -> Story:
    agent: Released = request.param
    scripts = [fake_models.script(*agent.steps(f"{turn}.txt", f"DONE-{turn}")) for turn in (1, 2, 3)]

    async def tell() -> Story:
        async with running(host) as run:
            await run.launch(agent, repository(), scripts[0])
            await run.allow()
            await run.client.call("agent.prompt", {"agent_id": run.agent_id, "prompt": scripts[1]})
            await run.allow()
            await run.stop()
            await run.resume(scripts[2])
            await run.allow()
            diff = await run.diff()
            await run.stop()
            rows = {table: run.rows(table) for table in ("turns", "sessions", "usage", "permission_requests")}
        changed = [file["path"] for file in diff["files"]]
        return Story(agent, [models.tally(script) for script in scripts], *rows.values(), changed)

    return anyio.run(tell)


def test_a_resumed_run_opens_its_session_as_far_as_its_agent_can(story: Story) -> None:
    first, second = story.sessions
    assert (first["opened"], second["opened"] in story.agent.opens) == ("new", True)
    same = first["acp_session_id"] == second["acp_session_id"]
    assert same == (second["opened"] != "transcript")


def test_the_model_of_a_resumed_run_knows_what_was_said_before(story: Story) -> None:
    """As its own words or, where all it has is the transcript, as told by the user."""
    said = story.served[2].who_said("DONE-1")
    assert said == ({"user"} if story.sessions[1]["opened"] == "transcript" else {"assistant"})


def test_every_turn_of_a_resumed_session_asks_as_the_first_did(story: Story) -> None:
    assert [row["state"] for row in story.permissions] == ["allowed"] * 3
    assert story.changed == ["1.txt", "2.txt", "3.txt"]


def test_the_tokens_of_each_turn_are_those_that_the_model_server_counted(story: Story) -> None:
    assert [row["turn_id"] for row in story.usage] == [turn["id"] for turn in story.turns]
    for row, served in zip(story.usage, story.served, strict=True):
        counted = {
            "input_tokens": served.input_tokens,
            "output_tokens": served.output_tokens,
            "cached_read_tokens": served.cached_tokens,
        }
        told = {name: value if name in story.agent.counts else None for name, value in counted.items()}
        assert {name: row[name] for name in counted} == told


def test_the_cost_of_each_turn_is_that_of_what_the_model_server_served(story: Story) -> None:
    price = story.agent.price
    for row, served in zip(story.usage, story.served, strict=True):
        if price is None:
            assert (row["cost"], row["priced_by"]) == (None, None)
        else:
            cost = served.cost(per_input=price.read, per_cached=price.cached, per_output=price.written)
            assert (float(row["cost"]), row["currency"], row["priced_by"]) == (pytest.approx(cost), "USD", "agent")
    assert [served.calls for served in story.served] == [2, 2, 2]


def test_an_agent_is_in_its_asking_mode_whichever_way_its_session_was_opened(story: Story) -> None:
    preset = story.agent.preset
    asking = {mode_of(session)[0] for session in story.sessions}
    assert asking == {preset.mode or preset.asking_modes[0]}


def test_the_modes_in_which_an_agent_asks_are_all_that_it_offers_but_those_that_approve(story: Story) -> None:
    """A new one has to be looked at: whether it asks."""
    offered = mode_of(story.sessions[0])[1]
    assert offered == {*story.agent.preset.asking_modes, *story.agent.approving}


def mode_of(session: dict[str, Any]) -> tuple[str | None, set[str]]:
    """The mode that the session is in, and all that the agent offers; its option goes before its modes."""
    for option in json.loads(session["config_options"] or "[]"):
        if option.get("category") == "mode":
            return option["currentValue"], {item["value"] for item in option["options"]}
    modes = json.loads(session["modes"] or "{}")
    return modes.get("currentModeId"), {item["id"] for item in modes.get("availableModes", [])}
