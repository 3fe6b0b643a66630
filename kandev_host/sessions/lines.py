"""Dialect `lines`: a program that is given its prompt, writes lines, and exits. No ACP is spoken.

The prompt is on its stdin, which then ends, and up to 100 KiB in KANDEV_PROMPT. A line of the older shape (`legacy`) is
told as what it says; any other line is something the agent says.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
import msgspec
from msgspec import Raw
from msgspec.structs import replace

from kandev_host.errors import AgentError, KandevError
from kandev_host.interfaces import Process, ProcessSpec, Put, Runtime
from kandev_host.models import Session, Turn
from kandev_host.protocol import acp
from kandev_host.protocol.jsonrpc import Message
from kandev_host.sessions import legacy
from kandev_host.sessions.ending import not_started
from kandev_host.sessions.failures import AgentFailed, Cause, classify_text
from kandev_host.sessions.later import LaterProcess, later
from kandev_host.sessions.opening import NO_MEMORY
from kandev_host.sessions.peer import Peer
from kandev_host.sessions.session import LiveSession
from kandev_host.sessions.stage import Stage
from kandev_host.sessions.turns import TurnOutcome, Watch
from kandev_host.sessions.updates import MESSAGE_CHARS

ENV_PROMPT_BYTES = 100 << 10
NO_ACP = 0
ONE_TURN = "each turn of it is a process of its own"
SILENT = "The agent ended without a word"


class Heard(msgspec.Struct):
    """What a turn's lines said: its result, and the error that nothing has followed yet."""

    result: legacy.LegacyLine | None = None
    error: str | None = None
    anything: bool = False

    def take(self, found: legacy.LegacyLine) -> None:
        if found.type == "heartbeat":
            return
        self.anything = self.anything or found.type != "error"
        self.error = legacy.error_text(found) if found.type == "error" else None
        if found.type == "result":
            self.result = found


def outcome_of(watch: Watch, heard: Heard, exit_code: int | None, gone: str) -> TurnOutcome:
    """A result decides; without one, exit code 0 after any output but a last word of error. `gone` says how it went."""
    if watch.asked_to_cancel:
        return TurnOutcome(result="cancelled", asked_to_cancel=True, summary=watch.summary)
    if heard.result is not None:
        return _of_result(watch, heard.result)
    if heard.error is not None:
        return watch.broke(f"The agent failed: {heard.error}", classify_text(heard.error))
    if exit_code != 0:
        return watch.broke(f"The agent {gone}", Cause("crash"))
    if not (heard.anything or watch.has_text):
        return watch.broke(SILENT, Cause("turn"))
    watch.has_text = True
    return replace(watch.ended("end_turn"), stop_reason=None)


def _of_result(watch: Watch, result: legacy.LegacyLine) -> TurnOutcome:
    said = legacy.summary(result)
    if legacy.has_failed(result):
        broken = watch.broke(f"The agent failed: {said or 'it does not say why'}", classify_text(said))
        return replace(broken, summary=said or watch.summary, artifacts=legacy.artifacts(result))
    return TurnOutcome(result="completed", summary=said or watch.summary, artifacts=legacy.artifacts(result))


class LineSession(LiveSession):
    """A session of one turn. Its process starts when that begins, so that what a policy denies never ran."""

    adoptable = False
    one_turn = True

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._heard = Heard()
        self._over = anyio.Event()
        self._texts: list[str] = []
        self._text_chars = 0
        self._runtime: Runtime | None = None
        self._spec: ProcessSpec | None = None
        self._process: LaterProcess | None = None

    def process(self, runtime: Runtime, spec: ProcessSpec, first: Turn | None) -> AbstractAsyncContextManager[Process]:
        del first
        self._runtime, self._spec = runtime, spec
        self._process = process = LaterProcess(runtime)
        return later(process)

    async def open(self, peer: Peer, cwd: str) -> Session:
        """There is nothing to open: the row says in what place the process will be."""
        self._peer = peer
        stage, state = self._stage, self._state
        row = Session(
            agent_id=stage.agent.id,
            task_id=stage.task.id,
            acp_session_id=stage.agent.id,
            cwd=cwd,
            protocol_version=NO_ACP,
        )
        if stage.resume is not None and stage.resume.transcript:
            self._opening.context = acp.text_block(stage.resume.transcript)
            row = msgspec.structs.replace(row, opened="transcript")
            told = NO_MEMORY.format(why=ONE_TURN)
            await stage.journal.post(state.voice.error("RESUMED_WITHOUT_MEMORY", told, None, row.acp_session_id))
        await stage.journal.record(Put(row))
        state.row = row
        return row

    # --- the turn ---------------------------------------------------------------------------------------------------

    async def _converse(self, peer: Peer, row: Session, turn: Turn, watch: Watch) -> TurnOutcome:
        self.spent = True
        text = prompt_text(self._blocks(turn))
        await self._begin(turn, text)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(peer.hand_over, text.encode())
            tasks.start_soon(self._wait_for_end, peer)
            await self._over.wait()
            tasks.cancel_scope.cancel()
        return outcome_of(watch, self._heard, peer.exit_code, peer.end_reason or "ended")

    async def _begin(self, turn: Turn, text: str) -> None:
        """Start the process. Raises `AgentFailed`."""
        process, runtime, spec = self._process, self._runtime, self._spec
        if process is None or runtime is None or spec is None:
            raise AgentError("The agent has no process")
        spec = with_prompt(spec, text, turn)
        try:
            await process.start(spec)
        except AgentError:
            raise
        except KandevError as error:
            failure = (await not_started(runtime, spec, error)).failure or "config"
            raise AgentFailed(error.message, Cause(failure)) from error

    async def _wait_for_end(self, peer: Peer) -> None:
        await peer.ended.wait()
        self._over.set()

    async def _ask_to_cancel(self, peer: Peer, row: Session) -> None:
        """A program that speaks no ACP is told by SIGTERM."""
        await peer.terminate()

    # --- what it says -----------------------------------------------------------------------------------------------

    async def on_stray(self, line: bytes) -> bool:
        """Each line counts: none is a fault."""
        found = legacy.read(line)
        if found is None:
            await self._take_text(line)
            return True
        await self._tell_texts()
        await self._take_legacy(found)
        if self._state.watch is not None:
            self._heard.take(found)
            if self._heard.result is not None:
                await self.on_rest()
                self._state.watch = None  # what comes behind the result is not the turn's
                self._over.set()
        return True

    async def _take_text(self, line: bytes) -> None:
        await LiveSession.on_rest(self)
        self._heard.error = None
        text = line.decode(errors="replace") + "\n"
        if self._text_chars + len(text) > MESSAGE_CHARS:
            await self._tell_texts()
        self._texts.append(text)
        self._text_chars += len(text)

    async def _tell_texts(self) -> None:
        """Lines that come together are told together, as one chunk of the agent's message as ACP would have it."""
        texts, self._texts, self._text_chars = self._texts, [], 0
        if texts:
            block = acp.text_block("".join(texts))
            await self._intake.on_notifications([chunk_message(self._state.acp_session_id or "", block)])

    async def on_rest(self) -> None:
        await self._tell_texts()
        await super().on_rest()


def chunk_message(session_id: str, block: Any) -> Message:
    """The session/update that an agent of ACP would have sent for this piece of its message."""
    update = {"sessionUpdate": "agent_message_chunk", "content": block}
    params = Raw(msgspec.json.encode({"sessionId": session_id, "update": update}))
    return Message(jsonrpc="2.0", method="session/update", params=params)


def prompt_text(blocks: list[dict[str, Any]]) -> str:
    """A prompt as one text: what links and files say of themselves, and what is no text by its kind."""
    parts = []
    for block in blocks:
        resource = block.get("resource")
        inner = resource if isinstance(resource, dict) else {}
        known = (block.get("text"), inner.get("text"), block.get("uri"), inner.get("uri"))
        parts.append(next((text for text in known if isinstance(text, str)), f"[{block.get('type')}]"))
    return "\n\n".join(parts)


def with_prompt(spec: ProcessSpec, text: str, turn: Turn) -> ProcessSpec:
    """The process with its prompt and ids in the environment; a longer prompt is on stdin only."""
    env = {**spec.env, "KANDEV_TURN_ID": turn.id}
    if turn.session_id is not None:
        env["KANDEV_SESSION_ID"] = turn.session_id
    if len(text.encode()) <= ENV_PROMPT_BYTES and "\0" not in text:
        env["KANDEV_PROMPT"] = text
    return replace(spec, env=env)
