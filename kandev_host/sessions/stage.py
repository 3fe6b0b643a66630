"""What a session of the host stands on, and what its parts know in common."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from kandev_host.interfaces import AgentType, Change, Process
from kandev_host.journal import Journal
from kandev_host.models import Activity, AgentInstance, Elicitation, PermissionRequest, Session, Task, Turn
from kandev_host.protocol import acp
from kandev_host.sessions.audit import Looks
from kandev_host.sessions.logs import AgentLogs
from kandev_host.sessions.permissions import PermissionBroker
from kandev_host.sessions.policy import Situation
from kandev_host.sessions.spans import TurnSpans
from kandev_host.sessions.turns import Watch
from kandev_host.sessions.updates import ToolState, Voice
from kandev_host.sessions.usage import Priced, Standing, UsageBook
from kandev_host.sessions.wire import Wire, WireState
from kandev_host.settings import SessionSettings


class Resume(msgspec.Struct, frozen=True, kw_only=True):
    """The session that a run goes on with.

    `transcript` tells what was said in it, for agents that cannot open it again; `lead` is put before the first prompt
    of those that can, and `standing` is what it had cost by then.
    """

    session: Session
    transcript: str
    lead: str | None = None
    standing: Standing = Standing()


Question = PermissionRequest | Elicitation


class Left(msgspec.Struct, frozen=True, kw_only=True):
    """A run whose host died, and whose process goes on: that, its `session`, and the `turn` that runs; or the one that
    `ended` last, if what follows from its end may not be recorded yet.

    `wire` is how far its pipes were recorded, and `questions` are those among its open requests, by the id of their
    row. `standing` is what its session had cost by then, and `resumed` the same of the run that this one went on with.
    """

    process: Process
    session: Session
    wire: WireState
    turn: Turn | None = None
    ended: Turn | None = None
    questions: Mapping[str, Question] = msgspec.field(default_factory=dict)
    standing: Standing = Standing()
    resumed: Standing | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Equipment:
    """What a session is opened with beside its workspace.

    `mcp_servers` are as ACP has them, with their secrets; `directories` are paths as the agent sees them. `handed` are
    the secrets that it was given, and `release` ends what it is served of them, once it has ended.
    """

    mcp_servers: tuple[acp.Json, ...] = field(default=(), repr=False)
    directories: tuple[str, ...] = ()
    handed: frozenset[str] = field(default=frozenset(), repr=False)
    release: Callable[[], None] = lambda: None

    @property
    def secrets(self) -> frozenset[str]:
        """The values that it is handed, those that its MCP servers are given, and the words of these."""
        pairs = (pair for server in self.mcp_servers for pair in (*server.get("env", ()), *server.get("headers", ())))
        values = [str(pair["value"]) for pair in pairs]
        return frozenset([*self.handed, *values, *(word for value in values for word in value.split())])


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """What a session of the host stands on.

    `set_activity` is told when the agent waits for a person, and `wake` that it may go on. `looks` tells which files
    a command changed, and `wire` how far its pipes are recorded.
    """

    agent: AgentInstance
    current: Callable[[], AgentInstance]
    task: Task
    agent_type: AgentType
    journal: Journal
    broker: PermissionBroker
    settings: SessionSettings
    logs: AgentLogs
    situation: Situation
    set_activity: Callable[[Activity], Awaitable[None]]
    resume: Resume | None = None
    equipment: Equipment = Equipment()
    priced: Priced | None = None
    wake: Callable[[], None] = lambda: None
    looks: Looks | None = None
    wire: Wire


class SessionState(msgspec.Struct):
    """What opening, prompting and updates change together.

    `row` is None until the session is open. `watch` sees the turn that runs, and `last_turn` is the one before, once it
    is closed; `past_tools` are its id and its calls. `spans` are those of the turn, where somebody takes them.
    `replaying`: the agent repeats what was said before, and nobody is to be told that twice. `offers` is what of files
    and terminals the host serves to it. `mode_told` is told the mode whenever the agent tells it, and answers what is
    to be recorded.
    """

    voice: Voice
    usage: UsageBook
    row: Session | None = None
    initialized: acp.InitializeResult | None = None
    watch: Watch | None = None
    last_turn: Turn | None = None
    tools: dict[str, ToolState] = msgspec.field(default_factory=dict)
    past_tools: tuple[str | None, frozenset[str]] = (None, frozenset())
    new_effects: list[tuple[str, dict[str, Any]]] = msgspec.field(default_factory=list)
    asking: int = 0
    replaying: bool = False
    offers: frozenset[str] = frozenset()
    spans: TurnSpans | None = None
    mode_told: Callable[[str], Sequence[Change]] = lambda _mode: ()

    @property
    def acp_session_id(self) -> str | None:
        """The agent's own name of the session."""
        return self.row.acp_session_id if self.row is not None else None
