"""One turn: the messages, plans and tool calls of it, each asked for where the mode says so."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from . import workspace
from .sessions import Archive, Session
from .wire import Connection, Object, RpcError
from .workspace import ToolError

CONTEXT_TOKENS = 200_000
# Not the allowing one first: a client that takes the first option is wrong (ACP: choose by kind).
OPTIONS: list[Object] = [
    {"optionId": "no", "name": "No", "kind": "reject_once"},
    {"optionId": "yes", "name": "Yes, this once", "kind": "allow_once"},
    {"optionId": "yes-all", "name": "Yes, and all like it in this session", "kind": "allow_always"},
]


class Refused(Exception):
    """The user, or the mode, said no; the text says which."""


class Withdrawn(Exception):
    """The client answered a permission request with `cancelled`: the turn is over."""


@dataclass
class Call:
    """One tool call. What it sets is sent with its next update."""

    id: str
    kind: str
    shown: Object = field(default_factory=dict)


def text_content(text: str) -> Object:
    return {"type": "content", "content": {"type": "text", "text": text}}


class Turn:
    """What the agent does for one prompt. Tokens are counted as words, since there is no model to count.

    `failed` holds the titles of the calls that failed or were refused.
    """

    def __init__(self, connection: Connection, archive: Archive, session: Session, *, pause_s: float = 0.0) -> None:
        self._connection = connection
        self._archive = archive
        self._session = session
        self._pause_s = pause_s
        self._open: dict[str, Call] = {}
        self._plan: list[str] = []
        self.failed: list[str] = []
        self.read_words = 0
        self.said_words = 0
        self.thought_words = 0

    @property
    def session(self) -> Session:
        return self._session

    async def update(self, variant: str, **fields: object) -> None:
        """Send one session/update, and keep it for a later session/load."""
        update: Object = {"sessionUpdate": variant, **fields}
        self._archive.keep(self._session, update)
        await self._connection.notify("session/update", {"sessionId": self._session.id, "update": update})

    async def hear(self, blocks: list[Object], text: str) -> None:
        """The prompt, for the replay; the client that sent it needs no copy."""
        self.read_words += len(text.split())
        self._archive.keep(
            self._session, *({"sessionUpdate": "user_message_chunk", "content": block} for block in blocks)
        )

    async def say(self, text: str) -> None:
        """Stream a message, some words at a time."""
        self.said_words += len(text.split())
        words = text.split(" ")
        for first in range(0, len(words), 6):
            piece = " ".join(words[first : first + 6]) + (" " if first + 6 < len(words) else "")
            await self.update("agent_message_chunk", content={"type": "text", "text": piece})
            await asyncio.sleep(self._pause_s)

    async def think(self, text: str) -> None:
        """Stream a thought, unless the session hides them."""
        self.thought_words += len(text.split())
        if self._session.thoughts == "on":
            await self.update("agent_thought_chunk", content={"type": "text", "text": text})
            await asyncio.sleep(self._pause_s)

    async def plan(self, done: int, *steps: str) -> None:
        """Show the plan (new `steps`, or those of before) with so many of its entries done."""
        self._plan = list(steps) or self._plan
        entries = [
            {"content": step, "priority": "medium", "status": _status(position, done)}
            for position, step in enumerate(self._plan)
        ]
        await self.update("plan", entries=entries)

    @asynccontextmanager
    async def call(self, title: str, kind: str, raw_input: Object, **fields: object) -> AsyncIterator[Call]:
        """A tool call: announced, and closed as completed, or as failed with what went wrong.

        A `ToolError` or `Refused` raised inside is shown in the call and goes no further.
        """
        call = Call(f"call-{uuid.uuid4().hex[:12]}", kind)
        about: Object = {"title": title, "kind": kind, "rawInput": raw_input, **fields}
        self._open[call.id] = call
        await self.update("tool_call", toolCallId=call.id, status="pending", **about)
        call.shown = about
        try:
            yield call
        except (ToolError, Refused) as error:
            self.failed.append(title)
            await self._close(call, "failed", content=[text_content(str(error))])
        else:
            await self._close(call, "completed")

    async def progress(self, call: Call, **fields: object) -> None:
        """The call runs; `fields` replace what was shown of it."""
        call.shown = {**call.shown, **fields}
        await self.update("tool_call_update", toolCallId=call.id, status="in_progress", **fields)

    async def ask(self, call: Call) -> None:
        """Have the user allow the call. Raises `Refused`, or `Withdrawn` when the turn is over."""
        session = self._session
        if session.mode == "read-only":
            raise Refused("Not done: this session is in the mode read-only.")
        if call.kind in session.always or (session.mode == "accept-edits" and call.kind == "edit"):
            return
        answer = await self._connection.call(
            "session/request_permission",
            {
                "sessionId": session.id,
                "toolCall": {"toolCallId": call.id, "status": "pending", **call.shown},
                "options": OPTIONS,
            },
        )
        outcome = answer.get("outcome", {}) if isinstance(answer, dict) else {}
        if outcome.get("outcome") != "selected":
            raise Withdrawn
        if outcome.get("optionId") == "yes-all":
            session.always.add(call.kind)
        elif outcome.get("optionId") != "yes":
            raise Refused("Not done: you said no.")

    async def ask_in_a_form(self, question: str) -> str | None:
        """What the user answered; None if nothing. Raises `Withdrawn` when the turn is over."""
        form = {
            "type": "object",
            "properties": {"answer": {"type": "string", "title": "Answer"}},
            "required": ["answer"],
        }
        asked = {"sessionId": self._session.id, "mode": "form", "message": question, "requestedSchema": form}
        try:
            answer = await self._connection.call("elicitation/create", asked)
        except RpcError:
            return None  # this client does not offer it
        action = answer.get("action") if isinstance(answer, dict) else None
        if action == "cancel":
            raise Withdrawn
        return str((answer.get("content") or {}).get("answer", "")) if action == "accept" else None

    async def look(self, title: str, kind: str, raw_input: Object, found: Object) -> None:
        """A call that only looked; `found` are the fields of its result."""
        async with self.call(title, kind, raw_input) as call:
            await self.progress(call, **found)

    async def read(self, path: str) -> str | None:
        """Read a file in a call of its own; None when it could not be read."""
        text = None
        location = [{"path": str(self._session.root / path)}]
        async with self.call(f"Read {path}", "read", {"path": path}, locations=location) as call:
            text = workspace.read(self._session.root, path)
            self.read_words += len(text.split())
            await self.progress(call, content=[text_content(text[:4000])], rawOutput={"characters": len(text)})
        return text

    async def edit(self, title: str, texts: dict[str, str]) -> bool:
        """Write files (path → whole text) in one call, asked for once. False when it was not done."""
        root = self._session.root
        locations = [{"path": str(root / path), "line": 1} for path in texts]
        async with self.call(title, "edit", {"paths": list(texts)}, locations=locations) as call:
            call.shown["content"] = [self._diff(path, text) for path, text in texts.items()]
            await self.ask(call)
            await self.progress(call, content=call.shown["content"])
            for path, text in texts.items():
                workspace.write(root, path, text)
            self.said_words += sum(len(text.split()) for text in texts.values())
            return True
        return False

    def _diff(self, path: str, text: str) -> Object:
        old = workspace.read_or_none(self._session.root, path)
        return {"type": "diff", "path": str(self._session.root / path), "oldText": old, "newText": text}

    async def run(self, command: str) -> None:
        """Run a shell command in a call of its own, its output streamed into it."""
        async with self.call(f"Run {command}", "execute", {"command": command}) as call:
            await self.ask(call)
            await self.progress(call)
            async with workspace.run(self._session.root, command) as running:
                async for output in running.progress():
                    await self.progress(call, content=[text_content(output)])
                code = await running.wait()
            await self.progress(call, rawOutput={"exitCode": code})
            if code:
                raise ToolError(f"{running.output}\nexit code {code}".lstrip())

    async def close_calls(self) -> None:
        """The turn was cancelled: no call stays open."""
        for call in list(self._open.values()):
            await self._close(call, "failed", content=[text_content("Cancelled.")])

    async def report(self) -> Object:
        """Tell the context and the cost of the session; answers ACP's usage of this turn."""
        session = self._session
        total = self.read_words + self.said_words + self.thought_words
        session.tokens += total
        cost = {"amount": session.cost, "currency": "USD"}
        await self.update("usage_update", used=session.tokens, size=CONTEXT_TOKENS, cost=cost)
        self._archive.keep(session)
        return {
            "inputTokens": self.read_words, "outputTokens": self.said_words, "thoughtTokens": self.thought_words,
            "totalTokens": total,
        }  # fmt: skip

    async def _close(self, call: Call, status: str, **fields: object) -> None:
        del self._open[call.id]
        await self.update("tool_call_update", toolCallId=call.id, status=status, **fields)


def _status(position: int, done: int) -> str:
    return "completed" if position < done else "in_progress" if position == done else "pending"


def tree(names: Sequence[str]) -> str:
    """A list of files for people, cut after 40."""
    shown = "\n".join(names[:40])
    return shown + (f"\n… and {len(names) - 40} more" if len(names) > 40 else "") or "(empty)"
