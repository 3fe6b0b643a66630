"""At an agent's side: what it said, what it says, and what is typed at it. Leaving it leaves it running."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio
import msgspec
from anyio.abc import TaskGroup, TaskStatus

from kandev_host.cli.ids import short
from kandev_host.cli.running.ask import Asker
from kandev_host.cli.running.commands import HELP, Typed, understood
from kandev_host.cli.running.keyboard import Keyboard
from kandev_host.cli.running.questions import Answer, Questions
from kandev_host.cli.running.view import View
from kandev_host.client import ClientError, ReconnectingClient

LIVE = ("PENDING", "STARTING", "RUNNING")
HISTORY_ENTRIES = 200
HISTORY_SEQS = 20_000
PAGE = 500
# What is piped in comes at once; a pipe in which nothing comes is not waited for.
PIPED_S = 3.0
SHOWN_CHARS = 60


class Attached:
    """One person and one agent, until the agent has ended or the person leaves."""

    def __init__(self, client: ReconnectingClient, agent_id: str, view: View, asker: Asker, keyboard: Keyboard) -> None:
        self._client = client
        self._agent_id = agent_id
        self._view = view
        self._asker = asker
        self._keyboard = keyboard
        self._questions = Questions(client, view, asker)
        self._typing: anyio.CancelScope | None = None
        self._interrupts = 0
        self._unanswered: str | None = None
        self._unsent = False
        self._left = False

    async def run(self) -> bool:
        """Show what was, then what is. False if a piped prompt did not reach the agent.

        Raises `ClientError` when the host cannot be asked any more.
        """
        head = await self._client.subscribe(self._topic)
        agent = (await self._client.call("agent.status", {"agent_id": self._agent_id}))["agent"]
        await self._show_history(head)
        if agent["status"] not in LIVE:
            await self._tell_end(agent)
            await self._refuse_what_is_piped()
            return not self._unsent
        self._view.note(f"Attached to agent {short(self._agent_id)} ({agent['agent_type']}). {HELP}")
        async with anyio.create_task_group() as tasks:
            await tasks.start(self._listen_for_signals, tasks)
            tasks.start_soon(self._read, tasks)
            await self._ask_what_waits(tasks)
            await self._follow(tasks)
            tasks.cancel_scope.cancel()
        if not self._left:  # and nobody reads any more
            await self._refuse_what_is_piped()
        return not self._unsent

    @property
    def _topic(self) -> str:
        return f"agent:{self._agent_id}"

    # --- what the agent says ----------------------------------------------------------------------------------------

    async def _show_history(self, head: int) -> None:
        """The newest of what is stored; for the rest there is `agent transcript`."""
        after: int | None = max(0, head - HISTORY_SEQS)
        kept: deque[Mapping[str, Any]] = deque(maxlen=HISTORY_ENTRIES)
        more = bool(after)
        while after is not None:
            wanted = {"agent_id": self._agent_id, "after_seq": after, "limit": PAGE}
            reply = await self._client.call("agent.transcript", wanted)
            found = [entry for entry in reply["updates"] if entry["seq"] <= head]
            more = more or len(kept) + len(found) > HISTORY_ENTRIES
            kept.extend(found)
            after = reply["next_after_seq"]
        if more:
            self._view.note(f"What was before: kandev-host agent transcript {short(self._agent_id)} --all")
        for entry in kept:
            self._view.notification(entry)

    async def _follow(self, tasks: TaskGroup) -> None:
        while True:
            try:
                async for notification in self._client.notifications():
                    payload = notification.payload
                    self._questions.show({"type": "notification", **msgspec.structs.asdict(notification)})
                    match notification.action:
                        case "permission.requested":
                            tasks.start_soon(self._answer, payload.get("permission") or {})
                        case "permission.resolved":
                            self._questions.settled(payload.get("permission") or {})
                        case "elicitation.requested":
                            tasks.start_soon(self._fill, payload.get("elicitation") or {})
                        case "elicitation.resolved":
                            self._questions.settled(payload.get("elicitation") or {})
                        case "agent.updated" if payload["agent"]["status"] not in LIVE:
                            await self._tell_end(payload["agent"])
                            return
            except ClientError as error:
                if not error.resync_required:
                    raise
                self._view.note("Something was missed; here is what happens now.")
                await self._client.subscribe(self._topic)
                agent = (await self._client.call("agent.status", {"agent_id": self._agent_id}))["agent"]
                if agent["status"] not in LIVE:
                    await self._tell_end(agent)
                    return

    async def _tell_end(self, agent: Mapping[str, Any]) -> None:
        why = f": {agent['error_message']}" if agent.get("error_message") else ""
        self._view.note(f"The agent has ended ({agent['status']}{why}). {await self._how_to_go_on(agent)}")

    async def _how_to_go_on(self, agent: Mapping[str, Any]) -> str:
        """With this agent, or with that which went on with it."""
        runs = (await self._client.call("agent.list", {"task_id": agent["task_id"], "limit": PAGE}))["agents"]
        after = {run["resumed_from"]: run for run in reversed(runs) if run["resumed_from"]}
        last, passed = agent, {agent["id"]}
        while (run := after.get(last["id"])) is not None and run["id"] not in passed:
            last = run
            passed.add(run["id"])
        if last["status"] in LIVE:
            return f"Agent {short(last['id'])} goes on with it: kandev-host agent attach {short(last['id'])}"
        live = next((run for run in runs if run["status"] in LIVE), None)
        if live is not None:
            return f"Another agent works on its task: kandev-host agent attach {short(live['id'])}"
        return f"To go on: kandev-host agent resume {short(last['id'])}"

    async def _refuse_what_is_piped(self) -> None:
        """Say which prompts nobody got: the one that was on its way, and those that were not read yet."""
        if self._asker.interactive:
            return
        if self._unanswered is not None:
            self._not_sent(self._unanswered)
        with anyio.move_on_after(PIPED_S) as patience:
            while (line := await self._keyboard.line()) is not None:
                if understood(line).action == "agent.prompt":
                    self._not_sent(line)
                patience.deadline = anyio.current_time() + PIPED_S

    def _not_sent(self, line: str) -> None:
        self._unsent = True
        told = " ".join(line.split())
        self._view.note(f"Not sent: {told[:SHOWN_CHARS]}{'…' if len(told) > SHOWN_CHARS else ''}")

    # --- what it asks -----------------------------------------------------------------------------------------------

    async def _ask_what_waits(self, tasks: TaskGroup) -> None:
        wanted = {"agent_id": self._agent_id, "state": "pending"}
        for permission in (await self._client.call("permission.list", wanted))["permissions"]:
            tasks.start_soon(self._answer, permission)
        for elicitation in (await self._client.call("elicitation.list", wanted))["elicitations"]:
            tasks.start_soon(self._fill, elicitation)

    async def _answer(self, permission: Mapping[str, Any]) -> None:
        await self._ask("permission", permission, self._asker.ask, (permission.get("tool_call") or {}).get("title"))

    async def _fill(self, elicitation: Mapping[str, Any]) -> None:
        await self._ask("elicitation", elicitation, self._asker.fill, elicitation.get("message"))

    async def _ask(
        self, kind: str, row: Mapping[str, Any], ask: Callable[..., Awaitable[dict[str, Any]]], told: object
    ) -> None:
        identity = str(row.get("id"))
        if row.get("state") != "pending" or self._questions.asks(identity):
            return
        if not self._asker.interactive:
            self._view.note(f"The agent asks: {told}. Answer with: kandev-host {kind} answer {short(identity)}")
            return
        await self._questions.respond(kind, identity, lambda: self._interrupting(lambda: ask(row)))

    async def _interrupting(self, question: Answer) -> dict[str, Any]:
        """No line is read while a question stands."""
        if self._typing is not None:
            self._typing.cancel()
        return await self._questions.at_the_terminal(question)

    # --- what is typed ----------------------------------------------------------------------------------------------

    async def _read(self, tasks: TaskGroup) -> None:
        while True:
            async with self._questions.terminal:
                with anyio.CancelScope() as self._typing:
                    line = await self._keyboard.line()
                interrupted, self._typing = self._typing.cancelled_caught, None
            if interrupted:
                continue
            if line is None:
                break
            self._interrupts = 0
            typed = understood(line)
            if typed.does == "tell":
                self._view.note(typed.told)
            elif typed.does == "ask":
                await self._do(typed)
            elif typed.does == "detach":
                break
        self._leave(tasks)

    def _leave(self, tasks: TaskGroup) -> None:
        self._left = True
        self._view.note(f"Detached. To come back: kandev-host agent attach {short(self._agent_id)}")
        tasks.cancel_scope.cancel()

    async def _do(self, typed: Typed) -> None:
        prompt = typed.payload["prompt"] if typed.action == "agent.prompt" else None
        self._unanswered = prompt or self._unanswered
        try:
            reply = await self._client.call(typed.action, {"agent_id": self._agent_id, **typed.payload})
        except ClientError as error:
            if prompt and not self._asker.interactive:
                self._not_sent(prompt)
            if error.code == "UNKNOWN_ACTION":
                self._view.note(f"This host has no {typed.action}; it is an older one.")
            else:
                self._view.note(_explained(error))
            self._unanswered = None if prompt else self._unanswered
            return
        self._unanswered = None if prompt else self._unanswered
        tell = _TOLD.get(typed.action)
        if tell is not None:
            self._view.note(tell(reply))

    async def _listen_for_signals(
        self, tasks: TaskGroup, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for number in signals:
                self._interrupts += 1
                if number == signal.SIGTERM or self._interrupts > 1:
                    self._leave(tasks)
                    return
                self._view.note("Cancelling the turn; Ctrl-C again detaches.")
                tasks.start_soon(self._do, Typed("ask", "agent.cancel", {}))


def _explained(error: ClientError) -> str:
    """The host's answer, with the names that it knows and what to do."""
    known, fix = error.details.get("known"), error.details.get("fix")
    told = error.message + (f" (known: {', '.join(map(str, known))})" if isinstance(known, list) and known else "")
    return told + (f". Fix: {fix}" if fix else "")


def _waiting(reply: Mapping[str, Any]) -> str:
    prompts = reply.get("prompts") or []
    lines = [f"{prompt.get('position')}. {_text_of(prompt.get('prompt'))}" for prompt in prompts]
    return "\n".join(lines) or "No prompt waits."


def _text_of(blocks: Any) -> str:
    """A prompt in one line."""
    parts = [block.get("text") or f"[{block.get('type')}]" for block in blocks or [] if isinstance(block, dict)]
    return " ".join(" ".join(map(str, parts)).split())[:200]


_TOLD: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "agent.set_option": lambda _reply: "The option is set.",
    "queue.list": _waiting,
}
