"""What an agent may ask of the host: a method and who serves it. What is not here was not offered.

ACP: session/request_permission, elicitation/create; what is offered beside them is in `offers`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from copy import copy
from typing import Any

from msgspec import Raw

from kandev_host.errors import KandevError
from kandev_host.models import Activity, Elicitation, PermissionRequest
from kandev_host.protocol import acp, jsonrpc
from kandev_host.protocol.jsonrpc import RpcError
from kandev_host.sessions.answers import read_elicitation, read_permission
from kandev_host.sessions.asking import Asked, Noted, unnoted
from kandev_host.sessions.elicitations import Elicited, dismissed
from kandev_host.sessions.intake import KNOWN_CALLS
from kandev_host.sessions.offers import Offers
from kandev_host.sessions.policy import TRUNCATED
from kandev_host.sessions.spans import outcome_of
from kandev_host.sessions.stage import Question, SessionState, Stage
from kandev_host.sessions.updates import ToolState
from kandev_host.sessions.waiting import Waiting
from kandev_host.tracing import NOTHING

Serve = Callable[[Raw, Noted], Awaitable[Any]]
UNKNOWN = "The host died while it served this; whether it was done is not known"
UNKEPT = "The host died with the answer to this, which is kept nowhere; ask again"


class AgentRequests:
    def __init__(self, stage: Stage, state: SessionState, waiting: Waiting, offers: Offers) -> None:
        self._stage = stage
        self._state = state
        self._waiting = waiting
        self._offers = offers
        self._served: Mapping[str, Serve] = {
            "session/request_permission": self._permission,
            "elicitation/create": self._elicitation,
        }

    async def serve(self, method: str, params: Raw, noted: Noted = unnoted) -> Any:
        """The result for the agent. Raises `RpcError`."""
        ask, serve = self._served.get(method), self._offers.serve.get(method)
        try:
            if ask is not None:
                return await ask(params, noted)
            if serve is not None:
                if asked := self._stage.wire.now():  # before anything is done, which is not to be done twice
                    await self._stage.journal.record(*asked)
                return await serve(params)
        except KandevError as error:
            raise RpcError(jsonrpc.INTERNAL_ERROR, "The host could not record the request") from error
        raise RpcError(jsonrpc.METHOD_NOT_FOUND, f"Method not found: {method}")

    async def serve_left(self, question: Question | None, method: str | None, params: Raw, noted: Noted) -> Any:
        """The result of a request that the host that died has not answered: of the `question` that it became, if it is
        one. Raises `RpcError`.
        """
        stage = self._stage
        if question is None:
            if method in self._served:
                return await self.serve(str(method), params, noted)
            raise RpcError(jsonrpc.INTERNAL_ERROR, UNKNOWN)
        activity: Activity = "waiting_elicitation" if isinstance(question, Elicitation) else "waiting_permission"
        async with self._waiting.person(activity) if question.state == "pending" else nullcontext():
            if isinstance(question, PermissionRequest):
                return await stage.broker.still_asked(question, stage.task.board_id, stage.situation)
            result = await stage.broker.elicitations.still_asked(question, stage.task.board_id)
            if result is None:
                raise RpcError(jsonrpc.INTERNAL_ERROR, UNKEPT)
            return result

    async def _permission(self, params: Raw, noted: Noted) -> Any:
        session_id, tool_call, options = read_permission(params)
        stage, state = self._stage, self._state
        watch = state.watch
        if state.row is None or (watch is not None and watch.asked_to_cancel):
            return acp.cancelled()
        if session_id != state.row.acp_session_id:  # else it would be decided on with what is known of our calls
            raise RpcError(jsonrpc.INVALID_PARAMS, "Invalid params: sessionId is not that of the session")
        before = copy(state.tools.get(tool_call["toolCallId"], ToolState()))
        async with self._waiting.person("waiting_permission"):
            turn_id = watch.turn.id if watch is not None else None
            unknown = tool_call["toolCallId"] not in state.tools and len(state.tools) >= KNOWN_CALLS
            tool_call = state.tools.get(tool_call["toolCallId"], before).asked(tool_call, before)
            tool_call |= {TRUNCATED: True} if unknown else {}
            asked = Asked(stage.agent, stage.task, state.row, turn_id, tool_call, options, noted)
            with state.spans.permission(tool_call["toolCallId"]) if state.spans is not None else NOTHING as span:
                result = await stage.broker.ask(asked, stage.situation)
                span.set(outcome_of(result, options))
            return result

    async def _elicitation(self, params: Raw, noted: Noted) -> Any:
        asked = read_elicitation(params)
        stage, state = self._stage, self._state
        watch = state.watch
        if watch is not None and watch.asked_to_cancel:
            return dismissed()
        async with self._waiting.person("waiting_elicitation"):
            turn_id = watch.turn.id if watch is not None else None
            session_id = state.row.id if state.row is not None else None  # it may ask in order to open one
            elicited = Elicited(stage.agent, stage.task, session_id, turn_id, asked, noted)
            return await stage.broker.elicitations.ask(elicited)
