"""An `Authenticator` in front of the selected one: it also knows the tokens of agents."""

from __future__ import annotations

from kandev_host.interfaces import Authenticator, Credentials, Principal
from kandev_host.services.agent_tokens import AGENT, AgentTokens


class WithAgents:
    def __init__(self, authenticator: Authenticator, tokens: AgentTokens) -> None:
        self._authenticator = authenticator
        self._tokens = tokens

    @property
    def remote(self) -> bool:
        return self._authenticator.remote

    async def authenticate(self, credentials: Credentials) -> Principal | None:
        agent = self._tokens.whose(credentials.token)
        return agent if agent is not None else await self._authenticator.authenticate(credentials)

    def holds(self, principal: Principal) -> bool:
        if principal.credential.startswith(AGENT):
            return self._tokens.holds(principal)
        return self._authenticator.holds(principal)

    async def revoke(self, principal: Principal) -> bool:
        if not principal.credential.startswith(AGENT):
            return await self._authenticator.revoke(principal)
        self._tokens.revoke(principal.id)
        return True
