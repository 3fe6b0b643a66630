"""agent.session, agent.set_option, agent.authenticate and agent.logout"""

from __future__ import annotations

from typing import Any, Literal

from kandev_host.models import Session
from kandev_host.protocol.actions.agents import UsageTotals
from kandev_host.protocol.actions.fields import Id, OptionId, OptionValue, Request, Response


class AgentSession(Request, frozen=True, kw_only=True):
    agent_id: Id


class AgentSetOption(Request, frozen=True, kw_only=True):
    """`option_id` is an option's id or its category, as in model. A boolean one takes true and false, also as text."""

    agent_id: Id
    option_id: OptionId
    value: OptionValue


class AgentAuthenticate(Request, frozen=True, kw_only=True):
    """`method_id` is one of the agent's own log-ins, of kind agent. The others are for a terminal, or variables."""

    agent_id: Id
    method_id: OptionId


class AgentLogout(Request, frozen=True, kw_only=True):
    agent_id: Id


class Choice(Response, frozen=True, kw_only=True):
    """A value that an option may have."""

    value: str
    name: str
    description: str | None = None
    group: str | None = None


class Option(Response, frozen=True, kw_only=True):
    """What can be set in a session, modes among them. Categories are the agent's: mode, model and others."""

    id: str
    name: str
    description: str | None = None
    category: str | None = None
    type: Literal["select", "boolean"]
    current_value: str | bool | None
    choices: list[Choice]


class AuthMethod(Response, frozen=True, kw_only=True):
    """A log-in that the agent lists; `fix` is how a person uses it."""

    id: str
    name: str
    description: str | None = None
    kind: Literal["agent", "terminal", "env_var"]
    fix: str


class Resumable(Response, frozen=True, kw_only=True):
    """How another run would go on with this session."""

    how: Literal["resume", "load", "transcript"]
    reason: str


class AgentSessionReply(Response, frozen=True, kw_only=True):
    """`session` is null until it is open. `login` says what to do while the agent needs a log-in."""

    session: Session | None
    options: list[Option]
    commands: list[dict[str, Any]]
    capabilities: dict[str, Any]
    auth_methods: list[AuthMethod]
    login: str | None
    usage: UsageTotals
    resumable: Resumable | None


class OptionsReply(Response, frozen=True, kw_only=True):
    options: list[Option]
