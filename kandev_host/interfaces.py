"""The seams of the house: what a provider must do to replace storage, bus, runtime, authentication or telemetry.

Data goes in and data comes out; no SQL, no host pid and no callback crosses a seam, so that another database or
a container engine fits behind it. The contract suites in `kandev_host.testing` hold an implementation to this.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar

from kandev_host.errors import KandevError
from kandev_host.events import Event, Sink
from kandev_host.models import Limits, Row

R = TypeVar("R", bound=Row)
S = TypeVar("S")
T = TypeVar("T")
Q = TypeVar("Q")


@dataclass(frozen=True, slots=True)
class Provider(Generic[S, T]):
    """One selectable implementation: `[use] runtime = NAME` chooses it, `[runtime.NAME]` holds its settings.

    `settings` is a msgspec Struct (`forbid_unknown_fields`) or None for one without settings. `missing` names
    the extra to install when a library of the provider is absent: it is then listed, but selecting it is an error.
    """

    name: str
    open: Callable[[S, Environment], AbstractAsyncContextManager[T]]
    settings: type[S] | None = None
    missing: str | None = None


@dataclass(frozen=True, slots=True)
class Environment:
    """What the host tells a provider that it opens: its data folder (0700) and its own version."""

    data_dir: str
    version: str


@dataclass(frozen=True, slots=True)
class Availability:
    """Can it be used? If not: why, and the exact thing to do about it."""

    ok: bool
    reason: str | None = None
    fix: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


# --- agents -----------------------------------------------------------------------------------------------------------

Dialect = Literal["acp", "seed-rpc", "lines", "auto"]
Network = Literal["none", "host"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentType:
    """An agent that can be started: data only.

    `command` is what a user would type; the runtime finds it. `env` is set as given; `env_required` and
    `env_optional` name variables taken from the host's environment. `files` are written into the agent's private
    home before its first start (path relative to the home → content). `login_files` are paths under the user's home
    that hold a log-in; they enter the jail only where the settings name them. `hosts` are the network names it
    needs to work at all. `mode` is the ACP session mode (or config option of category mode) set on every session,
    so that no agent approves its own tools. `authenticate` is the ACP authMethod to call after initialize.
    """

    name: str
    command: tuple[str, ...]
    description: str = ""
    title: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    env_required: tuple[str, ...] = ()
    env_optional: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    login_files: tuple[str, ...] = ()
    share_login: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    network: Network = "none"
    allow: tuple[str, ...] = ()
    mode: str | None = None
    authenticate: str | None = None
    dialect: Dialect = "acp"
    nested_sandbox: bool = False
    runtime: str | None = None
    image: str | None = None
    capabilities: tuple[str, ...] = ()
    default_resources: Limits = Limits()
    install_hint: str | None = None
    enabled: bool = True


# --- storage ----------------------------------------------------------------------------------------------------------

Op = Literal["=", "in", "<", "<=", ">", ">=", "match"]


@dataclass(frozen=True, slots=True)
class Put:
    """Insert this row, or replace the one with its id."""

    row: Row


@dataclass(frozen=True, slots=True)
class Remove:
    """Delete the row of this kind and id; rows that belong to it go with it (foreign keys cascade)."""

    kind: type[Row]
    id: str


@dataclass(frozen=True, slots=True)
class Expect:
    """A precondition: the row exists and its `field` has one of `values`; with no field, only that it exists.

    A commit whose precondition fails writes nothing and answers `error`.
    """

    kind: type[Row]
    id: str
    error: KandevError
    field: str | None = None
    values: tuple[Any, ...] = ()


Change = Put | Remove | Event


@dataclass(frozen=True, slots=True)
class Commit:
    """Changes that become durable together or not at all. Events get their `seq` in the order given."""

    changes: Sequence[Change]
    preconditions: Sequence[Expect] = ()


@dataclass(frozen=True, slots=True)
class Page(Generic[R]):
    """Rows and, where more follow, the opaque cursor to ask on with."""

    rows: list[R]
    next_cursor: str | None = None


@dataclass(frozen=True, slots=True)
class JournalState:
    """`journal_id` changes when history was replaced (a restore); `oldest` is the first `seq` still kept."""

    journal_id: str
    head: int
    oldest: int


@dataclass(frozen=True, slots=True)
class Hit:
    """One search result; `snippet` marks the matches with [ and ]."""

    kind: str
    id: str
    task_id: str | None
    snippet: str
    score: float


class Store(Protocol):
    """Durable rows and events. Acknowledged means committed to disk (reliability: P1).

    Raises `Busy` when another process holds the database beyond 5 s, `StorageFull` when the disk is full.
    """

    async def commit(self, commits: Sequence[Commit]) -> Sequence[Sequence[int] | KandevError]:
        """Write all in one transaction. Each answers the `seq` of its events, or the error that undid it alone.

        Only the journal calls this. `seq` grows in the order of the commits and of the events in them.
        """
        ...

    async def get(self, kind: type[R], id: str) -> R | None:
        """The row with this id."""
        ...

    async def find(
        self,
        kind: type[R],
        where: Sequence[tuple[str, Op, Any]] = (),
        *,
        order: Sequence[str] = ("created_at", "id"),
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[R]:
        """Rows that meet every condition, in `order` (a leading `-` is descending; end it with a unique field).

        `None` with `=` means unknown; `match` (field `text`) is a full-text query and never fails on its syntax.
        Raises `ValidationFailed("cursor", …)` for a cursor that this order did not make.
        """
        ...

    async def count(self, kind: type[Row], where: Sequence[tuple[str, Op, Any]] = ()) -> int:
        """How many rows meet every condition."""
        ...

    async def events(
        self, after_seq: int, *, topics: Sequence[str] = ("*",), limit: int = 500, action_prefix: str = ""
    ) -> list[Event]:
        """Durable events after `after_seq` that belong to one of the topics, by `seq`."""
        ...

    async def journal_state(self) -> JournalState:
        """Where the journal stands, as committed."""
        ...

    async def search(
        self, text: str, *, kinds: Sequence[str] = (), task_id: str | None = None, limit: int = 20
    ) -> list[Hit]:
        """Full-text search over tasks, messages, logs and commands; any text is a valid query."""
        ...


class Subscription(Protocol):
    """One subscriber's topics. Closing it, also twice, ends the deliveries at once."""

    def add(self, topic: str) -> None: ...

    def discard(self, topic: str) -> None: ...

    def close(self) -> None: ...


class Bus(Protocol):
    """Delivery after commit. The journal is the truth; the bus is a relay and may lose what it holds in a crash."""

    def subscribe(self, topics: Iterable[str], sink: Sink) -> Subscription:
        """Call `sink` with each event of these topics, in order, once. A sink neither blocks nor raises."""
        ...

    def publish(self, events: Sequence[Event]) -> None:
        """Deliver committed (or transient) events."""
        ...


# --- runtimes ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mount:
    """A file or folder of the user's, bound into the place at `target` (`~/…` is the agent's private home)."""

    source: str
    target: str
    read_only: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec:
    """What to start, said without host pids or host paths of the workspace.

    `command[0]` is found as the user would find it (in the place where processes run). `cwd` is a path inside;
    the workspace is always `/workspace`, the private home `/home/agent`. `env` is the whole environment beyond
    HOME, PATH, LANG, TERM, TMPDIR. `allow` names loopback services of the host, `127.0.0.1:PORT`, reachable at the
    same address inside. `labels` come back from `list_owned`.
    """

    workspace_id: str
    command: tuple[str, ...]
    cwd: str = "/workspace"
    env: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    network: Network = "none"
    allow: tuple[str, ...] = ()
    limits: Limits = Limits()
    nested_sandbox: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """A finished short command. Output beyond the bound is dropped, and `truncated` says so."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Stats:
    """Resource use of a process tree: CPU seconds so far, resident bytes now, processes; None is unknown."""

    cpu_s: float | None = None
    rss_bytes: int | None = None
    pids: int | None = None


@dataclass(frozen=True, slots=True)
class Owned:
    """A process found again: its `ref`, its labels, and whether it still runs."""

    ref: str
    labels: Mapping[str, str]
    running: bool


class Process(Protocol):
    """A running process and all that it started. Its `ref` is opaque and finds it again after a restart."""

    @property
    def ref(self) -> str: ...

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """The next bytes of stdout, waiting for some; b"" once it has ended. Not reading slows the process."""
        ...

    async def receive_stderr(self, max_bytes: int = 65536) -> bytes:
        """The next bytes of stderr; b"" once it has ended."""
        ...

    async def send(self, data: bytes) -> None:
        """Write to stdin, waiting while the pipe is full. Raises `BrokenPipeError` when nobody reads any more."""
        ...

    async def close_stdin(self) -> None: ...

    async def wait(self) -> int:
        """The exit code: 0 to 255, or minus the signal's number. May be awaited by several tasks."""
        ...

    async def terminate(self) -> None:
        """SIGTERM to the command; nothing if it has ended."""
        ...

    async def kill(self) -> None:
        """SIGKILL to everything in the place; afterwards nothing of it runs."""
        ...

    async def stats(self) -> Stats: ...


class Runtime(Protocol):
    """A kind of place where processes run. Leaving the context of `spawn` kills what still runs and reaps it."""

    @property
    def name(self) -> str: ...

    async def probe(self) -> Availability:
        """Really try the runtime once; `details` may hold its version and what is only partial."""
        ...

    async def locate(self, command: str) -> Availability:
        """Can `command` be started here?"""
        ...

    async def prepare(self, workspace_id: str) -> None:
        """Make the place's folders (workspace, home, tmp) if they are not there yet."""
        ...

    async def remove(self, workspace_id: str) -> None:
        """Delete the place's folders and all that is in them. Nothing if there are none."""
        ...

    async def write_home(self, workspace_id: str, path: str, content: bytes) -> None:
        """Write a file into the private home unless it exists; `path` is relative to it and never follows links."""
        ...

    def spawn(self, spec: ProcessSpec) -> AbstractAsyncContextManager[Process]:
        """Start it. Raises `Unavailable` (with the fix) when the runtime or the command cannot be used."""
        ...

    async def run(
        self, spec: ProcessSpec, *, stdin: bytes = b"", timeout_s: float = 60.0, max_output_bytes: int = 8 << 20
    ) -> Result:
        """Run a short command to its end. Raises `TimedOut` after `timeout_s`, having killed it."""
        ...

    async def list_owned(self) -> list[Owned]:
        """Every process that this host, or a dead one with the same data folder, has started and that still runs."""
        ...

    async def adopt(self, ref: str, position: int) -> Process | None:
        """Attach again to a process that outlived its host, from this byte of stdout on; None where that cannot be."""
        ...

    async def reap(self, ref: str) -> bool:
        """Kill a process of a dead host, found by `list_owned`. True if something was killed."""
        ...


# --- who, and what is measured ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Principal:
    """Who acts: `kind` is user, agent, service or host. Scopes are like `tasks:write`; `*` holds all."""

    id: str
    kind: Literal["user", "agent", "service", "host"]
    name: str
    scopes: frozenset[str] = frozenset()

    def may(self, scope: str) -> bool:
        return "*" in self.scopes or scope in self.scopes


class Authenticator(Protocol):
    """Turns a credential into a Principal. Compares in constant time."""

    async def authenticate(self, token: str) -> Principal | None:
        """The principal of this bearer token, or None."""
        ...


class Telemetry(Protocol):
    """Where measurements go. Must neither block nor raise; names carry their unit, labels never an id."""

    def count(self, name: str, value: float, labels: Mapping[str, str]) -> None: ...

    def observe(self, name: str, seconds: float, labels: Mapping[str, str]) -> None: ...


# --- actions ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Call:
    """What a handler knows of the request that it serves. `subscribe` joins the caller's socket to a topic."""

    principal: Principal
    request_id: str
    subscribe: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Action(Generic[Q]):
    """One WebSocket action. A plain function as handler is answered at once; a coroutine gets a task of its own."""

    name: str
    request: type[Q]
    handler: Callable[[Call, Q], Any | Awaitable[Any]]
    scope: str
    summary: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """What a policy says: deny beats ask beats allow. `reason` is journalled."""

    effect: Literal["allow", "ask", "deny"]
    reason: str


@dataclass(frozen=True, slots=True)
class LaunchExtras:
    """What a plugin adds to one launch: environment, mounts, loopback services."""

    env: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    allow: tuple[str, ...] = ()
