"""Where the host listens, what it is made of, and its own log and journal."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from kandev_host.settings.base import Bytes, Count, Seconds, Table

_HOST = re.compile(r"(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
_ORIGIN = re.compile(rf"[a-z][a-z0-9+.-]*://{_HOST.pattern}")


class ServerSettings(Table, frozen=True, kw_only=True):
    """Where the gateway listens, and the process around it."""

    LIVE: ClassVar[frozenset[str]] = frozenset({"disk_low_bytes"})

    host: Annotated[
        str, Meta(description="Address to listen on; other than loopback needs allow_remote, TLS and authentication.")
    ] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="TCP port; 0 takes any free one.")] = 8080
    unix_socket: Annotated[
        str | None,
        Meta(description="Path of a Unix socket to listen on instead, for this user alone; its folder must be yours."),
    ] = None
    allow_remote: Annotated[bool, Meta(description="May it listen on an address that other machines reach?")] = False
    tls_certificate: Annotated[
        str | None, Meta(description="PEM file with the certificate and those above it; read anew when it changes.")
    ] = None
    tls_key: Annotated[
        str | None, Meta(description="PEM file with its key, which nobody else may read; read anew when it changes.")
    ] = None
    stop_timeout_s: Annotated[
        Seconds, Meta(description="Time for a clean stop; what still hangs then ends with the process.")
    ] = 10.0
    disk_low_bytes: Annotated[
        Bytes, Meta(description="Less room than this (or a 20th of the disk) at the data folder is degraded health.")
    ] = 1 << 30

    def __post_init__(self) -> None:
        """Raise `ValueError` for what does not go together."""
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together")
        if self.unix_socket is not None and not self.unix_socket.startswith(("/", "~/")):
            raise ValueError("unix_socket must begin with / or ~/")
        if self.unix_socket is not None and self.tls_key is not None:
            raise ValueError("a Unix socket needs no TLS: remove tls_certificate and tls_key, or unix_socket")


class GatewaySettings(Table, frozen=True, kw_only=True):
    """Limits of the gateway: sockets, and HTTP beside them."""

    LIVE: ClassVar[frozenset[str]] = frozenset(
        {
            *("origins", "hosts", "message_limit_bytes", "requests_per_s", "request_burst", "concurrent_requests"),
            *("principal_rate_factor", "address_requests_per_s", "address_request_burst", "sockets_per_principal"),
            *("sockets_per_address", "sockets_total", "outbound_limit_messages", "outbound_limit_bytes"),
            *("login_timeout_s", "slow_client_timeout_s", "heartbeat_s", "http_timeout_s"),
        }
    )

    origins: Annotated[
        tuple[str, ...],
        Meta(description="Web origins of third-party front ends that may connect, as in https://board.example."),
    ] = ()
    hosts: Annotated[
        tuple[str, ...],
        Meta(description="Names that others reach this host by, as in board.example or board.example:8443."),
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
    principal_rate_factor: Annotated[
        Count, Meta(description="All connections of one user together have so many times the rate and burst of one.")
    ] = 10
    address_requests_per_s: Annotated[
        Seconds, Meta(description="Requests and log-ins without valid credentials per second of one address.")
    ] = 50.0
    address_request_burst: Annotated[
        Count, Meta(description="Requests and log-ins without valid credentials of one address at once.")
    ] = 500
    sockets_per_principal: Annotated[
        Count, Meta(description="Open sockets of one user; of one address, those that nobody has logged in on.")
    ] = 64
    sockets_per_address: Annotated[Count, Meta(description="Open sockets of one address; this machine is one.")] = 1000
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
    handshake_timeout_s: Annotated[Seconds, Meta(description="Time for the HTTP handshake, and for that of TLS.")] = (
        10.0
    )
    handshakes_limit: Annotated[
        Count, Meta(description="Connections that have sent no whole request; beyond it the oldest goes.")
    ] = 1000
    ticket_lifetime_s: Annotated[Seconds, Meta(description="Time to use a log-in link (kandev-host link), once.")] = (
        60.0
    )
    session_lifetime_s: Annotated[Seconds, Meta(description="Time that a log-in by such a link lasts.")] = 12 * 3600.0
    slow_client_timeout_s: Annotated[
        Seconds, Meta(description="Time a slow client has to catch up before it is cut (close code 4408).")
    ] = 10.0
    heartbeat_s: Annotated[
        Seconds, Meta(description="Time without a word after which a socket is pinged; half of it is for the answer.")
    ] = 30.0
    http_timeout_s: Annotated[
        Seconds, Meta(description="Time for one request that is no socket, from its header to its whole answer.")
    ] = 30.0
    header_limit_bytes: Annotated[
        int, Meta(ge=1024, le=1 << 20, description="Longest request line, and longest header field.")
    ] = 8190
    headers_limit: Annotated[Count, Meta(description="Header fields of one request.")] = 128
    body_limit_bytes: Annotated[Bytes, Meta(description="Largest body of a request that is no socket.")] = 1 << 20
    query_token: Annotated[
        bool, Meta(description="Accept JWTs as ?token= of /ws; never the local token or a key, whatever is set here.")
    ] = False

    def __post_init__(self) -> None:
        """Raise `ValueError` for what could never be equal to a header."""
        for origin in self.origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"origins has {origin!r}: an origin is as https://board.example, and nothing after it")
        for name in self.hosts:
            if not _HOST.fullmatch(name):
                raise ValueError(f"hosts has {name!r}: a name is as board.example or board.example:8443, in lower case")


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
    """How long stored events are kept (`agent.transcript` and replay reach back as far), and what may wait."""

    LIVE: ClassVar[frozenset[str]] = frozenset({"events_kept_s", "events_limit_bytes", "trim_interval_s"})

    events_kept_s: Annotated[
        Annotated[float, Meta(gt=0)] | None, Meta(description="Older events are removed; unset keeps all.")
    ] = 90 * 86_400.0
    events_limit_bytes: Annotated[
        Bytes | None, Meta(description="The oldest events beyond this are removed; unset is no limit.")
    ] = 8 << 30
    trim_interval_s: Annotated[Seconds, Meta(description="Time between two looks for events to remove.")] = 60.0
    queue_commits_limit: Annotated[
        Count, Meta(description="Commits waiting to be written; whoever brings more waits.")
    ] = 4096
    queue_limit_bytes: Annotated[Bytes, Meta(description="Bytes waiting to be written; the same.")] = 16 << 20
    queue_timeout_s: Annotated[Seconds, Meta(description="Time to wait for room there, before the answer is BUSY.")] = (
        30.0
    )
    drain_timeout_s: Annotated[
        Seconds, Meta(description="Time at a stop to write what waits; it must be less than server.stop_timeout_s.")
    ] = 5.0


class BackupSettings(Table, frozen=True, kw_only=True):
    """Backups that the host makes by itself, while it runs; one that was missed is made up at the next start."""

    LIVE: ClassVar[frozenset[str]] = frozenset({"interval_s", "keep", "folder"})

    enabled: Annotated[bool, Meta(description="Does the host make backups by itself?")] = True
    interval_s: Annotated[Seconds, Meta(description="Time from one to the next.")] = 86_400.0
    keep: Annotated[
        Count, Meta(description="So many of them; older ones are removed. Those that people make stay.")
    ] = 7
    folder: Annotated[str | None, Meta(description="Where they lie; unset is backups in the data folder.")] = None


class LogSettings(Table, frozen=True, kw_only=True):
    """The host's own log."""

    LIVE: ClassVar[frozenset[str]] = frozenset({"level"})

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
