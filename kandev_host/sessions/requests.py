"""What an agent may ask of the host: a method and who serves it. What is not here was not offered.

ACP: session/request_permission, elicitation/create; what is offered beside them is in `offers`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from copy import copy
from typing import Any

from msgspec import Raw

from kandev_host.errors import KandevError
from kandev_host.protocol import acp, jsonrpc
from kandev_host.protocol.jsonrpc import RpcError
from kandev_host.sessions.answers import read_elicitation, read_permission
from kandev_host.sessions.elicitations import Elicited, dismissed
from kandev_host.sessions.intake import KNOWN_CALLS
from kandev_host.sessions.offers import Offers
from kandev_host.sessions.permissions import Asked
from kandev_host.sessions.policy import TRUNCATED
from kandev_host.sessions.stage import SessionState, Stage
from kandev_host.sessions.updates import ToolState
from kandev_host.sessions.waiting import Waiting

Serve = Callable[[Raw], Awaitable[Any]]


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

    async def serve(self, method: str, params: Raw) -> Any:
        """The result for the agent. Raises `RpcError`."""
        serve = self._served.get(method) or self._offers.serve.get(method)
        if serve is None:
            raise RpcError(jsonrpc.METHOD_NOT_FOUND, f"Method not found: {method}")
        try:
            return await serve(params)
        except KandevError as error:
            raise RpcError(jsonrpc.INTERNAL_ERROR, "The host could not record the request") from error

    async def _permission(self, params: Raw) -> Any:
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
            asked = Asked(stage.agent, stage.task, state.row, turn_id, tool_call, options)
            return await stage.broker.ask(asked, stage.situation)

    async def _elicitation(self, params: Raw) -> Any:
        asked = read_elicitation(params)
        stage, state = self._stage, self._state
        watch = state.watch
        if watch is not None and watch.asked_to_cancel:
            return dismissed()
        async with self._waiting.person("waiting_elicitation"):
            turn_id = watch.turn.id if watch is not None else None
            session_id = state.row.id if state.row is not None else None  # it may ask in order to open one
            return await stage.broker.elicitations.ask(Elicited(stage.agent, stage.task, session_id, turn_id, asked))
