"""Who acts, what they may ask for, and what is measured."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Literal, Protocol, TypeVar, runtime_checkable

import msgspec

from kandev_host.interfaces.processes import Mount
from kandev_host.metrics import Sample
from kandev_host.tracing import Tracer

Q = TypeVar("Q")


class Principal(msgspec.Struct, frozen=True):
    """Who acts: `kind` is user, agent, service or host. Scopes are like `tasks:write`; `*` holds all.

    Of one that logged in, `credential` names what it did that with, for revocation (it is no secret, and does not begin
    with `session:` or `agent:`), and `expires_at` is when that ends by itself, None for never. The host holds it to
    both. An agent is held to `task_id`, whatever its scopes; without one it may nothing.
    """

    id: str
    kind: Literal["user", "agent", "service", "host"]
    name: str
    scopes: frozenset[str] = frozenset()
    expires_at: datetime | None = None
    credential: str = ""
    task_id: str | None = None

    def may(self, scope: str) -> bool:
        return "*" in self.scopes or scope in self.scopes


@dataclass(frozen=True, slots=True)
class Credentials:
    """What somebody shows to log in, and the address that it came from (empty on a Unix socket)."""

    token: str = field(repr=False)
    address: str = ""


class Authenticator(Protocol):
    """Turns credentials into a Principal, and says whether they still hold. Compares in constant time.

    Several sockets and requests may ask at once. Failures are counted and delayed by the host, right ones never are.
    """

    @property
    def remote(self) -> bool:
        """May it guard an address that other machines reach?"""
        ...

    async def authenticate(self, credentials: Credentials) -> Principal | None:
        """Whose they are, or None."""
        ...

    def holds(self, principal: Principal) -> bool:
        """Is its credential unrevoked? Asked for each request, and four times a second for each socket; must not wait.

        Sockets of those that hold no longer are closed with 4401.
        """
        ...

    async def revoke(self, principal: Principal) -> bool:
        """End its credential (`auth.logout`); False for one that ends in another way."""
        ...


class Route(msgspec.Struct, frozen=True):
    """One HTTP route. The guard stands before it as before every other; its principal needs `scope`.

    `handler` is aiohttp's. `authenticator` knows tokens that are good for this route alone.
    """

    method: str
    path: str
    handler: Callable[..., Any]
    scope: str
    authenticator: Authenticator | None = None


class Telemetry(Protocol):
    """Where measurements go. Must neither block nor raise.

    `kandev_host.metrics` has every name with its kind and labels, which are named in that order; none holds an id.
    """

    def count(self, name: str, value: float, labels: Mapping[str, str]) -> None: ...

    def observe(self, name: str, seconds: float, labels: Mapping[str, str]) -> None: ...


class Gauges(Protocol):
    """What stands at this moment."""

    async def refresh(self) -> None:
        """Look anew at what is not at hand, unless that was done just now. Takes a second or two at most."""
        ...

    def samples(self) -> Iterable[Sample]:
        """Every gauge: its name, labels and value. From memory, without a wait."""
        ...


@runtime_checkable
class Watching(Protocol):
    """A Telemetry that also tells gauges: it is given them once the host stands, and reads them when it likes."""

    def watch(self, gauges: Gauges) -> None: ...


@runtime_checkable
class Tracing(Protocol):
    """A Telemetry that also takes spans."""

    @property
    def tracer(self) -> Tracer | None:
        """None if it is not to take any after all."""
        ...


class LogLine(msgspec.Struct, frozen=True):
    """A line of the host's log as it may leave the host: bounded, and without tokens and known secrets.

    `at` is in seconds since 1970, `level` as in `logging`; `ids` are those of request, task, agent, session and span.
    Of an exception there is its class and the traceback.
    """

    at: float
    level: int
    logger: str
    message: str
    ids: Mapping[str, str]
    exception: str = ""
    traceback: str = ""


@runtime_checkable
class Logging(Protocol):
    """A Telemetry that also takes the host's log. Must neither block nor raise; threads call it."""

    @property
    def takes_log(self) -> bool: ...

    def log(self, line: LogLine) -> None: ...


class Call(msgspec.Struct, frozen=True):
    """What a handler knows of the request that it serves. `subscribe` joins the caller's socket to a topic."""

    principal: Principal
    request_id: str
    subscribe: Callable[[str], None]


def nothing(_response: Any) -> tuple[str, ...]:
    """No topics."""
    return ()


class Action(msgspec.Struct, Generic[Q], frozen=True):
    """One WebSocket action. A plain function as handler is answered at once; a coroutine gets a task of its own.

    A scope that ends in `:read` says that the action changes nothing; an empty one, that everybody may. `keeps` is
    what is remembered of one that changes something, so that it has one effect when it is sent again with the same id:
    its response; for a response that holds a secret (a new key), only the `effect`; or `nothing` (a log-in). The
    caller's socket follows the topics that `follows` finds in a response of such an action.

    `owned`: it is for those who own the boards of all that its request names (`task_id`, `agent_id` and others at its
    top; one that names nothing, or what the host does not know, only for holders of `boards:all`). None: as whatever
    has a scope and changes something.
    """

    name: str
    request: type[Q]
    handler: Callable[[Call, Q], Any | Awaitable[Any]]
    scope: str
    summary: str = ""
    keeps: Literal["response", "effect", "nothing"] = "response"
    follows: Callable[[Any], tuple[str, ...]] = nothing
    owned: bool | None = None

    @property
    def for_owners(self) -> bool:
        """Must whoever asks own what the request names?"""
        return (bool(self.scope) and not self.scope.endswith(":read")) if self.owned is None else self.owned


class Decision(msgspec.Struct, frozen=True):
    """What a policy says: deny beats ask beats allow. `reason` is journalled."""

    effect: Literal["allow", "ask", "deny"]
    reason: str


class LaunchExtras(msgspec.Struct, frozen=True):
    """What a plugin adds to one launch: environment, mounts, loopback services.

    `token_variable` is where the agent finds a token of its own, with which it may look at its task (docs/security.md:
    who may do what); empty for none.
    """

    env: Mapping[str, str] = msgspec.field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    allow: tuple[str, ...] = ()
    token_variable: str = ""
