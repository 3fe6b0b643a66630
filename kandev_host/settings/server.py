"""Where the host listens, what it is made of, and its own log and journal."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from kandev_host.settings.base import Bytes, Count, Seconds, Table


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
    prices: Annotated[str, Meta(description="What tokens cost, where the agent does not say; none leaves it open.")] = (
        "genai"
    )
    telemetry: Annotated[tuple[str, ...], Meta(description="Where measurements go; none by default.")] = ()


class JournalSettings(Table, frozen=True, kw_only=True):
    """How long stored events are kept; `agent.transcript` and replay reach back as far as these."""

    events_kept_s: Annotated[
        Annotated[float, Meta(gt=0)] | None, Meta(description="Older events are removed; unset keeps all.")
    ] = 90 * 86_400.0
    events_limit_bytes: Annotated[
        Bytes | None, Meta(description="The oldest events beyond this are removed; unset is no limit.")
    ] = 8 << 30
    trim_interval_s: Annotated[Seconds, Meta(description="Time between two looks for events to remove.")] = 60.0


class LogSettings(Table, frozen=True, kw_only=True):
    """The host's own log."""

    level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="Least level that is logged.")] = (
        "info"
    )
    format: Annotated[Literal["text", "json"], Meta(description="For people, or one JSON object a line.")] = "text"
    path: Annotated[str | None, Meta(description='A file, or "stdout"; unset is stderr.')] = None
    rotate_bytes: Annotated[Bytes, Meta(description="Size at which a new file is begun.")] = 16 << 20
    rotated_files: Annotated[Count, Meta(description="Older files that are kept, as in host.log.1.")] = 5


class PluginsSettings(Table, frozen=True, kw_only=True):
    """Plugins found through entry points of group `kandev`."""

    disabled: Annotated[tuple[str, ...], Meta(description="Names of plugins that are not even imported.")] = ()
    hook_timeout_s: Annotated[
        Seconds, Meta(description="Time for a call of a third party's plugin, after which the host goes on without it.")
    ] = 5.0
    start_timeout_s: Annotated[
        Seconds, Meta(description="Time for the import of such a plugin, and for the start of what it provides.")
    ] = 30.0
    stop_timeout_s: Annotated[
        Seconds, Meta(description="Time for the end of all that such plugins provide, together.")
    ] = 2.0
