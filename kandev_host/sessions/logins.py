"""The log-in of an agent: whether it wants one, what a person is to do about it, and doing it.

ACP: authenticate, logout, authMethods; -32000 is "authentication required". A method of kind `agent` is called; one of
kind `terminal` is the agent's own command, for a person in a terminal, and `env_var` (an older kind) names variables.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Any, Literal

import anyio

from kandev_host.errors import Conflict, NotFound, Unavailable
from kandev_host.interfaces import AgentType
from kandev_host.printable import printable
from kandev_host.protocol.acp import Json
from kandev_host.protocol.actions.sessions import AuthMethod
from kandev_host.protocol.jsonrpc import RpcError
from kandev_host.sessions.failures import NeedsLogin, classify, describe
from kandev_host.sessions.lazy_event import LazyEvent
from kandev_host.sessions.peer import Peer
from kandev_host.sessions.stage import SessionState, Stage

METHODS = 20
TEXT_CHARS = 500
_KEYS = re.compile(r"KEY|TOKEN|AUTH|SECRET|CREDENTIAL", re.I)


def auth_methods(agent_type: AgentType, agent_id: str, listed: Sequence[Json] | None) -> list[AuthMethod]:
    """The log-ins that an agent lists, with how a person uses each. Those without an id cannot be named."""
    methods = [method for method in listed or () if isinstance(method.get("id"), str) and method["id"]]
    return [
        AuthMethod(
            id=method["id"],
            name=_text(method.get("name")) or method["id"],
            description=_text(method.get("description")),
            kind=(kind := _kind(method)),
            fix=_fix(agent_type, agent_id, method, kind),
        )
        for method in methods[:METHODS]
    ]


def login_fix(agent_type: AgentType, agent_id: str, methods: Sequence[AuthMethod], *, launch: str | None = None) -> str:
    """What a person is to do about a log-in that is missing, in one sentence; what nobody has to be asked for first.

    `launch` is the command that starts an agent to log in to, where this one does not wait for it.
    """
    named = [*agent_type.env_required, *agent_type.env_optional]
    keys = [name for name in named if _KEYS.search(name)] or list(agent_type.env_required)
    ways = [f"start the host with {' or '.join(keys)} set, and launch the agent again"] if keys else []
    ways += [method.fix for method in methods if method.kind != "agent"]
    if agent_type.login_files and not any(method.kind == "terminal" for method in methods):
        ways.append(f"log in as yourself, {_shared(agent_type)}")
    own = [method.id for method in methods if method.kind == "agent"]
    if own and launch is None:
        more = f", where METHOD is one of {', '.join(map(_quoted, own))}" if len(own) > 1 else ""
        ways.append(_called(agent_id, "METHOD" if more else own[0]) + more)
    elif own:
        ways.append(f"run `{launch}`, then `kandev-host agent login` with that agent, and end it")
    if not ways:
        ways.append("log in as the agent's makers say, and launch it again")
    return f"To log in: {'; or '.join(dict.fromkeys(ways))}"


class Login:
    """The log-in of one session.

    `holds`: its last prompt failed for the want of one, so that what waits behind it is kept until somebody has logged
    in, or prompts again.
    """

    def __init__(self, stage: Stage, state: SessionState) -> None:
        self._stage = stage
        self._state = state
        self._peer: Peer | None = None
        self._awaited: anyio.Event | None = None  # while the opening waits; set: somebody has logged in
        self.holds = False

    def begin(self, peer: Peer) -> None:
        """The agent is there, and can be asked."""
        self._peer = peer

    @property
    def listed(self) -> list[Json] | None:
        """The methods as the agent sent them."""
        initialized = self._state.initialized
        return None if initialized is None else initialized.auth_methods

    @property
    def methods(self) -> list[AuthMethod]:
        return auth_methods(self._stage.agent_type, self._stage.agent.id, self.listed)

    @property
    def needed(self) -> str | None:
        """What to do, while a log-in is needed."""
        return self._fix() if self.wanted else None

    @property
    def wanted(self) -> bool:
        """Is a log-in needed now?"""
        return self.holds or self._awaited is not None

    def refused(self, error: RpcError) -> NeedsLogin | None:
        """The same error as one that says what to do, if it is the want of a log-in."""
        if classify(error).failure != "login":
            return None
        return NeedsLogin(f"The agent needs a log-in: {describe(error)}", self._fix())

    async def wait(self, error: RpcError) -> None:
        """While the session is opened: returns when somebody has logged in.

        Raises `NeedsLogin` at once in a run of the queue, which has nobody to wait for, else after `login_timeout_s`;
        and `error` itself if it is no want of a log-in.
        """
        stage = self._stage
        needs = self.refused(error)
        if needs is None:
            raise error
        if stage.agent.orchestrated or self._peer is None:
            raise needs from error
        self._awaited = anyio.Event()
        try:
            await self.tell(needs)
            with anyio.move_on_after(stage.settings.login_timeout_s) as waiting:
                await self._until_done(self._awaited, self._peer)
            if waiting.cancelled_caught:
                raise needs from error
        finally:
            self._awaited = None
        await stage.set_activity("starting")

    async def tell(self, needs: NeedsLogin) -> None:
        """What the agent waits for, to whoever follows it."""
        await self._stage.set_activity("needs_login")
        told = self._state.voice.error("NEEDS_LOGIN", needs.message, None, self._state.acp_session_id)
        await self._stage.journal.post(told)

    async def authenticate(self, method_id: str) -> None:
        """Log in by a method of the agent's own.

        Raises `NotFound`, `Conflict` for a method that is none to be called, `Unavailable` if the agent refuses.
        """
        methods = self.methods
        method = next((each for each in methods if each.id == method_id), None)
        if method is None and methods:  # some agents list none, and have one
            raise NotFound("auth_method", method_id, known=[each.id for each in methods])
        if method is not None and method.kind != "agent":
            place = "a terminal" if method.kind == "terminal" else "the environment of the host"
            raise Conflict(f"The log-in {method_id!r} is one for {place}", state=method.kind, fix=method.fix)
        await self._call("authenticate", {"methodId": method_id}, "log-in")
        if self._awaited is not None:
            self._awaited.set()
        elif self.holds:
            self.holds = False
            if self._state.watch is None:
                await self._stage.set_activity("idle")
            self._stage.wake()

    async def logout(self) -> None:
        """Raises `Conflict` if the agent does not offer it, `Unavailable` if it refuses."""
        initialized = self._state.initialized
        offered = (initialized.agent_capabilities if initialized is not None else None) or {}
        auth = offered.get("auth")
        if not isinstance(auth, dict) or auth.get("logout") is None:
            raise Conflict("The agent offers no log-out", state="not offered")
        await self._call("logout", {}, "log-out")

    async def _call(self, method: str, params: Any, name: str) -> None:
        if self._peer is None or (self._state.initialized is None and self._awaited is None):
            raise Conflict("The agent is still starting", state="starting")
        try:
            await self._peer.call(method, params, self._stage.settings.login_timeout_s)
        except RpcError as error:
            raise Unavailable(f"The agent refused the {name}: {describe(error)}") from error

    async def _until_done(self, done: anyio.Event, peer: Peer) -> None:
        """Or until the agent is gone: whoever calls it next finds out."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_set_after, peer.ended, done)
            await done.wait()
            tasks.cancel_scope.cancel()

    def _fix(self) -> str:
        agent, agent_type = self._stage.agent, self._stage.agent_type
        launch = f"kandev-host agent launch {agent.task_id} --agent {agent_type.name}" if agent.orchestrated else None
        return login_fix(agent_type, agent.id, self.methods, launch=launch)


async def _set_after(ended: LazyEvent, done: anyio.Event) -> None:
    await ended.wait()
    done.set()


def _kind(method: Json) -> Literal["agent", "terminal", "env_var"]:
    """By its `type`, and for older ones by what it has. What its `_meta` says is not trusted."""
    kind = method.get("type")
    if kind in ("terminal", "env_var"):
        return "terminal" if kind == "terminal" else "env_var"
    return "env_var" if kind is None and (method.get("vars") or method.get("varName")) else "agent"


def _fix(agent_type: AgentType, agent_id: str, method: Json, kind: str) -> str:
    if kind == "agent":
        return _called(agent_id, method["id"])
    if kind == "env_var":
        names = [_variable(each) for each in _list(method.get("vars"))] or [_text(method.get("varName"))]
        known = " and ".join(name for name in names if name) or "the variable that it names"
        return f"start the host with {known} set, and launch the agent again"
    args = [each for each in _list(method.get("args")) if isinstance(each, str)]
    command = " ".join(_quoted(word) for word in (*agent_type.command, *args))
    # Names alone: an agent that chooses values could have a person's shell load what it likes.
    env = [name for each in _list(method.get("env")) if (name := _variable(each))]
    with_env = f" with {' and '.join(env)} set as it lists them" if env else ""
    return f"run `{command}`{with_env} in a terminal, {_shared(agent_type)}"


def _called(agent_id: str, method_id: str) -> str:
    return f"run `kandev-host agent login {agent_id} {_quoted(method_id)}`"


def _shared(agent_type: AgentType) -> str:
    """What makes the log-in of a person that of the agent in its jail."""
    files = ", ".join(f'"{path}"' for path in agent_type.login_files)
    if not files or set(agent_type.login_files) <= set(agent_type.share_login):
        return "and launch the agent again"
    return f"set [agents.{agent_type.name}] share_login = [{files}] in the settings, and launch the agent again"


def _variable(item: Any) -> str | None:
    return _text(item.get("name")) if isinstance(item, dict) else _text(item)


def _list(value: Any) -> list[Any]:
    """Older agents send their variables as a table."""
    return list(value)[:METHODS] if isinstance(value, list | dict) else []


def _text(value: Any) -> str | None:
    return printable(value[:TEXT_CHARS]) if isinstance(value, str) and value.strip() else None


def _quoted(word: str) -> str:
    return printable(shlex.quote(word[:TEXT_CHARS]))
