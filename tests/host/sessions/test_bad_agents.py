"""Agents that break, lie, flood and hang: each fails alone, with its reason."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kandev_host.errors import Conflict, TimedOut, Unavailable
from kandev_host.models import AgentLog
from kandev_host.settings import SessionSettings

pytestmark = pytest.mark.anyio


async def test_an_agent_that_exits_at_once_fails_with_code_and_stderr(world: Any) -> None:
    agent = await world.ended(await world.start({"start": [{"stderr": "no API key"}, {"exit": 3}]}))
    assert agent.status == "FAILED"
    assert agent.exit_code == 3
    assert agent.error_message == "The agent exited with code 3 before it answered initialize\nno API key"
    assert [row.message for row in await world.logs()] == ["no API key"]


async def test_a_command_that_prints_garbage_and_ends_fails_and_its_lines_are_kept(world: Any) -> None:
    agent = await world.ended(await world.start(command=(sys.executable, "-c", "print('Usage: foo')")))
    assert "exited with code 0 before it answered initialize" in agent.error_message
    assert [(row.message, row.metadata["stream"]) for row in await world.logs()] == [("Usage: foo", "stdout")]


async def test_an_agent_that_never_answers_initialize_fails_in_time(open_world: Any) -> None:
    world = await open_world(SessionSettings(initialize_timeout_s=0.3, kill_grace_s=0.3))
    agent = await world.ended(await world.start({"initialize": None}))
    assert (agent.status, agent.error_message) == ("FAILED", "The agent did not answer initialize within 0.3 s")


async def test_a_request_that_nobody_waits_for_any_more_is_withdrawn(world: Any, tmp_path: Path) -> None:
    log = tmp_path / "lines"
    agent_id = await world.start({"log": str(log)}, prompt=[{"text": "at it"}, {"sleep_s": 600}])
    await world.until("acp.log")
    with pytest.raises(TimedOut):
        await world.supervisor.live(agent_id).ask("session/list", {}, 0.1)
    await world.supervisor.cancel(agent_id)  # read behind what is withdrawn
    await world.until("acp.result")
    asked, withdrawn = [json.loads(line) for line in log.read_text().splitlines()][3:5]
    assert (asked["method"], withdrawn["method"]) == ("session/list", "$/cancel_request")
    assert withdrawn["params"] == {"requestId": asked["id"]}


async def test_an_agent_of_another_version_is_refused(world: Any) -> None:
    agent = await world.ended(await world.start({"initialize": {"protocolVersion": 2}}))
    assert "speaks version 2 of ACP" in agent.error_message


async def test_an_agent_without_the_mode_that_asks_is_not_used(world: Any) -> None:
    script = {"new": {"modes": {"currentModeId": "yolo", "availableModes": [{"id": "yolo", "name": "Yolo"}]}}}
    agent = await world.ended(await world.start(script, mode="ask"))
    assert "no mode 'ask'" in agent.error_message
    assert "yolo" in agent.error_message


async def test_an_agent_that_dies_in_a_turn_fails_turn_and_run(world: Any) -> None:
    prompt = [{"text": "going"}, {"stderr": "panic!"}, {"exit": 9}]
    agent = await world.ended(await world.start(prompt=prompt))
    assert (agent.status, agent.exit_code) == ("FAILED", 9)
    turn = await world.turn()
    assert turn.state == "failed"
    assert "panic!" in turn.error
    assert [error["code"] for error in world.payloads("acp.error")] == ["TURN_FAILED", "AGENT_FAILED"]


async def test_an_agent_that_exits_while_idle_has_failed(world: Any) -> None:
    agent = await world.ended(await world.start({"after_new": [{"exit": 0}]}))
    assert (agent.status, agent.exit_code) == ("FAILED", 0)


async def test_bad_lines_are_survived_logged_and_told_once(world: Any) -> None:
    raw = '42\n[]\nnull\nhello\n{"jsonrpc":"2.0"}\n\n'
    await world.start(prompt=[{"raw": raw}, {"hex": "ff0a"}, {"text": "fine"}])
    assert (await world.until("acp.result"))["status"] == "completed"
    assert [error["code"] for error in world.payloads("acp.error")] == ["PROTOCOL_FAULT"]
    await world.supervisor.shutdown()
    assert [row.message for row in await world.logs()] == ["42", "[]", "null", "hello", '{"jsonrpc":"2.0"}', "�"]


async def test_an_agent_that_only_talks_garbage_is_stopped(world: Any) -> None:
    agent = await world.ended(await world.start({"start": [{"raw": "garbage\n", "repeat": 500}, {"hang": True}]}))
    assert "lines in a row that are not ACP" in agent.error_message


async def test_an_update_without_a_session_is_a_fault_and_no_more(world: Any) -> None:
    await world.start(prompt=[{"notify": {"method": "session/update", "params": [1]}}, {"text": "fine"}])
    assert (await world.until("acp.result"))["status"] == "completed"


async def test_a_line_over_the_limit_is_dropped_and_survived(open_world: Any) -> None:
    world = await open_world(SessionSettings(line_limit_bytes=100_000))
    await world.start(prompt=[{"huge": 5_000_000}, {"text": "fine"}])
    assert (await world.until("acp.result"))["summary"] == "fine"


async def test_an_answer_over_the_limit_fails_the_turn_instead_of_hanging(open_world: Any) -> None:
    world = await open_world(SessionSettings(line_limit_bytes=100_000))
    await world.start(prompt=[{"meta": {"big": "x" * 200_000}}, {"text": "fine"}])
    assert (
        "longer than a line may be" in (await world.until("acp.error", lambda p: p["code"] == "TURN_FAILED"))["message"]
    )


async def test_a_flood_of_stderr_is_cut_and_says_so_and_blocks_nothing(world: Any) -> None:
    await world.start(prompt=[{"stderr": "noise {n}", "repeat": 20_000}, {"text": "fine"}])
    assert (await world.until("acp.result"))["summary"] == "fine"
    await world.supervisor.shutdown()
    page = await world.store.find(AgentLog, order=("-created_at", "-id"), limit=500)
    assert any("were dropped" in row.message for row in page.rows)
    assert await world.store.count(AgentLog) < 5000


async def test_a_long_line_of_stderr_is_cut(open_world: Any) -> None:
    world = await open_world(SessionSettings(stderr_line_limit_bytes=100))
    await world.start(prompt=[{"stderr": "x" * 300_000}, {"stderr": "next"}, {"text": "fine"}])
    await world.until("acp.result")
    await world.supervisor.shutdown()
    rows = await world.logs()
    assert [(len(row.message), row.metadata.get("truncated_bytes")) for row in rows] == [(100, 299_900), (4, None)]


async def test_a_child_that_holds_the_output_does_not_hold_the_run(world: Any) -> None:
    prompt = [{"child": [sys.executable, "-c", "import time; time.sleep(30)"]}, {"text": "x"}, {"exit": 1}]
    agent = await world.ended(await world.start(prompt=prompt))
    assert agent.exit_code == 1


async def test_stop_ends_an_agent_that_ignores_everything(world: Any) -> None:
    script = {"ignore_cancel": True, "ignore_eof": True, "ignore_term": True}
    agent_id = await world.start(script, prompt=[{"text": "working"}, {"hang": True}])
    await world.until("acp.log")
    agent = await world.supervisor.stop(agent_id, reason="enough")
    assert (agent.status, agent.error_message, agent.exit_code) == ("STOPPED", "enough", -9)
    assert (await world.turn()).state == "cancelled"


async def test_force_kills_at_once(world: Any) -> None:
    agent_id = await world.start({"ignore_term": True}, prompt=[{"text": "working"}, {"hang": True}])
    await world.until("acp.log")
    agent = await world.supervisor.stop(agent_id, force=True)
    assert (agent.status, agent.exit_code) == ("STOPPED", -9)
    assert (await world.turn()).state == "cancelled"


async def test_stop_before_initialize_is_answered_is_no_failure(world: Any) -> None:
    agent_id = await world.start({"initialize": None})
    agent = await world.supervisor.stop(agent_id)
    assert agent.status == "STOPPED"


async def test_prompts_that_wait_are_cancelled_when_the_agent_ends(world: Any) -> None:
    agent_id = await world.start(prompt=[{"text": "x"}, {"sleep_s": 600}])
    await world.until("acp.log")
    await world.prompt(agent_id, "never")
    await world.supervisor.stop(agent_id)
    assert [(turn.state, turn.started_at is None) for turn in await world.rows(type(await world.turn()))] == [
        ("cancelled", False),
        ("cancelled", True),
    ]


async def test_an_ended_agent_takes_no_prompt(world: Any) -> None:
    agent_id = await world.start()
    await world.supervisor.stop(agent_id)
    with pytest.raises(Conflict):
        await world.prompt(agent_id, "hello")


async def test_an_orchestrated_run_ends_with_its_turn(world: Any) -> None:
    agent = await world.ended(await world.start(prompt=[{"text": "done"}], orchestrated=True))
    assert (agent.status, agent.exit_code, agent.error_message) == ("COMPLETED", 0, None)


async def test_an_orchestrated_run_that_says_nothing_has_failed(world: Any) -> None:
    agent = await world.ended(await world.start(prompt=[{"stop": "end_turn"}], orchestrated=True))
    assert agent.status == "FAILED"
    assert "without a word" in agent.error_message


async def test_an_orchestrated_agent_that_ignores_the_end_of_its_input_is_completed_all_the_same(world: Any) -> None:
    agent = await world.ended(await world.start({"ignore_eof": True}, prompt=[{"text": "done"}], orchestrated=True))
    assert agent.status == "COMPLETED"


async def test_other_dialects_are_refused_with_the_reason(world: Any) -> None:
    with pytest.raises(Unavailable, match="speaks morse"):
        await world.start(dialect="morse")


async def test_shutdown_stops_all_agents_together(world: Any) -> None:
    stubborn = {"ignore_term": True, "ignore_eof": True}
    ids = [await world.start(stubborn, prompt=[{"text": "x"}, {"hang": True}]) for _ in range(3)]
    await world.until("acp.log")
    await world.supervisor.shutdown()
    rows = [await world.ended(agent_id) for agent_id in ids]
    assert {(row.status, row.error_message) for row in rows} == {("STOPPED", "The host shut down")}
    with pytest.raises(Unavailable):
        await world.start()


async def test_heartbeats_tell_that_the_agent_lives_and_are_not_kept(open_world: Any) -> None:
    world = await open_world(SessionSettings(heartbeat_interval_s=0.05))
    await world.start(prompt=[{"text": "x"}, {"sleep_s": 600}])
    beat = await world.until("acp.heartbeat")
    assert beat["alive"] is True
    kept = await world.store.events(0)
    assert "acp.heartbeat" not in {event.action for event in kept}


async def test_the_status_goes_from_starting_to_running_to_its_end(world: Any) -> None:
    agent_id = await world.start(prompt=[{"text": "x"}])
    await world.until("acp.result")
    await world.supervisor.stop(agent_id)
    seen = [(p["status"], p["activity"]) for p in world.payloads("acp.status")]
    assert seen == [
        ("STARTING", "starting"),
        ("RUNNING", "idle"),
        ("RUNNING", "prompting"),
        ("RUNNING", "idle"),
        ("RUNNING", "stopping"),
        ("STOPPED", None),
    ]
    assert msgspec.json.decode(world.published[-1].payload)["status"] == "STOPPED"
