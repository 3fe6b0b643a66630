"""Agents: their sessions, the queue, permissions, and what each type is changed to."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from kandev_host.models import Limits, UsageReading
from kandev_host.settings.base import Bytes, Count, Seconds, Table


class SessionSettings(Table, frozen=True, kw_only=True):
    """Deadlines and bounds of ACP sessions."""

    LIVE: ClassVar[frozenset[str]] = frozenset(
        {
            *("initialize_timeout_s", "request_timeout_s", "dialect_timeout_s", "login_timeout_s", "cancel_grace_s"),
            *("kill_grace_s", "settle_s", "line_limit_bytes", "fault_limit_lines", "heartbeat_interval_s"),
            *("stderr_line_limit_bytes", "log_lines_kept"),
        }
    )

    initialize_timeout_s: Annotated[Seconds, Meta(description="Time an agent has to answer initialize.")] = 30.0
    request_timeout_s: Annotated[
        Seconds, Meta(description="Time an agent has to answer any other request except a prompt.")
    ] = 60.0
    dialect_timeout_s: Annotated[
        Seconds, Meta(description="Dialect auto: time to answer initialize once lines of the older shape came.")
    ] = 5.0
    login_timeout_s: Annotated[
        Seconds, Meta(description="Time an agent that you launched waits for a log-in; one of the queue does not wait.")
    ] = 600.0
    cancel_grace_s: Annotated[
        Seconds, Meta(description="Time a cancelled turn has to end before the agent is stopped.")
    ] = 10.0
    kill_grace_s: Annotated[Seconds, Meta(description="Time between SIGTERM and SIGKILL.")] = 5.0
    settle_s: Annotated[
        float,
        Meta(ge=0, le=60, description="Rest between a turn's end and the next prompt that waits, for late updates."),
    ] = 0.5
    line_limit_bytes: Annotated[Bytes, Meta(description="Longest line of ACP an agent may send.")] = 8 << 20
    fault_limit_lines: Annotated[
        Count, Meta(description="Lines in a row that are not ACP before an agent is stopped.")
    ] = 1000
    heartbeat_interval_s: Annotated[Seconds, Meta(description="Time between two acp.heartbeat of an agent.")] = 15.0
    stderr_line_limit_bytes: Annotated[Bytes, Meta(description="Longest line of an agent's stderr that is kept.")] = (
        64 << 10
    )
    log_lines_kept: Annotated[Count, Meta(description="Lines of stderr kept per agent.")] = 10_000
    capture: Annotated[
        bool, Meta(description="Keep what goes over an agent's pipes, without known secrets, for agent log --raw.")
    ] = True
    capture_limit_bytes: Annotated[Bytes, Meta(description="Newest part of it that is kept of one agent.")] = 16 << 20
    captures_limit_bytes: Annotated[Bytes, Meta(description="What is kept of all agents; the oldest goes first.")] = (
        1 << 30
    )


class OrchestratorSettings(Table, frozen=True, kw_only=True):
    """Tasks that run by themselves: when, how many at once, how often again."""

    LIVE: ClassVar[frozenset[str]] = frozenset(
        {
            *("auto_start", "auto_complete", "max_agents", "max_agents_per_board", "attempts", "backoff_s"),
            *("backoff_limit_s", "healthy_s", "stall_timeout_s", "stall_action"),
        }
    )

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


class PermissionSettings(Table, frozen=True, kw_only=True):
    """What happens when an agent asks."""

    LIVE: ClassVar[frozenset[str]] = frozenset({"preset", "wait_timeout_s", "unattended_limit_s"})

    preset: Annotated[
        Literal["ask", "read-only", "contained", "unattended"],
        Meta(description="The ceiling of what is allowed without asking."),
    ] = "ask"
    wait_timeout_s: Annotated[
        Seconds | None, Meta(description="Time until an unanswered request is rejected; unset waits for ever.")
    ] = None
    unattended_limit_s: Annotated[
        float, Meta(gt=0, le=28_800, description="Time from an agent's start after which the preset unattended is ask.")
    ] = 28_800.0


class RuleSettings(Table, frozen=True, kw_only=True):
    """What it names must all be so; unset is any. Of all that apply, deny goes before ask, ask before allow."""

    effect: Annotated[
        Literal["allow", "ask", "deny"] | None,
        Meta(description="What follows; allow raises only what would be asked for, and must name something."),
    ] = None
    agent_type: Annotated[str | None, Meta(description="Agent type.")] = None
    kind: Annotated[
        Literal["read", "edit", "delete", "move", "search", "execute", "think", "fetch", "switch_mode", "other"] | None,
        Meta(description="Kind of the tool call, as the agent has it; other is also every unknown one."),
    ] = None
    path: Annotated[
        str | None, Meta(description="Pattern of paths in the workspace, as in src/*; a * crosses folders.")
    ] = None
    command: Annotated[
        tuple[str, ...] | None, Meta(description="Words: to allow, the whole of a plain command; else its first ones.")
    ] = None
    reason: Annotated[str | None, Meta(description="Why, for people.")] = None

    def __post_init__(self) -> None:
        """Raise `ValueError` for a rule without an effect, that would allow everything, or compare with no word."""
        if self.effect is None:
            raise ValueError("a rule needs an effect: allow, ask or deny")
        if self.effect == "allow" and (self.kind, self.path, self.command) == (None, None, None):
            raise ValueError("a rule that allows must name a kind, a path or a command")
        if self.command == ():
            raise ValueError("command has no word")


class McpSettings(Table, frozen=True, kw_only=True):
    """A command that the agent starts in its own jail, or a URL that it asks; tasks and agents name it."""

    command: Annotated[tuple[str, ...] | None, Meta(description="Program and arguments, as a list.")] = None
    url: Annotated[str | None, Meta(description="Where it answers over HTTP, for agents that can ask there.")] = None
    env: Annotated[dict[str, str] | None, Meta(description="Environment variables of its command, set as given.")] = (
        None
    )
    env_required: Annotated[
        tuple[str, ...] | None,
        Meta(description="Variables taken from the host's environment; of a url, for ${NAME} in its headers."),
    ] = None
    headers: Annotated[dict[str, str] | None, Meta(description="Headers sent to its url.")] = None
    allow: Annotated[
        tuple[str, ...] | None,
        Meta(description="What the agent may reach for it, as in 127.0.0.1:8377; a name needs network allowlist."),
    ] = None

    def __post_init__(self) -> None:
        """Raise `ValueError` for one that is neither a command nor a URL, or both."""
        if (self.command is None) == (self.url is None):
            raise ValueError("an MCP server needs either a command or a url")
        if self.command is not None and not (self.command and self.command[0]):
            raise ValueError("command has no program")
        if self.url is not None and not re.fullmatch(r"https?://[^\s/]\S*", self.url):
            raise ValueError("url is no http:// or https:// address")


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
    hosts: Annotated[
        tuple[str, ...] | None, Meta(description="Names it needs to work at all; allowed where it has an allowlist.")
    ] = None
    network: Annotated[
        Literal["none", "allowlist", "host"] | None,
        Meta(description="No network, what hosts and allow name through the host's proxy, or the host's own."),
    ] = None
    allow: Annotated[
        tuple[str, ...] | None,
        Meta(description='What it may reach, as in ["127.0.0.1:11434", "@npm"]; names need network allowlist.'),
    ] = None
    mode: Annotated[str | None, Meta(description="ACP mode set on every session.")] = None
    asking_modes: Annotated[
        tuple[str, ...] | None,
        Meta(description="ACP modes in which it asks before it acts; others need the preset unattended."),
    ] = None
    options: Annotated[
        dict[str, str | bool] | None,
        Meta(description='ACP config options set on every session, by id or category, as in { model = "fast" }.'),
    ] = None
    authenticate: Annotated[str | None, Meta(description="ACP authentication method called at the start.")] = None
    dialect: Annotated[
        Literal["acp", "seed-rpc", "lines", "auto"] | None, Meta(description="What it speaks on its pipes.")
    ] = None
    offers: Annotated[
        tuple[Literal["files", "terminal"], ...] | None,
        Meta(description="What the host serves to it, in its jail: files, terminal; nothing by default."),
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
    usage: Annotated[
        UsageReading | None,
        Meta(description='How its usage is read, as in { tokens = "cumulative", cost_after_resume = "continues" }.'),
    ] = None
    mcp_servers: Annotated[tuple[str, ...] | None, Meta(description="Names of [mcp.NAME] that it always has.")] = None
    directories: Annotated[
        tuple[str, ...] | None, Meta(description="Names of [directories.NAME] that it always sees.")
    ] = None
    credentials: Annotated[
        tuple[str, ...] | None, Meta(description="Names of [credentials.NAME] that it always has.")
    ] = None
    install_hint: Annotated[str | None, Meta(description="What to do when it is not installed.")] = None
