"""A host that tells a real OTLP/HTTP receiver what it does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest

from kandev_host.client import Client
from kandev_host.metrics import METRICS

from .otlp import Receiver, Span

pytestmark = pytest.mark.anyio
DEADLINE_S = 60.0
CANARY = "canary-otel-5f1c9e77"
INTERNAL, SERVER, CLIENT, CONSUMER = 1, 2, 3, 5
THEIR_TRACE, THEIR_SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def traced(make_host: Any, receiver: Receiver) -> Any:
    return make_host(
        f"""
        [use]
        telemetry = ["otel"]
        [telemetry.otel]
        endpoint = "{receiver.url}"
        headers = {{ x-key = "env:OTEL_TEST_KEY" }}
        interval_s = 0.2
        metrics_interval_s = 0.5
        [log]
        format = "json"
        [agents.demo]
        network = "host"
        """,
        KANDEV_ORCHESTRATOR__AUTO_START="true",
        OTEL_TEST_KEY=CANARY,
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test",
    )


async def sent(host: Any, action: str, payload: dict[str, Any], **envelope: str) -> dict[str, Any]:
    """The answer to a request with more in its envelope than our own client puts there."""
    headers = {"Authorization": f"Bearer {host.token}"}
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{host.url}/ws", headers=headers) as socket:
        await socket.send_json({"id": "one", "type": "request", "action": action, "payload": payload, **envelope})
        with anyio.fail_after(DEADLINE_S):
            while True:
                message: dict[str, Any] = await socket.receive_json()
                if message["id"] == "one":
                    return message


async def created(client: Client, repository: Path, **more: str) -> str:
    board = (await client.call("board.create", {"name": "Work"}))["board"]
    task = {"board_id": board["id"], "title": f"write A.md: {CANARY}", "description": ""}
    task = (await client.call("task.create", {**task, "repository_url": str(repository), **more}))["task"]
    return str(task["id"])


async def turn_over(client: Client) -> str:
    """The agent whose turn ended, with a permission that a person gave meanwhile."""
    with anyio.fail_after(DEADLINE_S):
        async for message in client.notifications():
            if message.action == "permission.requested":
                asked = message.payload["permission"]
                chosen = next(each["optionId"] for each in asked["options"] if each["kind"] == "allow_once")
                await client.call("permission.respond", {"permission_id": asked["id"], "option_id": chosen})
            if message.action == "acp.result":
                break
    return str(message.payload["agent_id"])


async def told_to_agent(client: Client, agent_id: str) -> dict[str, Any]:
    """The params of what the host asked this agent, by method."""
    lines = (await client.call("agent.capture", {"agent_id": agent_id}))["lines"]
    messages = [json.loads(line)["line"] for line in lines]
    return {message["method"]: message.get("params") for message in messages if "id" in message and "method" in message}


def inside(receiver: Receiver, top: Span) -> list[tuple[str, str]]:
    """The spans of a trace, each with the name of the one above it."""
    mine = {span.span_id: span for span in receiver.spans if span.trace_id == top.trace_id}
    return [(mine[span.parent_id].name, span.name) for span in mine.values() if span.parent_id in mine]


async def test_a_turn_is_one_trace_from_the_socket_to_the_tool_and_its_agent_is_told_of_it(
    traced: Any, receiver: Receiver, repository: Path
) -> None:
    async with Client.connect(traced.url, traced.token) as client:
        task_id = await created(client, repository)
        launch = {"task_id": task_id, "agent_type": "demo", "prompt": f"write A.md: {CANARY}"}
        theirs = {"traceparent": f"00-{THEIR_TRACE}-{THEIR_SPAN}-01", "tracestate": "vendor=x"}
        answer = await sent(traced, "agent.launch", launch, **theirs)
        agent_id = await turn_over(client)
        asked = await told_to_agent(client, agent_id)
    turn = (await anyio.to_thread.run_sync(receiver.until, lambda: receiver.named("invoke_agent demo")))[0]
    action = receiver.named("kandev.action agent.launch")[0]
    launched = await anyio.to_thread.run_sync(receiver.until, lambda: receiver.named("launch demo"))
    tree = inside(receiver, action)
    opening = receiver.named("open session")[0]
    tool, permission = receiver.named("execute_tool edit")[0], receiver.named("permission")[0]

    assert answer["payload"]["agent"]["id"] == agent_id
    assert (action.trace_id, action.parent_id) == (THEIR_TRACE, THEIR_SPAN)
    assert {
        ("kandev.action agent.launch", "commit"),
        ("kandev.action agent.launch", "launch demo"),
        ("launch demo", "prepare workspace"),
        ("prepare workspace", "run"),
        ("launch demo", "spawn"),
        ("launch demo", "open session"),
        ("kandev.action agent.launch", "invoke_agent demo"),
        ("invoke_agent demo", "execute_tool edit"),
        ("execute_tool edit", "permission"),
        ("permission", "commit"),
        ("invoke_agent demo", "commit"),
    } <= set(tree)
    assert [span.kind for span in (action, launched[0], turn, tool)] == [SERVER, INTERNAL, CLIENT, INTERNAL]
    assert {span.error for span in receiver.spans if span.trace_id == THEIR_TRACE} == {None}

    state = {"tracestate": "vendor=x"}
    assert asked["session/new"]["_meta"] == {"traceparent": f"00-{THEIR_TRACE}-{opening.span_id}-01", **state}
    assert asked["session/prompt"]["_meta"] == {"traceparent": f"00-{THEIR_TRACE}-{turn.span_id}-01", **state}

    assert turn.attributes["gen_ai.operation.name"] == "invoke_agent"
    assert turn.attributes["gen_ai.agent.name"] == turn.attributes["gen_ai.provider.name"] == "demo"
    assert turn.attributes["gen_ai.agent.id"] == agent_id
    assert turn.attributes["gen_ai.request.model"] == "scripted"
    assert turn.attributes["gen_ai.response.finish_reasons"] == ["end_turn"]
    assert turn.attributes["gen_ai.usage.input_tokens"] > 0
    assert turn.attributes["gen_ai.usage.output_tokens"] > 0
    assert turn.attributes["kandev.task.id"] == task_id
    assert len(turn.attributes["gen_ai.conversation.id"]) == 36
    assert (tool.attributes["gen_ai.tool.name"], tool.attributes["gen_ai.operation.name"]) == ("edit", "execute_tool")
    assert permission.attributes["kandev.permission.outcome"] == "allow_once"
    assert action.attributes["rpc.method"] == "agent.launch"
    assert turn.resource["service.name"] == "kandev-host"
    assert turn.resource["deployment.environment.name"] == "test"

    # A warning of the launch: what it logs belongs to its span, here and in the host's own log.
    line = await anyio.to_thread.run_sync(
        receiver.until,
        lambda: next((line for line in receiver.lines if line.level == "WARN" and line.trace_id == THEIR_TRACE), None),
    )
    assert (line.logger, line.level, line.span_id) == ("kandev_host.services.launcher", "WARN", launched[0].span_id)
    assert line.attributes == {"kandev.task.id": task_id, "kandev.agent.id": agent_id}
    logged = [json.loads(line) for line in traced.log().splitlines()]
    ids = [
        (each["trace_id"], each["span_id"])
        for each in logged
        if each["level"] == "warning" and each.get("agent_id") == agent_id
    ]
    assert (THEIR_TRACE, launched[0].span_id) in ids


async def test_a_queued_run_has_a_trace_of_its_own_that_goes_back_to_who_queued_it(
    traced: Any, receiver: Receiver, repository: Path
) -> None:
    async with Client.connect(traced.url, traced.token) as client:
        task_id = await created(client, repository, agent_type="demo")
        await turn_over(client)

    def over() -> list[Span]:
        turns = receiver.named("invoke_agent demo")
        return [turn for turn in turns if turn.attributes["kandev.task.id"] == task_id]

    (turn,) = await anyio.to_thread.run_sync(receiver.until, over)
    (top,) = [span for span in receiver.spans if span.trace_id == turn.trace_id and not span.parent_id]
    creations = [(span.trace_id, span.span_id) for span in receiver.named("kandev.action task.create")]
    assert (top.name, top.kind, turn.parent_id) == ("start queued", CONSUMER, top.span_id)
    assert ("start queued", "launch demo") in inside(receiver, top)
    assert top.links == (creations[-1],)


async def test_an_action_that_is_refused_says_so_by_its_code(traced: Any, receiver: Receiver) -> None:
    id = "0199aaaa-0000-7000-8000-000000000000"
    ours = {"traceparent": f"00-{'a' * 32}-{THEIR_SPAN}-01"}
    await sent(traced, "task.get", {"task_id": id}, **ours)
    await sent(traced, "task.delete", {"task_id": id}, **ours)
    await sent(traced, f"task.{CANARY}", {}, **ours)
    await sent(traced, "health.check", {}, traceparent="00-nonsense")

    def over() -> list[Span]:
        mine = [span for span in receiver.spans if span.trace_id == "a" * 32 and span.kind == SERVER]
        return mine if len(mine) == 3 and receiver.named("kandev.action health.check") else []

    spans = await anyio.to_thread.run_sync(receiver.until, over)
    assert {span.name: span.error for span in spans} == {
        "kandev.action task.get": "NOT_FOUND",
        "kandev.action task.delete": "NOT_FOUND",
        "kandev.action unknown": "UNKNOWN_ACTION",
    }
    assert {span.attributes["error.type"] for span in spans} == {"NOT_FOUND", "UNKNOWN_ACTION"}
    healthy = receiver.named("kandev.action health.check")[0]
    assert (healthy.parent_id, healthy.error) == ("", None)


async def test_metrics_are_those_of_the_list_and_nothing_that_is_sent_holds_what_was_said(
    traced: Any, receiver: Receiver, repository: Path
) -> None:
    async with Client.connect(traced.url, traced.token) as client:
        task_id = await created(client, repository)
        await client.call("agent.launch", {"task_id": task_id, "agent_type": "demo", "prompt": f"say {CANARY}"})
        await turn_over(client)

    def counted() -> bool:
        turns = receiver.metrics.get("kandev_turn_duration_seconds")
        return turns is not None and "kandev_agents" in receiver.metrics

    await anyio.to_thread.run_sync(receiver.until, counted)
    assert set(receiver.metrics) <= set(METRICS)
    turns = receiver.metrics["kandev_turn_duration_seconds"]
    assert turns.unit == "s"
    assert tuple(turns.histogram.data_points[0].explicit_bounds) == METRICS[turns.name].buckets
    assert receiver.metrics["kandev_tasks_created_total"].sum.is_monotonic
    assert {headers["x-key"] for headers in receiver.headers} == {CANARY}
    assert not [body for body in receiver.bodies if CANARY.encode() in body]
    assert CANARY not in traced.log()


async def test_without_it_no_agent_is_told_and_no_library_is_loaded(host: Any, repository: Path) -> None:
    async with Client.connect(host.url, host.token) as client:
        task_id = await created(client, repository)
        await client.call("agent.launch", {"task_id": task_id, "agent_type": "demo", "prompt": "say hello"})
        asked = await told_to_agent(client, await turn_over(client))
    assert [params for params in asked.values() if "_meta" in params] == []
    assert host.process is not None
    mapped = await anyio.Path(f"/proc/{host.process.pid}/maps").read_text()
    assert "google/_upb" not in mapped
