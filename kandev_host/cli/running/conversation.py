"""One run: make the task, start its agent, follow it, answer or pass on its questions, gather what it left."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import msgspec
from anyio.abc import TaskGroup

from kandev_host.cli.running.ask import Asker, rejecting
from kandev_host.cli.running.outcome import Outcome, result_of
from kandev_host.cli.running.questions import Questions
from kandev_host.cli.running.view import View
from kandev_host.client import Client, ClientError, ConnectionLost

LIVE = ("PENDING", "STARTING", "RUNNING")
STOP_TIMEOUT_S = 15.0
BOARD = "default"


class Order(msgspec.Struct, frozen=True):
    """What was asked for on the command line."""

    prompt: str
    agent: str
    title: str
    repository_url: str | None = None
    branch: str | None = None
    allow: tuple[str, ...] = ()
    credentials: tuple[str, ...] = ()
    preset: str | None = None
    timeout_s: float | None = None


class Conversation:
    """Talks to one host about one task. `run` returns how it ended; it never raises for what the agent did.

    When nobody reads what it shows, the agent is stopped: nobody would see what it does, or answer it.
    """

    def __init__(self, client: Client, order: Order, view: View, asker: Asker, url: str) -> None:
        self._client = client
        self._order = order
        self._view = view
        self._asker = asker
        self._url = url
        self._outcome = Outcome()
        self._questions = Questions(client, view, asker)
        self._interrupts = 0

    async def run(self) -> Outcome:
        """Follow the task to its end, or to the time limit, or until Ctrl-C, or until nobody reads any more."""
        attempts = (await self._client.call("orchestrator.status"))["attempts"]
        task = await self._create()
        self._outcome.task_id = task["id"]
        try:
            await self._watch(task, attempts)
        except* BrokenPipeError:
            self._outcome.unread = True
        if self._outcome.unread:
            await self._stop("nobody reads its output any more")
            await self._ended()
            if self._outcome.result != "completed":
                self._outcome.result, self._outcome.reason = "cancelled", "nobody reads its output any more"
            return self._outcome
        if self._outcome.agent_id is None:
            # Interrupted while the host was starting it: the answer never came, the agent may.
            await self._stop("cancelled at the terminal")
        await self._gather()
        self._outcome.judge(self._order.preset, networked=bool(self._order.allow))
        return self._outcome

    async def _watch(self, task: Mapping[str, Any], attempts: int) -> None:
        async with anyio.create_task_group() as tasks:
            await tasks.start(self._listen_for_signals, tasks)
            reply = await self._start(task)
            self._outcome.agent_id = reply["agent"]["id"]
            self._view.started(reply["task"], reply["agent"], self._url, attempts)
            with anyio.move_on_after(self._order.timeout_s) as limit:
                await self._follow(tasks)
            if limit.cancelled_caught:
                self._view.note(f"Not done after {self._order.timeout_s:g} s; stopping the agent.")
                await self._stop(f"not done after {self._order.timeout_s:g} s")
                self._outcome.result, self._outcome.reason = "failed", f"not done after {self._order.timeout_s:g} s"
            tasks.cancel_scope.cancel()

    async def _start(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """The host's answer. A task whose agent cannot be started is not left behind. Raises `ClientError`."""
        payload = {"task_id": task["id"], "agent_type": self._order.agent}
        preset = {"preset": self._order.preset} if self._order.preset else {}
        try:
            return dict(await self._client.call("orchestrator.start", payload | preset))
        except ConnectionLost:
            raise
        except ClientError:
            with contextlib.suppress(ClientError):  # why it did not start is what is to be told
                await self._client.call("task.delete", {"task_id": task["id"]})
            raise

    async def _create(self) -> dict[str, Any]:
        boards = (await self._client.call("board.list"))["boards"]
        board = next((item for item in boards if item["name"] == BOARD), None)
        if board is None:
            board = (await self._client.call("board.create", {"name": BOARD}))["board"]
        payload = {"board_id": board["id"], "title": self._order.title, "description": self._order.prompt}
        order = self._order
        optional = {
            "repository_url": order.repository_url, "branch": order.branch, "allow": list(order.allow) or None,
            "credentials": list(order.credentials) or None,
        }  # fmt: skip
        payload |= {key: value for key, value in optional.items() if value is not None}
        # It names no agent type: the queue would start it as well, and perhaps sooner.
        return dict((await self._client.call("task.create", payload))["task"])

    async def _follow(self, tasks: TaskGroup) -> None:
        async for notification in self._client.notifications():
            payload = notification.payload
            if self._task_of(payload) != self._outcome.task_id:
                continue
            self._questions.show({"type": "notification", **msgspec.structs.asdict(notification)})
            match notification.action:
                case "permission.requested":
                    tasks.start_soon(self._answer, payload.get("permission") or {})
                case "permission.resolved":
                    self._settled(payload.get("permission") or {})
                case "elicitation.requested":
                    tasks.start_soon(self._fill, payload.get("elicitation") or {})
                case "elicitation.resolved":
                    self._questions.settled(payload.get("elicitation") or {})
                case "acp.result":
                    self._outcome.stop_reason = payload.get("stop_reason")
                    if self._interrupts:
                        await self._stop("cancelled at the terminal")
                case "task.state_changed" | "agent.updated" | "task.updated":
                    if await self._ended():
                        return
        self._outcome.reason = "the host went away"

    @staticmethod
    def _task_of(payload: Mapping[str, Any]) -> Any:
        for kind in ("agent", "permission"):
            if isinstance(payload.get(kind), dict):
                return payload[kind].get("task_id")
        if isinstance(payload.get("task"), dict):
            return payload["task"].get("id")
        return payload.get("task_id")

    async def _ended(self) -> bool:
        """The task has come to an end or needs a person, and its agent lives no more."""
        task = (await self._client.call("task.get", {"task_id": self._outcome.task_id}))["task"]
        self._outcome.agent_id = task["assigned_agent_id"] or self._outcome.agent_id  # after a failure, the next one
        agent = (await self._client.call("agent.status", {"agent_id": self._outcome.agent_id}))["agent"]
        self._outcome.attempts = agent["attempt"]
        result = result_of(task["state"])
        if result == "blocked" and agent["activity"] == "idle":
            # It waits for a person, and this one has gone: what it said and did is kept.
            await self._end_agent()
        elif result is None or agent["status"] in LIVE:
            return False
        self._outcome.result = "cancelled" if self._interrupts and result != "completed" else result
        self._outcome.reason = task.get("state_reason") or agent.get("error_message")
        return True

    async def _answer(self, permission: Mapping[str, Any]) -> None:
        if permission.get("state") == "pending":
            await self._questions.respond("permission", permission["id"], lambda: self._decide(permission))

    async def _fill(self, elicitation: Mapping[str, Any]) -> None:
        await self._questions.respond("elicitation", elicitation["id"], lambda: self._filled(elicitation))

    async def _filled(self, elicitation: Mapping[str, Any]) -> dict[str, Any]:
        if self._asker.interactive:
            return await self._questions.at_the_terminal(lambda: self._asker.fill(elicitation))
        self._view.note(f"Declined: {elicitation.get('message')}. Nobody can be asked here.")
        return {"outcome": "decline"}

    async def _decide(self, permission: Mapping[str, Any]) -> dict[str, Any]:
        if not self._asker.interactive:
            title = (permission.get("tool_call") or {}).get("title")
            self._outcome.unasked += 1
            self._outcome.asked_because = permission.get("reason") or self._outcome.asked_because
            remedy = self._outcome.remedy(self._order.preset, networked=bool(self._order.allow))
            self._view.note(f"Rejected: {title}. Nobody can be asked here; {remedy}.")
            return rejecting(permission.get("options") or [])
        return await self._questions.at_the_terminal(lambda: self._asker.ask(permission))

    def _settled(self, permission: Mapping[str, Any]) -> None:
        self._outcome.settled(permission)
        self._questions.settled(permission)

    async def _listen_for_signals(
        self, tasks: TaskGroup, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for number in signals:
                self._interrupts += 1
                if self._outcome.agent_id is None:
                    tasks.cancel_scope.cancel()
                elif self._interrupts == 1 and number == signal.SIGINT:
                    self._view.note("Cancelling the turn; Ctrl-C again stops the agent.")
                    tasks.start_soon(self._quietly, self._cancel)
                else:
                    self._view.note("Stopping the agent.")
                    tasks.start_soon(self._quietly, lambda: self._stop("stopped at the terminal"))
                    if self._interrupts > 1:
                        tasks.start_soon(self._quietly, lambda: self._end_agent(force=True))

    async def _quietly(self, step: Callable[[], Any]) -> None:
        try:
            await step()
        except ClientError as error:
            self._view.note(f"{error.message}")

    async def _cancel(self) -> None:
        self._questions.drop_all()
        try:
            await self._client.call("agent.cancel", {"agent_id": self._outcome.agent_id})
        except ClientError as error:
            if error.code != "CONFLICT":
                raise
            # It has not begun, or has just ended: there is no turn to cancel, and nothing to wait for.
            await self._stop("cancelled at the terminal")

    async def _stop(self, reason: str) -> None:
        with anyio.move_on_after(STOP_TIMEOUT_S, shield=True):
            try:
                await self._client.call("orchestrator.stop", {"task_id": self._outcome.task_id, "reason": reason})
            except ClientError as error:
                if error.code != "CONFLICT":
                    raise

    async def _end_agent(self, *, force: bool = False) -> None:
        with anyio.move_on_after(STOP_TIMEOUT_S, shield=True):
            try:
                await self._client.call("agent.stop", {"agent_id": self._outcome.agent_id, "force": force})
            except ClientError as error:
                if error.code != "CONFLICT":
                    raise

    async def _gather(self) -> None:
        """The diff and what the run used; unknown stays unknown."""
        outcome = self._outcome
        if outcome.agent_id is None:
            outcome.result = "cancelled"
            return
        try:
            status = await self._client.call("agent.status", {"agent_id": outcome.agent_id})
            outcome.usage = status.get("usage") or {}
            outcome.reason = outcome.reason or status.get("error_message")
            diff = await self._client.call("workspace.diff", {"task_id": outcome.task_id})
        except ClientError:
            return
        outcome.diff, outcome.truncated = diff["diff"], diff["truncated"]
        outcome.files, outcome.additions, outcome.deletions = len(diff["files"]), diff["additions"], diff["deletions"]
