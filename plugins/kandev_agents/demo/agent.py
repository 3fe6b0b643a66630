"""The agent's side of ACP version 1: which method does what."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

from . import script
from .sessions import Archive, Session, cancel
from .story import play
from .turn import Turn, Withdrawn
from .wire import (
    AUTH_REQUIRED,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    Connection,
    Object,
    RpcError,
    connect,
)

PROTOCOL_VERSION = 1
VERSION = "1.0.0"
CAPABILITIES: Object = {
    "loadSession": True,
    "promptCapabilities": {"image": False, "audio": False, "embeddedContext": True},
    "mcpCapabilities": {"http": False, "sse": False},
    "sessionCapabilities": {"list": {}, "resume": {}, "close": {}, "delete": {}},
    "auth": {"logout": {}},
}
LOGIN = "demo"


class Agent:
    """Serves one client. `pause_s` is waited after each piece of a message, as a model would take its time."""

    def __init__(self, connection: Connection, archive: Archive, *, pause_s: float = 0.0) -> None:
        self._connection = connection
        self._archive = archive
        self._pause_s = pause_s
        self._logged_in = True
        self._prompts: dict[object, Session] = {}
        self._methods: dict[str, Callable[[Object], Awaitable[Any]]] = {
            "initialize": self._initialize,
            "authenticate": self._authenticate,
            "logout": self._logout,
            "session/new": self._new,
            "session/load": self._load,
            "session/resume": self._resume,
            "session/list": self._list,
            "session/close": self._close,
            "session/delete": self._delete,
            "session/set_mode": self._set_mode,
            "session/set_config_option": self._set_option,
        }

    async def on_request(self, method: str, params: Object, id: Any) -> Any:
        """Serve one request. Raises `RpcError`."""
        if method == "session/prompt":
            return await self._prompt(params, id)
        serve = self._methods.get(method)
        if serve is None:
            raise RpcError(METHOD_NOT_FOUND, "Method not found", method=method)
        return await serve(params)

    def on_notification(self, method: str, params: Object) -> None:
        """ACP: session/cancel and $/cancel_request; others are ignored, and so is a cancel that comes too late."""
        session = None
        if method == "session/cancel":
            session = next((one for one in self._prompts.values() if one.id == params.get("sessionId")), None)
        elif method == "$/cancel_request":
            session = next((one for id, one in self._prompts.items() if id == params.get("requestId")), None)
        if session is not None:
            cancel(session)

    async def _initialize(self, params: Object) -> Object:
        if not isinstance(params.get("protocolVersion"), int):
            raise RpcError(INVALID_PARAMS, "protocolVersion must be an integer")
        return {
            "protocolVersion": PROTOCOL_VERSION,
            "agentCapabilities": CAPABILITIES,
            "agentInfo": {"name": "kandev-demo-agent", "title": "Demo", "version": VERSION},
            "authMethods": [{"id": LOGIN, "name": "Log in", "description": "Checks nothing"}],
        }

    async def _authenticate(self, params: Object) -> Object:
        if params.get("methodId") != LOGIN:
            raise RpcError(INVALID_PARAMS, "there is no such log-in", known=[LOGIN])
        self._logged_in = True
        return {}

    async def _logout(self, _params: Object) -> Object:
        self._logged_in = False
        return {}

    async def _new(self, params: Object) -> Object:
        session = self._archive.create(_cwd(params))
        # Before the answer, as some released agents do: a client has to keep updates of a session it does not know yet.
        await self._tell_commands(session)
        return {"sessionId": session.id, **_settings(session)}

    async def _load(self, params: Object) -> Object:
        session = self._archive.load(params.get("sessionId"), _cwd(params))
        for update in self._archive.history(session):
            await self._connection.notify("session/update", {"sessionId": session.id, "update": update})
        await self._tell_commands(session)
        return _settings(session)

    async def _resume(self, params: Object) -> Object:
        return _settings(self._archive.load(params.get("sessionId"), _cwd(params)))

    async def _list(self, params: Object) -> Object:
        return {"sessions": self._archive.list(params.get("cwd"))}

    async def _close(self, params: Object) -> Object:
        self._archive.close(params.get("sessionId"))
        return {}

    async def _delete(self, params: Object) -> Object:
        self._archive.delete(params.get("sessionId"))
        return {}

    async def _set_mode(self, params: Object) -> Object:
        session = self._archive.get(params.get("sessionId"))
        session.choose("mode", params.get("modeId"))
        await self._tell_settings(session, mode=True)
        return {}

    async def _set_option(self, params: Object) -> Object:
        session = self._archive.get(params.get("sessionId"))
        session.choose(str(params.get("configId")), params.get("value"))
        await self._tell_settings(session, mode=params.get("configId") == "mode")
        return {"configOptions": session.options()}

    async def _prompt(self, params: Object, id: Any) -> Object:
        session = self._archive.get(params.get("sessionId"))
        if not self._logged_in:
            raise RpcError(AUTH_REQUIRED, "Authentication required")
        blocks = params.get("prompt")
        if not isinstance(blocks, list) or not blocks:
            raise RpcError(INVALID_PARAMS, "prompt must be a list of content blocks")
        if session in self._prompts.values():
            raise RpcError(INVALID_REQUEST, "this session works on a prompt already")
        turn = Turn(self._connection, self._archive, session, pause_s=self._pause_s)
        self._prompts[id] = session
        try:
            stop = await self._play(turn, blocks)
            return {"stopReason": stop, "usage": await turn.report()}
        finally:
            del self._prompts[id]

    async def _play(self, turn: Turn, blocks: list[Object]) -> str:
        text = script.text_of(blocks)
        # A time-out without a time: `cancel` sets it to now, which ends what is inside and nothing else.
        scope = turn.session.turn = asyncio.timeout(None)
        try:
            async with scope:
                await turn.hear(blocks, text)
                await self._name(turn, text)
                return await play(turn, text)
        except (TimeoutError, Withdrawn) as error:
            if isinstance(error, TimeoutError) and not scope.expired():
                raise
            turn.session.turn = None
            await turn.close_calls()
            return "cancelled"
        finally:
            turn.session.turn = None

    async def _name(self, turn: Turn, text: str) -> None:
        session = turn.session
        if session.title is None and text.strip():
            session.title = text.strip().splitlines()[0][:80]
            await turn.update("session_info_update", title=session.title, updatedAt=session.updated_at)

    async def _tell_commands(self, session: Session) -> None:
        update = {"sessionUpdate": "available_commands_update", "availableCommands": script.commands()}
        await self._connection.notify("session/update", {"sessionId": session.id, "update": update})

    async def _tell_settings(self, session: Session, *, mode: bool) -> None:
        self._archive.keep(session)
        updates: list[Object] = [{"sessionUpdate": "config_option_update", "configOptions": session.options()}]
        if mode:
            updates.append({"sessionUpdate": "current_mode_update", "currentModeId": session.mode})
        for update in updates:
            await self._connection.notify("session/update", {"sessionId": session.id, "update": update})


def _cwd(params: Object) -> str:
    """The session's folder. Raises `RpcError` unless it is absolute and there, and mcpServers is a list."""
    cwd = params.get("cwd")
    if not isinstance(cwd, str) or not os.path.isabs(cwd) or not os.path.isdir(cwd):
        raise RpcError(INVALID_PARAMS, "cwd must be the absolute path of a folder", cwd=cwd)
    if not isinstance(params.get("mcpServers", []), list):
        raise RpcError(INVALID_PARAMS, "mcpServers must be a list")
    return cwd


def _settings(session: Session) -> Object:
    return {"modes": session.modes(), "configOptions": session.options()}


async def serve() -> None:
    """Serve the client on stdin and stdout until it closes stdin."""
    connection = await connect()
    agent = Agent(connection, Archive(), pause_s=float(os.environ.get("KANDEV_DEMO_PAUSE_S", "0")))
    await connection.serve(agent.on_request, agent.on_notification)


def main() -> None:
    try:
        asyncio.run(serve())
    except* (KeyboardInterrupt, BrokenPipeError, ConnectionResetError):
        pass
