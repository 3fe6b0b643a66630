"""Sessions of agents: what can be seen and set in them, and the log-in of their agents."""

from __future__ import annotations

from kandev_host.errors import Conflict
from kandev_host.interfaces import AgentType, Principal, Store
from kandev_host.models import AgentInstance, Session
from kandev_host.protocol.actions.agents import AgentReply
from kandev_host.protocol.actions.sessions import (
    AgentAuthenticate,
    AgentLogout,
    AgentSession,
    AgentSessionReply,
    AgentSetOption,
    AuthMethod,
    OptionsReply,
    Resumable,
)
from kandev_host.services.agent_types import AgentTypeService
from kandev_host.services.agents import START_WAIT_S
from kandev_host.services.launcher import Launcher
from kandev_host.services.reach import Reach
from kandev_host.services.rows import need
from kandev_host.services.supervision import LiveAgent, Supervisor
from kandev_host.services.usage import UsageService
from kandev_host.sessions.logins import auth_methods
from kandev_host.sessions.opening import ways_to_resume
from kandev_host.sessions.options import options_of

REASONS = {
    "resume": "The agent offers session/resume, which repeats nothing",
    "load": "The agent offers session/load, which repeats what was said",
}
NO_WAY = "The agent offers no way to open it again, and is told what was said in it"


class SessionService:
    def __init__(
        self,
        store: Store,
        supervisor: Supervisor,
        *,
        types: AgentTypeService,
        launcher: Launcher,
        reach: Reach,
        usage: UsageService,
    ) -> None:
        self._store = store
        self._supervisor = supervisor
        self._types = types
        self._launcher = launcher
        self._reach = reach
        self._usage = usage

    async def session(self, principal: Principal, request: AgentSession) -> AgentSessionReply:
        """What is known of an agent's session, of a live one as it is now."""
        del principal
        agent = await need(self._store, AgentInstance, request.agent_id)
        live = self._supervisor.live(agent.id)
        session = live.session if live is not None else None
        if session is None and agent.session_id is not None:
            session = await self._store.get(Session, agent.session_id)
        login = agent.error_message if agent.failure == "login" else None
        return AgentSessionReply(
            session=session,
            options=options_of(session),
            commands=(session.commands if session is not None else None) or [],
            capabilities=session.agent_capabilities if session is not None else {},
            auth_methods=self._methods(agent, session) if live is None else live.login.methods,
            login=login if live is None else live.login.needed,
            usage=await self._usage.of_agent(agent.id),
            resumable=None if session is None else resumable(session),
        )

    async def set_option(self, principal: Principal, request: AgentSetOption) -> OptionsReply:
        """All options, one of them set. Raises `NotFound`, `ValidationFailed`, `Conflict`, `Unavailable`."""
        del principal
        live = await self._live(request.agent_id)
        return OptionsReply(options=await live.steering.set_option(request.option_id, request.value))

    async def authenticate(self, principal: Principal, request: AgentAuthenticate) -> AgentReply:
        """Log in by a method of the agent's own. Raises `NotFound`, `Conflict`, `TimedOut`, `Unavailable`."""
        del principal
        live = await self._live(request.agent_id)
        await live.login.authenticate(request.method_id)
        return AgentReply(agent=live.agent)

    async def logout(self, principal: Principal, request: AgentLogout) -> AgentReply:
        """Raises `Conflict` if the agent offers no log-out, `TimedOut`, `Unavailable`."""
        del principal
        live = await self._live(request.agent_id)
        await live.login.logout()
        return AgentReply(agent=live.agent)

    async def _live(self, agent_id: str) -> LiveAgent:
        agent = await need(self._store, AgentInstance, agent_id)
        self._reach.check(agent.id)
        await self._launcher.settled(agent.id, START_WAIT_S)
        live = self._supervisor.live(agent.id)
        if live is None or live.ending:
            agent = await need(self._store, AgentInstance, agent_id)
            raise Conflict("The agent does not run any more", state=agent.status)
        return live

    def _methods(self, agent: AgentInstance, session: Session | None) -> list[AuthMethod]:
        known = self._types.get(agent.agent_type) or AgentType(name=agent.agent_type, command=(agent.agent_type,))
        return auth_methods(known, agent.id, None if session is None else session.auth_methods)


def resumable(session: Session) -> Resumable:
    """How another run would go on with a session, as far as its agent says."""
    for way in ways_to_resume(session.agent_capabilities):
        return Resumable(how=way, reason=REASONS[way])
    return Resumable(how="transcript", reason=NO_WAY)
