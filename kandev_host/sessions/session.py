"""One ACP session over a peer: open, prompt, cancel.

ACP: session/prompt, session/cancel. See `opening` for how a session comes to be, `intake` for what the agent says in
it, and `requests` for what the agent may ask for.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
from msgspec import Raw

from kandev_host import tracing
from kandev_host.errors import AgentError, KandevError
from kandev_host.interfaces import Change, Process, ProcessSpec, Put, Runtime
from kandev_host.models import Session, Turn, Usage, now
from kandev_host.protocol import acp
from kandev_host.protocol.jsonrpc import Id, Message, RpcError
from kandev_host.sessions import legacy
from kandev_host.sessions.answers import read
from kandev_host.sessions.failures import cause_of, classify, describe
from kandev_host.sessions.intake import Intake
from kandev_host.sessions.lazy_event import LazyEvent
from kandev_host.sessions.listing import offers
from kandev_host.sessions.logins import Login
from kandev_host.sessions.offers import Offers
from kandev_host.sessions.opening import Opening
from kandev_host.sessions.peer import Answer, Call, Peer
from kandev_host.sessions.prompt_content import fit_prompt
from kandev_host.sessions.requests import AgentRequests
from kandev_host.sessions.spans import TurnSpans
from kandev_host.sessions.stage import Left, SessionState, Stage
from kandev_host.sessions.steering import Steering
from kandev_host.sessions.surviving import SurvivingPeer
from kandev_host.sessions.turns import TurnOutcome, Watch
from kandev_host.sessions.updates import Voice
from kandev_host.sessions.usage import UsageBook
from kandev_host.sessions.waiting import Waiting
from kandev_host.sessions.wire import OpenRequest

CLOSE_S = 2.0
FAULT_HEAD_BYTES = 2000
FAULT_NOTICE_S = 1.0
TOLD_AT_ONCE = 200
OLDER_SHAPE = "A line without `jsonrpc`, of the older shape {type, data}; such lines are told, but end no turn"


class LiveSession:
    """The session of a live agent, and the handler of its peer. `row` is None until it is open.

    `adoptable`: another host can go on with it, where its process outlives this one.

    `one_turn`: its process takes one prompt, and `spent` says that it has. `unplayed`: what the process said already
    belongs to a turn that has not begun. `login` and `steering` are what people do in it besides prompting.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._state = SessionState(
            Voice(stage.agent),
            UsageBook(stage.agent_type.usage, board_id=stage.task.board_id, agent_type=stage.agent_type.name),
        )
        self._intake = Intake(stage, self._state, self.on_fault)
        self.login = Login(stage, self._state)
        self.steering = Steering(stage, self._state)
        self._opening = Opening(stage, self._state, self._intake, self.login, self.steering)
        self._peer: Peer | None = None
        self._result: acp.PromptResult | None = None
        self._turn_over = LazyEvent()
        self._waiting = Waiting(stage, self._state, self.login)
        self._offers = Offers(stage, self._state)
        self._requests = AgentRequests(stage, self._state, self._waiting, self._offers)
        self._fault_noticed = 0.0
        self._stray_flagged = False
        self._told: list[Change] = []
        self._left: Left | None = None
        self._expected: tuple[Watch, Call] | None = None  # the turn whose prompt a host sent that died

    # --- what dialects do otherwise ---------------------------------------------------------------------------------

    adoptable = True
    one_turn = False
    spent = False
    unplayed = False

    def process(self, runtime: Runtime, spec: ProcessSpec, first: Turn | None) -> AbstractAsyncContextManager[Process]:
        """The agent's process; `first` is the prompt that waits for it, if there is one that may begin."""
        del first
        return self._offers.process(runtime, spec)

    def left_process(self, runtime: Runtime, spec: ProcessSpec, left: Left) -> AbstractAsyncContextManager[Process]:
        """The same, of one that outlived its host."""
        return self._offers.process(runtime, spec, left.process)

    @property
    def row(self) -> Session | None:
        return self._state.row

    @property
    def last_update(self) -> float | None:
        """When the agent last said something, monotonic."""
        return self._intake.last_update

    async def open(self, peer: Peer, cwd: str) -> Session:
        """Open the session, the earlier one again if there is one to go on with. Raises `KandevError`."""
        self._peer = peer
        return await self._opening.open(peer, cwd)

    def go_on(self, peer: SurvivingPeer, left: Left) -> None:
        """Go on with the session that an agent and a host had which died; before anything is read of the agent."""
        self._peer, self._left, state, row = peer, left, self._state, left.session
        state.row = row
        state.initialized = acp.InitializeResult(
            row.protocol_version, row.agent_capabilities, row.agent_info, row.auth_methods
        )
        self.login.begin(peer)
        self.steering.go_on(peer)
        if left.resumed is not None:
            state.usage.resume(left.resumed)
        state.usage.go_on(left.standing)
        turn, prompt_id = left.turn, left.wire.prompt_id
        if turn is not None and prompt_id is not None:
            watch = self._begun(
                turn, ago_s=0.0 if turn.started_at is None else (now() - turn.started_at).total_seconds()
            )
            watch.asked_to_cancel = left.wire.cancelled
            self._expected = watch, peer.expect(prompt_id, "session/prompt", self._on_turn_end)

    # --- turns ------------------------------------------------------------------------------------------------------

    async def prompt(self, turn: Turn) -> TurnOutcome:
        """Run a turn to its end, however long. `close_turn` must follow."""
        if self._peer is None or self.row is None:
            raise AgentError("The session is not open")
        watch = self._begun(turn) if self._expected is None else self._expected[0]
        try:
            outcome = await self._converse(self._peer, self.row, turn, watch)
        except RpcError as error:
            outcome = await self._refused(error, watch)
        except KandevError as error:
            outcome = watch.broke(error.message, cause_of(error))
        finally:
            self._state.watch = None
            self._turn_over.set()
        await self._stage.broker.turn_ended(self._stage.agent)
        return outcome

    def _begun(self, turn: Turn, ago_s: float = 0.0) -> Watch:
        watch = self._state.watch = Watch(turn)
        self._turn_over = LazyEvent()
        self._state.usage.begin_turn(ago_s)
        self._waiting.begin_turn()
        self._state.last_turn = None
        self._result = None
        self.login.holds = False
        self.steering.begin_turn()
        return watch

    async def _converse(self, peer: Peer, row: Session, turn: Turn, watch: Watch) -> TurnOutcome:
        """What passes between prompt and end. Raises `RpcError`, `KandevError`."""
        expected, self._expected = self._expected, None
        if expected is not None:
            raw = await expected[1].outcome()
        else:
            params = {"sessionId": row.acp_session_id, "prompt": self._blocks(turn), **tracing.meta()}
            prompt_id = self._stage.wire.prompt_id(turn.id)
            raw = await peer.call("session/prompt", params, None, self._on_turn_end, identifier=prompt_id)
        self._result = read(raw, acp.PromptResult, "session/prompt")
        return watch.ended(self._result.stop_reason)

    def _blocks(self, turn: Turn) -> list[dict[str, Any]]:
        """What the agent is told: the prompt, the first time behind what it is to know of an earlier session."""
        context, self._opening.context = self._opening.context, None
        prompt = fit_prompt(turn.prompt, self.row.agent_capabilities) if self.row is not None else turn.prompt
        return prompt if context is None else [context, *prompt]

    async def _refused(self, error: RpcError, watch: Watch) -> TurnOutcome:
        """The agent answered the prompt with an error. For want of a log-in, it waits for one."""
        needs = self.login.refused(error)
        if needs is None:
            return watch.broke(f"The agent failed: {describe(error)}", classify(error))
        outcome = watch.broke(needs.message, needs.cause)
        if outcome.failure == "login" and not self._stage.agent.orchestrated:
            self.login.holds = True
            await self.login.tell(needs)
        return outcome

    async def close_turn(self, turn: Turn, outcome: TurnOutcome) -> tuple[Usage | None, list[Change]]:
        """What the turn used, and what is to be recorded with its end: at once, for updates may still come."""
        usage = self._state.usage.end_turn(turn, self._result, self._model(), waited_ms=self._waiting.waited_ms())
        self._state.last_turn = turn  # what comes while it is priced corrects it
        if self._stage.priced is not None:
            usage = self._state.usage.priced(await self._stage.priced(usage))
        if self._state.spans is not None:
            self._state.spans.close(outcome, usage)
            self._state.spans = None
        return usage if usage.raw else None, [*self._intake.close_tools(turn.id), Put(usage)]

    def _on_turn_end(self, _answer: Answer) -> None:
        """Inline: updates behind the answer belong to the session, not to the turn."""
        self._state.watch = None

    async def cancel(self) -> bool:
        """Ask the agent to end its turn; False if none runs. ACP: all pending permissions are answered `cancelled`."""
        watch = self._state.watch
        if watch is None or self._peer is None or self.row is None:
            return False
        watch.asked_to_cancel = True
        await self._stage.journal.post(*self._stage.wire.cancelling())
        try:
            with anyio.move_on_after(self._stage.settings.kill_grace_s):
                await self._ask_to_cancel(self._peer, self.row)
        except AgentError:
            pass  # it is gone, which ends its turn as well
        await self._stage.broker.cancel_all(self._stage.agent.id, "the turn was cancelled")
        return True

    async def _ask_to_cancel(self, peer: Peer, row: Session) -> None:
        await peer.notify("session/cancel", {"sessionId": row.acp_session_id})

    async def ask(self, method: str, params: acp.Json, timeout_s: float) -> Raw:
        """What the agent answers to a call that is about no turn. Raises `AgentError`, also for its own error."""
        if self._peer is None:
            raise AgentError("The session is not open")
        try:
            return await self._peer.call(method, params, timeout_s)
        except RpcError as error:
            raise AgentError(f"The agent refused {method}: {describe(error)}") from error

    async def close(self) -> None:
        """ACP session/close, where it is offered: the agent may keep what it remembers, and works on it no more."""
        row = self.row
        if row is None or not offers(row.agent_capabilities, "close"):
            return
        try:
            await self.ask("session/close", {"sessionId": row.acp_session_id}, CLOSE_S)
        except KandevError as error:
            self._stage.logs.note("warning", error.message)

    def give_up(self) -> None:
        """The agent is about to be killed on somebody's word: its turn counts as cancelled, not as failed."""
        if self._state.watch is not None:
            self._state.watch.asked_to_cancel = True

    @property
    def asking(self) -> bool:
        """Does the agent wait for a person?"""
        return self._state.asking > 0

    @property
    def last_answer(self) -> float:
        """When the agent last ceased to wait for a person, monotonic."""
        return self._waiting.last_answer

    async def idle(self) -> None:
        """Returns when no turn runs."""
        await self._turn_over.wait()

    def spans(self, turn: Turn, parent: tracing.SpanContext | None) -> TurnSpans | tracing.Span:
        """The spans of a turn that begins now, as a context manager."""
        if not tracing.on():
            return tracing.NOTHING
        self._state.spans = TurnSpans(self._stage.agent, self.row, turn, self._model(), parent)
        return self._state.spans

    def _model(self) -> str | None:
        """The model in use, where the session has such an option (by category, not by id)."""
        for option in (self.row.config_options if self.row is not None else None) or []:
            if option.get("category") == "model" and isinstance(option.get("currentValue"), str):
                return str(option["currentValue"])
        return None

    # --- where the host may die ---------------------------------------------------------------------------------------

    def prompting(self, turn: Turn) -> Sequence[Change]:
        """What belongs into the commit that begins the turn."""
        return () if self._peer is None else self._stage.wire.prompting(turn.id, self._peer.reserve)

    def turn_over(self) -> Sequence[Change]:
        """What belongs into the commit that ends it."""
        return self._stage.wire.turn_over()

    async def tell_now(self) -> None:
        """Tell what is held back of what was said: something else follows."""
        await self._intake.tell_now()

    def recall(self, batch: Sequence[Message]) -> None:
        """Know what the host that died knew after these, and tell nothing."""
        self._intake.recall(batch)

    async def recalled(self) -> None:
        """What the row says is as it was recorded: answers, too, had changed it."""
        self._intake.recalled()
        if self._left is not None:
            self._state.row = self._left.session

    async def on_noted_request(self, id: Id, method: str, params: Raw) -> Any:
        """As `on_request`, of one that the wire has noted."""
        return await self._requests.serve(method, params, self._stage.wire.noting(id))

    async def on_left_request(self, left: OpenRequest, method: str | None, params: Raw) -> Any:
        """The result of a request that the host that died has not answered. Raises `RpcError`."""
        questions = {} if self._left is None else self._left.questions
        noted = self._stage.wire.noting(left.id)
        return await self._requests.serve_left(questions.get(left.row_id or ""), method, params, noted)

    # --- what the agent sends -----------------------------------------------------------------------------------------

    async def on_notifications(self, batch: Sequence[Message]) -> int:
        """Post one batch; how many of it could not be used."""
        return await self._intake.on_notifications(batch)

    async def tell_held(self) -> None:
        """For ever: see `Intake.tell_held`."""
        await self._intake.tell_held()

    async def on_request(self, method: str, params: Raw) -> Any:
        """The result of what the agent asks for. Raises `RpcError`."""
        return await self._requests.serve(method, params)

    async def on_stray(self, line: bytes) -> bool:
        """A line of the older shape is taken for what it says, and flagged once a session."""
        found = legacy.read(line)
        if found is None:
            return False
        if not self._stray_flagged:
            self._stray_flagged = True
            await self._post(self._state.voice.error("PROTOCOL_FAULT", OLDER_SHAPE, *self._here()))
        await self._take_legacy(found)
        return True

    async def _take_legacy(self, found: legacy.LegacyLine) -> None:
        self._intake.last_update = time.monotonic()
        turn_id, session_id = self._here()
        told = legacy.told(found, self._state.voice, self._stage.current(), turn_id=turn_id, session_id=session_id)
        if told is not None:
            self._told.append(told)
        if len(self._told) >= TOLD_AT_ONCE:
            await self.on_rest()

    async def on_rest(self) -> None:
        """Post what lines of the older shape said: one commit per chunk of the agent's output."""
        told, self._told = self._told, []
        if told:
            await self._post(*told)

    async def _post(self, *changes: Change) -> None:
        await self._stage.journal.post(*changes, *self._stage.wire.reached())

    def _here(self) -> tuple[str | None, str | None]:
        """The ids of the turn and of the session that something said now belongs to."""
        return self._state.watch.turn.id if self._state.watch is not None else None, self._state.acp_session_id

    async def on_fault(self, reason: str, line: bytes) -> None:
        """A line that is no ACP: kept in the log; an acp.error at most once a second."""
        head = line[:FAULT_HEAD_BYTES].decode(errors="replace")
        self._stage.logs.note("warning", head, stream="stdout", fault=reason[:200])
        at = time.monotonic()
        if at - self._fault_noticed < FAULT_NOTICE_S:
            return
        self._fault_noticed = at
        await self._post(self._state.voice.error("PROTOCOL_FAULT", reason, *self._here()))
