"""What agents speak that is not quite ACP: the shapes of the seeds, and how the host finds out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kandev_host.errors import Conflict, Unavailable
from kandev_host.interfaces import Availability, Decision
from kandev_host.models import AgentInstance, Session
from kandev_host.sessions import legacy
from kandev_host.sessions.lines import prompt_text
from kandev_host.sessions.stage import Resume
from kandev_host.sessions.updates import Voice
from kandev_host.settings import OrchestratorSettings, SessionSettings

pytestmark = pytest.mark.anyio

AGENT = AgentInstance(task_id="task-1", agent_type="old", runtime="plain")
# The Kandev plan, 8.4: what an agent in a container echoes.
PROGRESS = (
    '{"type":"progress","timestamp":"2026-01-09T10:30:00Z","agent_id":"uuid","task_id":"uuid",'
    '"data":{"progress":25,"message":"Analyzing code..."}}'
)
SOON = SessionSettings(cancel_grace_s=60.0, kill_grace_s=0.4, dialect_timeout_s=0.2)


def line(type: str, **data: Any) -> str:
    return json.dumps(
        {"type": type, "timestamp": "2026-01-09T10:30:00Z", "agent_id": "x", "task_id": "y", "data": data}
    )


def echo(*lines: str) -> str:
    return "\n".join(f"echo '{each}'" for each in lines)


def sh(*parts: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", "\n".join(parts))


async def say(world: Any, *parts: str, dialect: str = "lines", prompt: Any = "Do it", **more: Any) -> str:
    return await world.start(command=sh(*parts), dialect=dialect, prompt=prompt, **more)


# --- lines of the older shape -----------------------------------------------------------------------------------------

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)
fields = st.sampled_from(["progress", "message", "current_file", "files_processed", "total_files", "level", "summary"])
kinds = st.sampled_from(["progress", "log", "result", "error", "status", "heartbeat"])


@given(kinds, st.dictionaries(fields | st.text(max_size=4), anything, max_size=6))
def test_any_data_of_an_older_line_becomes_one_notification(kind: str, data: dict[str, Any]) -> None:
    sent = json.dumps({"type": kind, "data": data}, allow_nan=False, default=str) if _finite(data) else "{}"
    found = legacy.read(sent.encode())
    if found is None:
        return
    event = legacy.told(found, Voice(AGENT), AGENT, turn_id=None, session_id="s")
    assert (event is None) == (kind == "heartbeat")
    if event is not None:
        payload = msgspec.json.decode(event.payload)
        assert (payload["agent_id"], payload["task_id"]) == (AGENT.id, "task-1")
        assert 0 <= payload.get("progress", 0) <= 100


def _finite(data: Any) -> bool:
    try:
        json.dumps(data, allow_nan=False)
    except ValueError:
        return False
    return True


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode) | anything.map(lambda a: repr(a).encode()))
def test_what_is_no_line_of_the_older_shape_is_none(data: bytes) -> None:
    assert legacy.read(data) is None


@pytest.mark.parametrize(
    "wrong",
    [
        '{"jsonrpc": "2.0", "type": "log", "data": {}}',
        '{"type": "log"}',
        '{"type": "log", "data": []}',
        '{"type": "shout", "data": {}}',
        '{"type": "log", "data": {"a": ' + "[" * 2000 + "]" * 2000 + "}}",
        '{"type": "log", "data": {}} trailing',
    ],
)
def test_a_line_is_of_the_older_shape_only_with_type_data_and_no_jsonrpc(wrong: str) -> None:
    assert legacy.read(wrong.encode()) is None


@pytest.mark.parametrize(("told", "shown"), [(-3, 0), (45.7, 45), (1e300, 100), (10**40, 100), ("50", 0), (True, 0)])
def test_progress_is_a_percentage(told: Any, shown: int) -> None:
    found = legacy.read(line("progress", progress=told).encode())
    assert found is not None
    event = legacy.told(found, Voice(AGENT), AGENT, turn_id=None, session_id=None)
    assert event is not None
    assert msgspec.json.decode(event.payload)["progress"] == shown


async def test_legacy_lines_in_an_acp_session_are_flagged_once(world: Any) -> None:
    steps = [{"raw": PROGRESS + "\n"}, {"raw": line("log", message="hello") + "\n"}, {"text": "Done."}]
    await world.start(prompt=steps)
    assert (await world.until("acp.result"))["status"] == "completed"
    assert [p["message"] for p in world.payloads("acp.progress")] == ["Analyzing code..."]
    assert [p["message"] for p in world.payloads("acp.log")] == ["hello", "Done."]
    assert [p["code"] for p in world.payloads("acp.error")] == ["PROTOCOL_FAULT"]


async def test_a_legacy_result_ends_no_acp_turn(world: Any) -> None:
    await world.start(prompt=[{"raw": line("result", summary="imitated") + "\n"}, {"text": "Done."}])
    assert (await world.until("acp.result"))["summary"] == "Done."


# --- lines ------------------------------------------------------------------------------------------------------------


async def test_the_seeds_container_lines_become_notifications(world: Any) -> None:
    result = line("result", status="completed", summary="12 issues", artifacts=[{"type": "report", "path": "/r.md"}])
    lines = [
        PROGRESS,
        line("progress", progress=45, message="Reading", current_file="a.go", files_processed=23, total_files=51),
        line("log", level="warn", message="Found 3", metadata={"issues": 3}),
        line("status", status="working"),
        line("error", message="a hiccup"),
        line("heartbeat"),
        result,
    ]
    agent = await world.ended(await say(world, echo(*lines)))
    first, second = world.payloads("acp.progress")
    assert (first["progress"], first["message"], first["agent_id"]) == (25, "Analyzing code...", agent.id)
    assert (second["current_file"], second["files_processed"], second["total_files"]) == ("a.go", 23, 51)
    logs = [(p["level"], p["message"], p["metadata"]["type"]) for p in world.payloads("acp.log")]
    assert logs == [("warning", "Found 3", "log"), ("info", "12 issues", "result")]
    assert [p["update"]["data"]["status"] for p in world.payloads("acp.status") if "update" in p] == ["working"]
    assert [(p["code"], p["message"]) for p in world.payloads("acp.error")] == [("AGENT_ERROR", "a hiccup")]
    [told] = world.payloads("acp.result")
    assert (told["status"], told["summary"], told["stop_reason"]) == ("completed", "12 issues", None)
    assert told["artifacts"] == [{"type": "report", "path": "/r.md"}]
    turn = await world.turn()
    assert {p["turn_id"] for p in world.payloads("acp.progress")} == {turn.id}
    assert (agent.status, turn.state) == ("COMPLETED", "ended")


async def test_the_prompt_is_on_stdin_and_in_the_environment(world: Any) -> None:
    ids = 'echo "$KANDEV_TURN_ID $KANDEV_SESSION_ID"'
    await world.ended(await say(world, 'echo "$KANDEV_PROMPT|$(cat)"', ids, prompt="Fix it"))
    turn = await world.turn()
    assert "".join(world.texts()) == f"Fix it|Fix it\n{turn.id} {turn.session_id}\n"


async def test_a_prompt_that_is_too_long_for_the_environment_is_on_stdin(world: Any) -> None:
    await world.ended(await say(world, 'echo "${KANDEV_PROMPT-none} $(wc -c)"', prompt="x" * 300_000))
    assert world.texts() == ["none 300000\n"]


async def test_a_program_need_not_read_its_prompt(world: Any) -> None:
    agent = await world.ended(await say(world, "echo done", prompt="x" * 3_000_000))
    assert agent.status == "COMPLETED"


@pytest.mark.parametrize(
    ("script", "status", "error"),
    [
        ("echo done", "COMPLETED", None),
        (echo(PROGRESS), "COMPLETED", None),
        ("true", "FAILED", "The agent ended without a word"),
        (echo(line("heartbeat")), "FAILED", "The agent ended without a word"),
        ("echo done; exit 3", "FAILED", "The agent exited with code 3"),
        ("echo why >&2; exit 3", "FAILED", "The agent exited with code 3\nwhy"),
        (echo(line("error", message="no model")), "FAILED", "The agent failed: no model"),
        (echo(line("error", message="a hiccup"), line("log", message="but on")), "COMPLETED", None),
        (echo(line("result", status="failed", summary="not possible")), "FAILED", "The agent failed: not possible"),
        (echo(line("result", summary="ok")) + "\nexit 3", "COMPLETED", None),
    ],
)
async def test_a_result_decides_else_the_exit_code_and_the_output(
    world: Any, script: str, status: str, error: str | None
) -> None:
    agent = await world.ended(await say(world, script))
    assert (agent.status, agent.error_message) == (status, error)


async def test_all_that_a_program_said_before_its_exit_is_told(world: Any) -> None:
    """Also what its pipe still holds, and the result behind it, in order."""
    flood = "yes 'a line of text that an agent says' | head -n 50000"
    await world.ended(await say(world, flood, echo(line("log", message="then"), line("result", summary="ok"))))
    said = "".join(world.texts())
    assert said == "a line of text that an agent says\n" * 50_000
    kinds = [p["metadata"]["type"] for p in world.payloads("acp.log")]
    assert kinds[-2:] == ["log", "result"]
    assert [p["summary"] for p in world.payloads("acp.result")] == ["ok"]


async def test_an_orchestrated_run_of_lines_ends_with_its_turn(world: Any) -> None:
    agent = await world.ended(await say(world, echo(line("result", summary="ok")), "exec sleep 600", orchestrated=True))
    assert agent.status == "COMPLETED"


async def test_a_second_prompt_is_a_conflict(world: Any) -> None:
    agent_id = await say(world, "echo up", "exec sleep 600")
    await world.until("acp.log")
    with pytest.raises(Conflict) as caught:
        await world.prompt(agent_id, "more")
    assert caught.value.details["state"] == "one_turn"


async def test_a_program_starts_with_its_prompt(world: Any) -> None:
    agent_id = await say(world, "echo $KANDEV_PROMPT", prompt=None)
    await world.until_idle()
    await world.prompt(agent_id, "later")
    await world.ended(agent_id)
    assert world.texts() == ["later\n"]


async def test_a_program_that_was_never_prompted_is_stopped(world: Any) -> None:
    agent_id = await say(world, "echo never", prompt=None)
    await world.until_idle()
    await world.supervisor.stop(agent_id)
    assert ((await world.ended(agent_id)).status, world.texts()) == ("STOPPED", [])


async def test_what_a_policy_denies_never_ran(world: Any) -> None:
    world.supervisor._crew.turn_policies = [lambda turn, task: Decision("deny", "no budget")]
    agent_id = await say(world, "echo ran")
    assert (await world.until("acp.error"))["message"] == "This turn may not start: no budget"
    await world.supervisor.stop(agent_id)
    assert world.texts() == []


async def test_a_cancel_is_told_by_sigterm(open_world: Any) -> None:
    world = await open_world(SOON)
    agent_id = await say(world, "trap 'echo bye; exit 0' TERM", "echo up", "while :; do sleep 0.05; done")
    await world.until("acp.log")
    assert await world.supervisor.cancel(agent_id)
    agent = await world.ended(agent_id)
    assert (agent.status, agent.error_message, world.texts()[-1]) == (
        "STOPPED",
        "Its only turn was cancelled",
        "bye\n",
    )
    assert (await world.turn()).state == "cancelled"


async def test_a_program_that_ignores_its_cancel_is_killed(impatient_world: Any) -> None:
    world = impatient_world
    agent_id = await say(world, "trap '' TERM", "echo up", "while :; do sleep 0.05; done")
    await world.until("acp.log")
    await world.supervisor.cancel(agent_id)
    assert "did not end its turn" in (await world.ended(agent_id)).error_message


@pytest.mark.parametrize("force", [False, True])
async def test_a_program_is_stopped(world: Any, force: bool) -> None:
    agent_id = await say(world, "echo up", "exec sleep 600")
    await world.until("acp.log")
    await world.supervisor.stop(agent_id, force=force)
    assert ((await world.ended(agent_id)).status, (await world.turn()).state) == ("STOPPED", "cancelled")


async def test_a_silent_program_is_stalled_and_a_heartbeat_is_no_silence(open_world: Any) -> None:
    stalls = OrchestratorSettings(stall_timeout_s=0.3, stall_action="restart")
    world = await open_world(SOON, stalls=stalls)
    beats = f"for i in 1 2 3 4 5 6 7 8 9; do sleep 0.1; {echo(line('heartbeat'))}; done"
    agent = await world.ended(await say(world, beats, "exec sleep 600"))
    assert (agent.status, agent.failure) == ("FAILED", "stalled")


class Missing:
    """A runtime in which no program is found."""

    name = "missing"
    confines = False

    def spawn(self, spec: Any) -> Any:
        raise Unavailable("There is no such program", fix="install it")

    async def locate(self, command: str, image: str | None = None) -> Availability:
        return Availability(False, "no")


async def test_a_program_that_is_not_there_says_so(world: Any) -> None:
    agent = await world.ended(await say(world, "x", runtime=Missing()))
    assert (agent.status, agent.failure, agent.error_message) == ("FAILED", "config", "There is no such program")


async def test_a_resumed_program_is_told_what_was_said(world: Any) -> None:
    row = Session(agent_id="old", task_id=world.task.id, acp_session_id="old", cwd="/workspace", protocol_version=0)
    await world.ended(await say(world, "cat", resume=Resume(session=row, transcript="You were at step 2.")))
    assert "".join(world.texts()) == "You were at step 2.\nDo it\n"
    assert (await world.session()).opened == "transcript"


def test_what_is_no_text_of_a_prompt_is_named() -> None:
    blocks = [
        {"type": "text", "text": "Look:"},
        {"type": "image", "data": "eA==", "mimeType": "image/png"},
        {"type": "resource_link", "uri": "file:///a", "name": "a"},
        {"type": "resource", "resource": {"uri": "file:///b", "text": "inside"}},
    ]
    assert prompt_text(blocks) == "Look:\n\n[image]\n\nfile:///a\n\ninside"


# --- seed-rpc ---------------------------------------------------------------------------------------------------------


def text(*words: str, stop: str | None = None) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": word} for word in words], "stopReason": stop}


async def seed(world: Any, *steps: Any) -> str:
    command = (sys.executable, str(Path(__file__).with_name("seed_agent.py")))
    return await world.start(command=command, dialect="seed-rpc", prompt=json.dumps(steps))


async def test_the_seeds_rpc_shape_ends_its_turn_with_an_update(world: Any) -> None:
    agent_id = await seed(world, "ack", text("Analyzing..."), text("Done", "!", stop="end_turn"))
    result = await world.until("acp.result")
    assert (result["status"], result["stop_reason"]) == ("completed", "end_turn")
    assert world.texts() == ["Analyzing...", "Done", "!"]
    turn = await world.turn()
    assert {p["turn_id"] for p in world.payloads("acp.log")} == {turn.id}
    assert world.supervisor.live(agent_id).session.acp_session_id == "seed-1"


@pytest.mark.parametrize(
    ("steps", "status"),
    [
        ([text("a"), "end"], "completed"),
        (["ack", {"update": {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": "a"}}},
          {"update": {"sessionUpdate": "state_update", "state": "idle", "stopReason": "refusal"}}], "refused"),
        (["ack", text("a"), text(stop="max_tokens")], "max_tokens"),
    ],
)  # fmt: skip
async def test_a_turn_of_seed_rpc_ends_at_the_first_stop_reason(world: Any, steps: Any, status: str) -> None:
    await seed(world, *steps)
    assert (await world.until("acp.result"))["status"] == status


@pytest.mark.parametrize(("step", "told"), [("error", "It broke"), ("exit", "exited with code 0")])
async def test_an_error_or_the_end_of_the_agent_ends_a_turn_of_seed_rpc(world: Any, step: str, told: str) -> None:
    before = () if step == "error" else ("ack",)
    await seed(world, *before, text("a"), step)
    assert told in (await world.until("acp.error"))["message"]


async def test_a_late_end_of_the_turn_before_ends_no_other(world: Any) -> None:
    agent_id = await seed(world, text("one"), "end")
    await world.until("acp.result")
    steps = [text(stop="end_turn"), text("two"), "end"]
    second = await world.prompt(agent_id, json.dumps(steps))
    await world.until("acp.result", lambda payload: payload["turn_id"] == second)
    told = [p["turn_id"] for p in world.payloads("acp.log") if p["message"] == "two"]
    assert told == [second]


async def test_an_answer_behind_the_end_of_its_turn_is_harmless(world: Any) -> None:
    agent_id = await seed(world, text("one", stop="end_turn"), "end", "ack")
    await world.until("acp.result")
    second = await world.prompt(agent_id, json.dumps([text("two", stop="end_turn")]))
    assert (await world.until("acp.result", lambda p: p["turn_id"] == second))["status"] == "completed"


# --- auto -------------------------------------------------------------------------------------------------------------


async def test_auto_an_agent_that_answers_speaks_acp(open_world: Any) -> None:
    world = await open_world(SOON)
    agent_id = await world.start(prompt=[{"text": "one"}], dialect="auto")
    await world.until("acp.result")
    await world.prompt(agent_id, [{"text": "two"}])
    await world.until("acp.log", lambda payload: payload["message"] == "two")
    assert (await world.session()).protocol_version == 1


async def test_auto_legacy_lines_before_the_answer_do_not_hide_acp(world: Any) -> None:
    await world.start({"start": [{"raw": PROGRESS + "\n"}]}, prompt=[{"text": "one"}], dialect="auto")
    assert (await world.until("acp.result"))["summary"] == "one"
    assert [p["message"] for p in world.payloads("acp.progress")] == ["Analyzing code..."]
    assert [p["code"] for p in world.payloads("acp.error")] == ["PROTOCOL_FAULT"]


async def test_auto_legacy_lines_and_no_answer_are_lines(open_world: Any) -> None:
    world = await open_world(SOON)
    script = [echo(PROGRESS), "sleep 1", 'echo "$KANDEV_PROMPT"', echo(line("result", summary="ok")), "exec sleep 600"]
    agent = await world.ended(await say(world, *script, dialect="auto"))
    [result] = world.payloads("acp.result")
    turn = await world.turn()
    assert (agent.status, result["summary"], world.texts()) == ("COMPLETED", "ok", ["Do it\n"])
    assert [p["turn_id"] for p in world.payloads("acp.progress")] == [turn.id]
    assert world.payloads("acp.error") == []


async def test_auto_a_program_that_has_done_all_at_once_has_done_it_in_its_turn(world: Any) -> None:
    lines = [PROGRESS, line("result", summary="ok")]
    agent = await world.ended(await say(world, echo(*lines), dialect="auto", orchestrated=True))
    assert (agent.status, [p["summary"] for p in world.payloads("acp.result")]) == ("COMPLETED", ["ok"])
    assert (await world.turn()).state == "ended"


async def test_auto_an_agent_that_says_nothing_speaks_nothing(open_world: Any) -> None:
    world = await open_world(SessionSettings(initialize_timeout_s=0.3, kill_grace_s=0.4))
    agent = await world.ended(await say(world, "exec sleep 600", dialect="auto"))
    assert "did not answer initialize" in agent.error_message


async def test_auto_a_refused_initialize_is_an_answer(world: Any) -> None:
    script = {"start": [{"raw": PROGRESS + "\n"}], "initialize": {"error": {"code": -32603, "message": "not today"}}}
    agent = await world.ended(await world.start(script, prompt="x", dialect="auto"))
    assert "not today" in agent.error_message


async def test_auto_a_second_prompt_of_lines_is_a_conflict(open_world: Any) -> None:
    world = await open_world(SOON)
    agent_id = await say(world, echo(PROGRESS), "exec sleep 600", dialect="auto")
    await world.until("acp.progress")
    with anyio.fail_after(60):
        while not world.supervisor.live(agent_id)._session.spent:
            await anyio.sleep(0.01)
    with pytest.raises(Conflict):
        await world.prompt(agent_id, "more")
