"""Tokens for agents: each is good for one agent, for its own task, until the agent ends.

No jail is given one unless a plugin asks for it (`LaunchExtras.token_variable`). They are held in memory alone: a host
that starts knows none, so an agent that outlived its host has none any more.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field

from kandev_host.interfaces import Principal
from kandev_host.models import AgentInstance
from kandev_host.secrets import forget, register

AGENT = "agent:"
TOKEN_BYTES = 32
# What it may do with them is on the list in `gateway.access`, and that only with its own task.
SCOPES = frozenset({"agents:read", "host:read", "tasks:read", "tasks:write", "workspaces:read"})


@dataclass(frozen=True, slots=True)
class _Minted:
    token: str = field(repr=False)
    principal: Principal


class AgentTokens:
    def __init__(self) -> None:
        self._by_agent: dict[str, _Minted] = {}
        self._by_digest: dict[bytes, _Minted] = {}

    def mint(self, agent: AgentInstance) -> str:
        """A token for this agent; one that it had is good no more."""
        self.revoke(agent.id)
        token = secrets.token_urlsafe(TOKEN_BYTES)
        register(token, "the token of an agent")
        principal = Principal(
            agent.id, "agent", agent.agent_type, SCOPES, credential=f"{AGENT}{agent.id}", task_id=agent.task_id
        )
        self._by_agent[agent.id] = self._by_digest[_digest(token)] = _Minted(token, principal)
        return token

    def whose(self, token: str) -> Principal | None:
        # Whoever guesses knows no digests, so looking one up tells nothing about the others.
        found = self._by_digest.get(_digest(token))
        return None if found is None else found.principal

    def holds(self, principal: Principal) -> bool:
        found = self._by_agent.get(principal.id)
        return found is not None and found.principal is principal

    def revoke(self, agent_id: str) -> None:
        """Its agent has ended. Nothing if it has none."""
        minted = self._by_agent.pop(agent_id, None)
        if minted is not None:
            del self._by_digest[_digest(minted.token)]
            forget(minted.token)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
