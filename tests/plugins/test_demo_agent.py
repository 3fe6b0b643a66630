"""The demo agent against an independent client: plain JSON lines, judged by the official SDK's models."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from acp import schema

DEMO = Path(__file__).parents[2] / "plugins/kandev_agents/demo"
DEADLINE_S = 60
RESULTS = {
    "initialize": schema.InitializeResponse,
    "session/new": schema.NewSessionResponse,
    "session/load": schema.LoadSessionResponse,
    "session/resume": schema.ResumeSessionResponse,
    "session/list": schema.ListSessionsResponse,
    "session/set_mode": schema.SetSessionModeResponse,
    "session/set_config_option": schema.SetSessionConfigOptionResponse,
    "session/prompt": schema.PromptResponse,
    "session/close": schema.CloseSessionResponse,
    "session/delete": schema.DeleteSessionResponse,
}
pytestmark = pytest.mark.anyio


class Failed(Exception):
    """The agent answered with an error."""


def validate(model: Any, value: Any) -> None:
    """The SDK's models forgive a wrong field by dropping it: what comes out must be what went in."""
    assert model.model_validate(value).model_dump(mode="json", by_alias=True, exclude_unset=True) == value


class Client:
    """Numbers its requests, answers permissions by kind (None: leaves them open), keeps everything."""

    def __init__(self, process: asyncio.subprocess.Process, workspace: Path) -> None:
        self.process = process
        self.workspace = workspace
        self.answer: str | None = "allow_once"
        self.updates: list[dict[str, Any]] = []
        self.permissions: list[dict[str, Any]] = []
        self.sent = 100
        self.session = ""

    async def send(self, **message: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        await self.process.stdin.drain()

    async def receive(self) -> dict[str, Any]:
        """The next message, checked; permissions are answered on the way."""
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        assert line, "the agent ended"
        message: dict[str, Any] = json.loads(line)
        assert message["jsonrpc"] == "2.0"
        if message.get("method") == "session/update":
            validate(schema.SessionNotification, message["params"])
            self.updates.append(message["params"]["update"])
        elif message.get("method") == "session/request_permission":
            validate(schema.RequestPermissionRequest, message["params"])
            self.permissions.append(message["params"])
            if self.answer is not None:
                await self.send(id=message["id"], result={"outcome": self.outcome(message["params"])})
        return message

    def outcome(self, request: dict[str, Any]) -> dict[str, Any]:
        if self.answer == "cancelled":
            return {"outcome": "cancelled"}
        chosen = next(option for option in request["options"] if option["kind"] == self.answer)
        return {"outcome": "selected", "optionId": chosen["optionId"]}

    async def until(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                message = await self.receive()
                if condition(message):
                    return message

    async def reply(self, number: int) -> Any:
        message = await self.until(lambda message: "method" not in message and message["id"] == number)
        if "error" in message:
            validate(schema.Error, message["error"])
            raise Failed(message["error"]["message"])
        return message["result"]

    async def begin(self, method: str, params: dict[str, Any]) -> int:
        self.sent += 1
        await self.send(id=self.sent, method=method, params=params)
        return self.sent

    async def call(self, method: str, **params: Any) -> Any:
        result = await self.reply(await self.begin(method, params))
        validate(RESULTS[method], result)
        return result

    async def open(self) -> Any:
        await self.call("initialize", protocolVersion=1, clientCapabilities={})
        opened = await self.call("session/new", cwd=str(self.workspace), mcpServers=[])
        self.session = opened["sessionId"]
        return opened

    async def prompt(self, text: str) -> Any:
        result = await self.reply(await self.start(text))
        validate(RESULTS["session/prompt"], result)
        return result

    async def start(self, text: str) -> int:
        blocks = [{"type": "text", "text": text}]
        return await self.begin("session/prompt", {"sessionId": self.session, "prompt": blocks})

    async def cancel(self) -> None:
        await self.send(method="session/cancel", params={"sessionId": self.session})

    def of(self, *variants: str) -> list[dict[str, Any]]:
        return [update for update in self.updates if update["sessionUpdate"] in variants]

    def text(self) -> str:
        return "".join(update["content"]["text"] for update in self.of("agent_message_chunk"))

    def last_statuses(self) -> list[str]:
        """The state in which each tool call was left."""
        calls: dict[str, str] = {}
        for update in self.of("tool_call", "tool_call_update"):
            calls[update["toolCallId"]] = update.get("status", calls.get(update["toolCallId"], "pending"))
        return list(calls.values())


@asynccontextmanager
async def running(tmp_path: Path, *command: str) -> AsyncIterator[Client]:
    workspace = tmp_path / "workspace"
    workspace.mkdir(exist_ok=True)
    if not (workspace / "README.md").exists():
        (workspace / "README.md").write_text("# Greeter\n\nIt greets.\n")
        (workspace / "login.py").write_text("def login() -> None: ...\n")
    process = await asyncio.create_subprocess_exec(
        *(command or (sys.executable, "-I", "-S", str(DEMO))),
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=None, limit=1 << 24,
    )  # fmt: skip
    client = Client(process, workspace)
    try:
        yield client
    finally:
        assert process.stdin is not None
        process.stdin.close()
        async with asyncio.timeout(DEADLINE_S):
            assert await process.wait() == 0


async def test_a_task_is_looked_at_planned_asked_for_and_written_down(tmp_path: Path) -> None:
    async with running(tmp_path) as client:
        await client.open()
        result = await client.prompt("Fix the login bug")
    assert result["stopReason"] == "end_turn"
    assert "`login.py`, line 1" in (client.workspace / "NOTES-fix-the-login-bug.md").read_text()
    assert "[Fix the login bug](NOTES-fix-the-login-bug.md)" in (client.workspace / "README.md").read_text()
    assert [entry["status"] for entry in client.of("plan")[-1]["entries"]] == ["completed"] * 4
    assert {call["kind"] for call in client.of("tool_call")} == {"search", "read", "edit"}
    assert client.last_statuses() == ["completed"] * len(client.last_statuses())
    assert client.of("agent_thought_chunk", "session_info_update")
    assert len(client.permissions) == 1


async def test_the_first_option_of_a_permission_does_not_allow(tmp_path: Path) -> None:
    async with running(tmp_path) as client:
        await client.open()
        await client.prompt("write a.txt: one")
    assert client.permissions[0]["options"][0]["kind"] == "reject_once"


async def test_an_edit_shows_its_diff_before_it_is_allowed(tmp_path: Path) -> None:
    async with running(tmp_path) as client:
        await client.open()
        await client.prompt("write README.md: new")
    readme = str(client.workspace / "README.md")
    (diff,) = client.permissions[0]["toolCall"]["content"]
    assert diff == {"type": "diff", "path": readme, "oldText": "# Greeter\n\nIt greets.\n", "newText": "new\n"}


async def test_a_rejected_edit_changes_nothing_and_the_turn_goes_on(tmp_path: Path) -> None:
    async with running(tmp_path) as client:
        await client.open()
        client.answer = "reject_once"
        result = await client.prompt("write a.txt: one\nsay: and now")
    assert not (client.workspace / "a.txt").exists()
    assert client.last_statuses() == ["failed"]
    assert (result["stopReason"], client.text()) == ("end_turn", "and now")


async def test_directives_are_planned_and_their_end_is_told(tmp_path: Path) -> None:
    async with running(tmp_path) as client:
        await client.open()
        await client.prompt("write a.txt: one\nread: no-such-file")
    plans = [[entry["status"] for entry in update["entries"]] for update in client.of("plan")]
    assert plans == [["in_progress", "pending"], ["completed", "in_progress"], ["completed", "completed"]]
    assert client.text() == "Not done: Read no-such-file."


@pytest.mark.parametrize(
    ("answer", "stop_reason", "said"),
    [
        ({"action": "accept", "content": {"answer": "Ada Lovelace"}}, "end_turn", "You answered with 2 words."),
        ({"action": "decline"}, "end_turn", "You did not answer."),
        ({"action": "cancel"}, "cancelled", ""),
    ],
)
async def test_a_question_is_asked_in_a_form(
    tmp_path: Path, answer: dict[str, Any], stop_reason: str, said: str
) -> None:
    async with running(tmp_path) as client:
        await client.open()
        number = await client.start("ask: Who are you?")
        asked = await client.until(lambda message: message.get("method") == "elicitation/create")
        validate(schema.CreateFormSessionElicitationRequest, asked["params"])
        await client.send(id=asked["id"], result=answer)
        result = await client.reply(number)
    assert (asked["params"]["message"], result["stopReason"], client.text()) == ("Who are you?", stop_reason, said)


async def test_allow_always_is_asked_once(tmp_path: Path) -> None:
    async with running(tmp_path) as client:
        await client.open()
        client.answer = "allow_always"
        await client.prompt("write a.txt: one\nwrite b.txt: two")
        await client.prompt("append a.txt: three")
    assert len(client.permissions) == 1
    assert (client.workspace / "a.txt").read_text() == "one\nthree\n"


async def test_a_withdrawn_permission_ends_the_turn_as_cancelled(tmp_path: Path) -> None:
    async with running(tmp_path) as client:
        await client.open()
        client.answer = "cancelled"
        result = await client.prompt("write a.txt: one\nsay: more")
    assert (result["stopReason"], client.text()) == ("cancelled", "")


@pytest.mark.parametrize(
    ("prompt", "reached"),
    [("sleep 600", "plan"), ("run: sleep 600", "tool_call_update"), ("flood 1000000", "agent_message_chunk")],
)
async def test_a_cancel_ends_the_turn_at_once(tmp_path: Path, prompt: str, reached: str) -> None:
    async with running(tmp_path) as client:
        await client.open()
        number = await client.start(prompt)
        await client.until(lambda message: client.updates[-1]["sessionUpdate"] == reached)
        await client.cancel()
        await client.cancel()
        result = await client.reply(number)
        assert result["stopReason"] == "cancelled"
        assert "pending" not in client.last_statuses()
        assert "in_progress" not in client.last_statuses()
        assert (await client.prompt("say: still here"))["stopReason"] == "end_turn"


async def test_a_cancel_right_behind_its_prompt_is_not_lost(tmp_path: Path) -> None:
    async with running(tmp_path) as client:
        await client.open()
        number = await client.start("sleep 600")
        await client.cancel()
        assert (await client.reply(number))["stopReason"] == "cancelled"


async def test_a_cancel_while_a_permission_is_open_ends_the_turn(tmp_path: Path) -> None:
    async with running(tmp_path) as client:
        await client.open()
        client.answer = None
        number = await client.start("write a.txt: one")
        asked = await client.until(lambda message: message.get("method") == "session/request_permission")
        await client.cancel()
        await client.send(id=asked["id"], result={"outcome": {"outcome": "cancelled"}})
        assert (await client.reply(number))["stopReason"] == "cancelled"
        assert client.last_statuses() == ["failed"]


async def test_a_cancel_request_ends_the_prompt_it_names(tmp_path: Path) -> None:
    async with running(tmp_path) as client:
        await client.open()
        number = await client.start("sleep 600")
        await client.send(method="$/cancel_request", params={"requestId": number})
        assert (await client.reply(number))["stopReason"] == "cancelled"


async def test_a_second_prompt_while_one_runs_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as client:
        await client.open()
        first = await client.start("sleep 600")
        with pytest.raises(Failed, match="already"):
            await client.prompt("say: me too")
        await client.cancel()
        await client.reply(first)


async def test_a_command_streams_its_output_and_its_failure_is_shown(tmp_path: Path) -> None:
    async with running(tmp_path) as client:
        await client.open()
        await client.prompt("run: echo out; exit 3")
    last = client.of("tool_call_update")[-1]
    assert last["status"] == "failed"
    assert last["content"][0]["content"]["text"] == "out\n\nexit code 3"


async def test_a_path_outside_of_the_workspace_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace/link").symlink_to(tmp_path)
    async with running(tmp_path) as client:
        await client.open()
        await client.prompt("write ../evil.txt: one\nwrite link/evil.txt: two")
    assert client.last_statuses() == ["failed", "failed"]
    assert not (tmp_path / "evil.txt").exists()


@pytest.mark.parametrize(("mode", "written"), [("read-only", False), ("accept-edits", True)])
async def test_a_mode_decides_what_is_asked(tmp_path: Path, mode: str, written: bool) -> None:
    async with running(tmp_path) as client:
        await client.open()
        await client.call("session/set_mode", sessionId=client.session, modeId=mode)
        await client.prompt("write a.txt: one")
    assert (client.workspace / "a.txt").exists() is written
    assert client.permissions == []


async def test_a_config_option_answers_the_whole_list_and_hides_thoughts(tmp_path: Path) -> None:
    async with running(tmp_path) as client:
        opened = await client.open()
        assert [option["category"] for option in opened["configOptions"]] == ["mode", "model", "thought_level"]
        choice = {"sessionId": client.session, "configId": "thoughts", "value": "off"}
        answer = await client.call("session/set_config_option", **choice)
        await client.prompt("think: hm")
    assert [option["currentValue"] for option in answer["configOptions"]] == ["ask", "scripted", "off"]
    assert client.of("config_option_update")[0]["configOptions"] == answer["configOptions"]
    assert not client.of("agent_thought_chunk")


async def test_usage_is_of_the_turn_and_the_cost_of_the_session(tmp_path: Path) -> None:
    async with running(tmp_path) as client:
        await client.open()
        await client.prompt("cost 0.25")
        result = await client.prompt("cost 0.5\nsay: three small words")
    assert result["usage"] == {"inputTokens": 6, "outputTokens": 3, "thoughtTokens": 0, "totalTokens": 9}
    assert client.of("usage_update")[-1]["cost"] == {"amount": 0.75, "currency": "USD"}


async def test_a_refusal_is_its_stop_reason(tmp_path: Path) -> None:
    async with running(tmp_path) as client:
        await client.open()
        assert (await client.prompt("refuse"))["stopReason"] == "refusal"


async def test_a_failed_prompt_is_an_error_with_its_words(tmp_path: Path) -> None:
    async with running(tmp_path) as client:
        await client.open()
        with pytest.raises(Failed, match="the model is away"):
            await client.prompt("fail: the model is away")


async def test_a_session_is_replayed_by_a_new_process(tmp_path: Path) -> None:
    async with running(tmp_path) as client:
        await client.open()
        await client.prompt("write a.txt: one\nsay: done")
        kept = client.of("tool_call", "tool_call_update", "agent_message_chunk")
        session = client.session
    async with running(tmp_path) as client:
        await client.call("initialize", protocolVersion=1)
        await client.call("session/load", sessionId=session, cwd=str(client.workspace), mcpServers=[])
        assert client.of("tool_call", "tool_call_update", "agent_message_chunk") == kept
        assert client.of("user_message_chunk")[0]["content"]["text"] == "write a.txt: one\nsay: done"
        listed = await client.call("session/list")
        assert [(one["sessionId"], one["title"]) for one in listed["sessions"]] == [(session, "write a.txt: one")]
        client.session = session
        assert (await client.prompt("say: again"))["stopReason"] == "end_turn"


async def test_resume_replays_nothing_and_delete_removes_it(tmp_path: Path) -> None:
    async with running(tmp_path) as client:
        await client.open()
        await client.prompt("say: done")
        client.updates.clear()
        await client.call("session/close", sessionId=client.session)
        await client.call("session/resume", sessionId=client.session, cwd=str(client.workspace), mcpServers=[])
        assert not client.updates
        await client.call("session/delete", sessionId=client.session)
        assert (await client.call("session/list"))["sessions"] == []


@pytest.mark.parametrize(
    ("line", "code"),
    [(b"no json", -32700), (b"[]", -32600), (b'{"jsonrpc":"2.0","id":1,"method":"terminal/x"}', -32601)],
)
async def test_a_bad_line_is_answered_and_survived(tmp_path: Path, line: bytes, code: int) -> None:
    async with running(tmp_path) as client:
        assert client.process.stdin is not None
        client.process.stdin.write(line + b"\n")
        assert (await client.until(lambda message: "error" in message))["error"]["code"] == code
        await client.open()


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("session/new", {"cwd": "relative", "mcpServers": []}),
        ("session/prompt", {"sessionId": "unknown", "prompt": []}),
        ("session/load", {"sessionId": "../../etc/passwd", "cwd": "/", "mcpServers": []}),
        ("session/set_mode", {"sessionId": "unknown", "modeId": "ask"}),
    ],
)
async def test_bad_parameters_are_an_error_answer(tmp_path: Path, method: str, params: dict[str, Any]) -> None:
    async with running(tmp_path) as client:
        with pytest.raises(Failed):
            await client.call(method, **params)
