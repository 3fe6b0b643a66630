"""Opening a session: initialize, authenticate, then the earlier session again or a new one, its options and its mode.

ACP: initialize, authenticate, session/new, session/resume, session/load. See `logins` for what is waited for in between
and `steering` for options and mode.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from msgspec import Raw

from kandev_host import tracing
from kandev_host.errors import AgentError, TimedOut
from kandev_host.interfaces import Put
from kandev_host.models import Session
from kandev_host.protocol import acp
from kandev_host.protocol.acp import Json
from kandev_host.protocol.jsonrpc import RpcError
from kandev_host.sessions.answers import check_auth, check_version, read
from kandev_host.sessions.equipment import left_out, opening_fields
from kandev_host.sessions.failures import AgentFailed, NeedsLogin, classify, describe
from kandev_host.sessions.intake import Intake
from kandev_host.sessions.logins import Login
from kandev_host.sessions.peer import Answer, Peer
from kandev_host.sessions.stage import Resume, SessionState, Stage
from kandev_host.sessions.steering import Steering
from kandev_host.version import __version__

Way = Literal["resume", "load"]
NO_MEMORY = "The agent cannot open its earlier session again ({why}); it is given what was said there"


class Opening:
    """`context` is what the agent is to be told before its first prompt, if there is anything."""

    def __init__(self, stage: Stage, state: SessionState, intake: Intake, login: Login, steering: Steering) -> None:
        self._stage = stage
        self._state = state
        self._intake = intake
        self._login = login
        self._steering = steering
        self._cwd = ""
        self.context: Json | None = None

    async def open(self, peer: Peer, cwd: str) -> Session:
        """Raises `KandevError`."""
        self._cwd = cwd
        self._login.begin(peer)
        settings, state = self._stage.settings, self._state
        try:
            offers = acp.client_capabilities(files="files" in state.offers, terminals="terminal" in state.offers)
            offered = acp.initialize_params(__version__, offers)
            raw = await self._call(peer, "initialize", offered, settings.initialize_timeout_s)
            state.initialized = check_version(read(raw, acp.InitializeResult, "initialize"))
            await self._authenticate(peer, state.initialized)
            for told in left_out(self._stage.equipment, state.initialized):
                await self._stage.journal.post(state.voice.error("MCP_NOT_OFFERED", told, None, None))
            if self._stage.resume is None or not await self._open_again(peer, self._stage.resume):
                params = {"cwd": cwd, **opening_fields(self._stage.equipment, state.initialized), **tracing.meta()}
                await self._call(peer, "session/new", params, settings.request_timeout_s, self._on_new)
            if state.row is None:
                raise AgentError("The agent answered session/new without a session")
            await self._steering.begin(peer)
        except RpcError as error:
            told = f"The agent refused to open a session: {describe(error)}"
            raise self._login.refused(error) or AgentFailed(told, classify(error, "config")) from error
        await self._stage.journal.record(Put(state.row))
        await self._intake.post_early()
        return state.row

    async def _authenticate(self, peer: Peer, result: acp.InitializeResult) -> None:
        """By the method of the type, if it has one, unless somebody has to log in, and then did."""
        method_id = self._stage.agent_type.authenticate
        if method_id is None:
            return
        check_auth(result, method_id)
        try:
            timeout_s = self._stage.settings.request_timeout_s
            await peer.call("authenticate", {"methodId": method_id}, timeout_s, waits=self._asks)
        except RpcError as error:
            await self._login.wait(error)

    async def _call(
        self, peer: Peer, method: str, params: Any, timeout_s: float, settle: Callable[[Answer], None] | None = None
    ) -> Raw:
        """Again when it was refused for want of a log-in, and somebody has logged in meanwhile.

        The time in which the agent waits for a person is not held against it.
        """
        while True:
            try:
                return await peer.call(method, params, timeout_s, settle, waits=self._asks)
            except RpcError as error:
                await self._login.wait(error)

    def _asks(self) -> bool:
        """Does the agent wait for a person?"""
        return self._state.asking > 0

    # --- the earlier session ----------------------------------------------------------------------------------------

    async def _open_again(self, peer: Peer, resume: Resume) -> bool:
        """By session/resume, which repeats nothing, else by session/load. False: a new session is to be opened."""
        initialized = self._state.initialized
        ways = ways_to_resume(None if initialized is None else initialized.agent_capabilities)
        why = "it offers no way to" if not ways else ""
        for way in ways:
            try:
                await self._try(peer, way, resume)
                self.context = None if resume.lead is None else acp.text_block(resume.lead)
                return True
            except (RpcError, AgentError, TimedOut) as error:
                if isinstance(error, NeedsLogin) or peer.ended.is_set():
                    raise
                why = describe(error) if isinstance(error, RpcError) else error.message
                self._stage.logs.note("warning", f"session/{way} failed: {why}")
            finally:
                self._state.replaying = False
        self.context = self._context(resume)
        if self.context is None:
            return False
        told = NO_MEMORY.format(why=why)
        await self._stage.journal.post(self._state.voice.error("RESUMED_WITHOUT_MEMORY", told, None, None))
        return False

    async def _try(self, peer: Peer, way: Way, resume: Resume) -> None:
        session_id = resume.session.acp_session_id
        self._state.replaying = True

        def on_answer(answer: Answer) -> None:
            """Inline: what comes behind the answer is new."""
            if not isinstance(answer, Exception):
                self._opened(session_id, answer, way)

        equipment = opening_fields(self._stage.equipment, self._state.initialized)
        params = {"sessionId": session_id, "cwd": self._cwd, **equipment, **tracing.meta()}
        raw = await self._call(peer, f"session/{way}", params, self._stage.settings.request_timeout_s, on_answer)
        if self._state.row is None:
            read(raw, acp.OpenedResult, f"session/{way}")
            raise AgentError(f"The agent's answer to session/{way} cannot be used")

    def _context(self, resume: Resume) -> Json | None:
        """As an embedded resource where the agent takes those, else as text."""
        if not resume.transcript:
            return None
        initialized = self._state.initialized
        capabilities = (initialized.agent_capabilities if initialized is not None else None) or {}
        prompts = capabilities.get("promptCapabilities")
        if isinstance(prompts, dict) and prompts.get("embeddedContext"):
            uri = f"kandev://task/{self._stage.task.id}/transcript"
            resource = {"uri": uri, "mimeType": "text/markdown", "text": resume.transcript}
            return {"type": "resource", "resource": resource}
        return acp.text_block(resume.transcript)

    # --- what the answers say ---------------------------------------------------------------------------------------

    def _on_new(self, answer: Answer) -> None:
        """Inline, so that the updates right behind the answer already find the session."""
        if isinstance(answer, Exception):
            return
        try:
            session_id = read(answer, acp.NewSessionResult, "session/new").session_id
        except AgentError:
            return  # `open` says so
        self._opened(session_id, answer, "transcript" if self.context is not None else "new")

    def _opened(self, session_id: str, answer: Raw, opened: Literal["new", "resume", "load", "transcript"]) -> None:
        initialized = self._state.initialized
        if initialized is None:
            return
        try:
            # Some agents answer session/load with null.
            result = read(answer, acp.OpenedResult | None, "the opening")  # type: ignore[arg-type]
        except AgentError:
            return
        self._state.replaying = False
        if self._stage.resume is not None and opened in {"resume", "load"}:
            self._state.usage.resume(self._stage.resume.standing)
        earlier = self._stage.resume.session if self._stage.resume is not None else None
        self._state.row = Session(
            agent_id=self._stage.agent.id,
            task_id=self._stage.task.id,
            acp_session_id=session_id,
            cwd=self._cwd,
            protocol_version=initialized.protocol_version,
            agent_info=initialized.agent_info,
            agent_capabilities=initialized.agent_capabilities or {},
            modes=result.modes if result is not None else None,
            config_options=result.config_options if result is not None else None,
            auth_methods=self._login.listed,
            title=earlier.title if earlier is not None and opened in ("resume", "load") else None,
            opened=opened,
        )


def ways_to_resume(capabilities: Json | None) -> list[Way]:
    """How an agent with these capabilities opens an earlier session, best first; none: it cannot."""
    offered = capabilities or {}
    sessions = offered.get("sessionCapabilities")
    ways: list[Way] = []
    if isinstance(sessions, dict) and sessions.get("resume") is not None:
        ways.append("resume")
    if offered.get("loadSession") is True:
        ways.append("load")
    return ways
