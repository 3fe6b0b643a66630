"""Every setting of the host: its type, default, unit (in the key) and meaning.

`settings.load` fills these from a TOML file, the environment and flags; `config/example.toml` is written from them.
A provider's own settings live in its plugin: here they are raw tables, decoded when the provider is selected.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from kandev_host.models import Limits

Count = Annotated[int, Meta(ge=1)]
Bytes = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all tables: immutable, and a key that is not here is an error."""


class ServerSettings(Table, frozen=True, kw_only=True):
    """Where the gateway listens."""

    host: Annotated[
        str, Meta(description="Address to listen on; only loopback addresses until there is log-in for several users.")
    ] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="TCP port; 0 takes any free one.")] = 8080


class GatewaySettings(Table, frozen=True, kw_only=True):
    """Limits of the WebSocket gateway."""

    origins: Annotated[
        tuple[str, ...],
        Meta(description="Web origins of third-party front ends that may connect, as in https://board.example."),
    ] = ()
    message_limit_bytes: Annotated[Bytes, Meta(description="Largest message from a client.")] = 1 << 20
    json_depth_limit: Annotated[Count, Meta(description="Deepest nesting of a message.")] = 64
    requests_per_s: Annotated[Seconds, Meta(description="Requests per second of one connection, in the long run.")] = (
        100.0
    )
    request_burst: Annotated[Count, Meta(description="Requests of one connection at once.")] = 200
    concurrent_requests: Annotated[
        Count, Meta(description="Requests of one connection that are worked on at once.")
    ] = 64
    sockets_per_principal: Annotated[Count, Meta(description="Open sockets of one user.")] = 64
    sockets_total: Annotated[Count, Meta(description="Open sockets in all.")] = 1000
    outbound_limit_messages: Annotated[
        Count, Meta(description="Messages waiting for one client before it counts as slow.")
    ] = 1000
    outbound_limit_bytes: Annotated[
        Bytes, Meta(description="Bytes waiting for one client before it counts as slow.")
    ] = 4 << 20
    login_timeout_s: Annotated[Seconds, Meta(description="Time for auth.login on a socket opened without a token.")] = (
        5.0
    )
    handshake_timeout_s: Annotated[Seconds, Meta(description="Time for the HTTP handshake.")] = 10.0
    slow_client_timeout_s: Annotated[
        Seconds, Meta(description="Time a slow client has to catch up before it is cut (close code 4408).")
    ] = 10.0
    query_token: Annotated[
        bool, Meta(description="Accept JWTs as ?token=; never the local token, whatever is set here.")
    ] = False


class UseSettings(Table, frozen=True, kw_only=True):
    """Which provider does what; each has its own table, such as [runtime.bwrap]."""

    runtime: Annotated[str, Meta(description="Where agents run unless agent or request say otherwise.")] = "bwrap"
    store: Annotated[str, Meta(description="Where rows and events are kept.")] = "sqlite"
    bus: Annotated[str, Meta(description="What relays events.")] = "memory"
    authenticator: Annotated[str, Meta(description="What turns a token into a user.")] = "local"
    telemetry: Annotated[tuple[str, ...], Meta(description="Where measurements go; none by default.")] = ()


class SessionSettings(Table, frozen=True, kw_only=True):
    """Deadlines and bounds of ACP sessions."""

    initialize_timeout_s: Annotated[Seconds, Meta(description="Time an agent has to answer initialize.")] = 30.0
    request_timeout_s: Annotated[
        Seconds, Meta(description="Time an agent has to answer any other request except a prompt.")
    ] = 60.0
    cancel_grace_s: Annotated[
        Seconds, Meta(description="Time a cancelled turn has to end before the agent is stopped.")
    ] = 10.0
    kill_grace_s: Annotated[Seconds, Meta(description="Time between SIGTERM and SIGKILL.")] = 5.0
    line_limit_bytes: Annotated[Bytes, Meta(description="Longest line of ACP an agent may send.")] = 8 << 20
    fault_limit_lines: Annotated[
        Count, Meta(description="Lines in a row that are not ACP before an agent is stopped.")
    ] = 1000
    heartbeat_interval_s: Annotated[Seconds, Meta(description="Time between two acp.heartbeat of an agent.")] = 15.0
    stderr_line_limit_bytes: Annotated[Bytes, Meta(description="Longest line of an agent's stderr that is kept.")] = (
        64 << 10
    )
    log_lines_kept: Annotated[Count, Meta(description="Lines of stderr kept per agent.")] = 10_000


class OrchestratorSettings(Table, frozen=True, kw_only=True):
    """Tasks that run by themselves: when, how many at once, how often again."""

    auto_start: Annotated[
        bool, Meta(description="Queue a task by itself when it becomes TODO and names an agent type.")
    ] = True
    auto_complete: Annotated[
        bool, Meta(description="A run that ends well makes its task COMPLETED; else BLOCKED, for a person to look at.")
    ] = True
    max_agents: Annotated[Count, Meta(description="Agents at once up to which the queue starts more.")] = 4
    max_agents_per_board: Annotated[
        Count | None,
        Meta(description="The same for each board; unset is no limit. Agent types have max_agents of their own."),
    ] = None
    ageing_s: Annotated[
        Seconds, Meta(description="Waiting this long is worth one step of priority, so that nothing starves.")
    ] = 600.0
    attempts: Annotated[
        Count, Meta(description="Runs of one task before a failure is final; deaths of the host count apart.")
    ] = 5
    backoff_s: Annotated[Seconds, Meta(description="Longest wait before the second attempt; doubles each time.")] = 1.0
    backoff_limit_s: Annotated[Seconds, Meta(description="Longest wait before any attempt.")] = 60.0
    healthy_s: Annotated[Seconds, Meta(description="A run that lived this long starts the count of attempts anew.")] = (
        600.0
    )
    stall_timeout_s: Annotated[
        Seconds, Meta(description="A prompted agent that says nothing for this long is shown as stalled.")
    ] = 600.0
    stall_action: Annotated[
        Literal["none", "cancel", "restart"],
        Meta(description="What follows: nothing, its turn is cancelled, or it is ended and its task tried again."),
    ] = "none"


class JournalSettings(Table, frozen=True, kw_only=True):
    """How long stored events are kept; `agent.transcript` and replay reach back as far as these."""

    events_kept_s: Annotated[
        Annotated[float, Meta(gt=0)] | None, Meta(description="Older events are removed; unset keeps all.")
    ] = 90 * 86_400.0
    events_limit_bytes: Annotated[
        Bytes | None, Meta(description="The oldest events beyond this are removed; unset is no limit.")
    ] = 8 << 30
    trim_interval_s: Annotated[Seconds, Meta(description="Time between two looks for events to remove.")] = 60.0


class PermissionSettings(Table, frozen=True, kw_only=True):
    """What happens when an agent asks."""

    preset: Annotated[
        Literal["ask", "read-only", "contained", "unattended"],
        Meta(description="The ceiling of what is allowed without asking."),
    ] = "ask"
    wait_timeout_s: Annotated[
        Seconds | None, Meta(description="Time until an unanswered request is rejected; unset waits for ever.")
    ] = None


class WorkspaceSettings(Table, frozen=True, kw_only=True):
    """Bounds of the git work of a task."""

    git_timeout_s: Annotated[Seconds, Meta(description="Time for one git command, such as a clone.")] = 600.0
    diff_limit_bytes: Annotated[Bytes, Meta(description="Largest diff that is returned; more is cut, and said so.")] = (
        8 << 20
    )


class LogSettings(Table, frozen=True, kw_only=True):
    """The host's own log."""

    level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="Least level that is logged.")] = (
        "info"
    )
    format: Annotated[Literal["text", "json"], Meta(description="For people, or one JSON object a line.")] = "text"
    path: Annotated[str | None, Meta(description='A file, or "stdout"; unset is stderr.')] = None


class PluginsSettings(Table, frozen=True, kw_only=True):
    """Plugins found through entry points of group `kandev`."""

    disabled: Annotated[tuple[str, ...], Meta(description="Names of plugins that are not even imported.")] = ()


class AgentOverride(Table, frozen=True, kw_only=True):
    """What one agent type is changed to; with `command`, a new agent type. Unset keeps what the plugin says."""

    command: Annotated[tuple[str, ...] | None, Meta(description="Program and arguments, as a list.")] = None
    title: Annotated[str | None, Meta(description="Name for people.")] = None
    description: Annotated[str | None, Meta(description="One sentence for people.")] = None
    enabled: Annotated[bool | None, Meta(description="May it be started?")] = None
    env: Annotated[dict[str, str] | None, Meta(description="Environment variables, set as given.")] = None
    env_required: Annotated[
        tuple[str, ...] | None, Meta(description="Variables taken from the host's environment; it refuses without.")
    ] = None
    env_optional: Annotated[
        tuple[str, ...] | None, Meta(description="Variables taken from the host's environment if they are there.")
    ] = None
    files: Annotated[
        dict[str, str] | None, Meta(description="Files of its private home before the first start: path → content.")
    ] = None
    login_files: Annotated[tuple[str, ...] | None, Meta(description="Paths under your home that hold a log-in.")] = None
    share_login: Annotated[
        tuple[str, ...] | None, Meta(description="Those of login_files that enter the jail; none by default.")
    ] = None
    hosts: Annotated[tuple[str, ...] | None, Meta(description="Network names it needs to work at all.")] = None
    network: Annotated[Literal["none", "host"] | None, Meta(description="No network, or the host's.")] = None
    allow: Annotated[
        tuple[str, ...] | None, Meta(description="Loopback services it may reach, as in 127.0.0.1:11434.")
    ] = None
    mode: Annotated[str | None, Meta(description="ACP mode set on every session.")] = None
    authenticate: Annotated[str | None, Meta(description="ACP authentication method called at the start.")] = None
    dialect: Annotated[
        Literal["acp", "seed-rpc", "lines", "auto"] | None, Meta(description="What it speaks on its pipes.")
    ] = None
    nested_sandbox: Annotated[bool | None, Meta(description="Does it need to open a jail of its own?")] = None
    runtime: Annotated[str | None, Meta(description="Where it runs, if not in the default runtime.")] = None
    image: Annotated[str | None, Meta(description="Image for container runtimes.")] = None
    capabilities: Annotated[tuple[str, ...] | None, Meta(description="What it is good at, for lists.")] = None
    default_resources: Annotated[
        Limits | None, Meta(description='Limits such as { memory_limit = "2g", cpu_limit = "1.5" }.')
    ] = None
    max_agents: Annotated[Count | None, Meta(description="Agents of it at once up to which the queue starts more.")] = (
        None
    )
    install_hint: Annotated[str | None, Meta(description="What to do when it is not installed.")] = None


RawTables = dict[str, dict[str, Any]]


class Settings(Table, frozen=True, kw_only=True):
    """All settings. `agents` has a table per agent; the last five hold a table per provider, named as in `use`."""

    server: ServerSettings = ServerSettings()
    gateway: GatewaySettings = GatewaySettings()
    use: UseSettings = UseSettings()
    session: SessionSettings = SessionSettings()
    orchestrator: OrchestratorSettings = OrchestratorSettings()
    journal: JournalSettings = JournalSettings()
    permissions: PermissionSettings = PermissionSettings()
    workspace: WorkspaceSettings = WorkspaceSettings()
    log: LogSettings = LogSettings()
    plugins: PluginsSettings = PluginsSettings()
    agents: dict[str, AgentOverride] = {}
    runtime: RawTables = {}
    store: RawTables = {}
    bus: RawTables = {}
    authenticator: RawTables = {}
    telemetry: RawTables = {}
