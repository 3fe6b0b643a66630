"""Every metric of the host: its name, unit, labels and what it says. Telemetry providers make theirs of this list.

Names are Prometheus' (base units, `_total` for what only grows). A label never holds an id: each has a bounded set of
values, and whatever is not in it is `other`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

OTHER = "other"
# What one label may have, where the host's plugins and settings say what there is; beyond it, `other`.
VALUES_LIMIT = 250

QUICK = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
CALLS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)
STARTS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
LONG = (1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 14400.0)

Kind = Literal["counter", "histogram", "gauge"]
Sample = tuple[str, dict[str, str], float]


class Metric(msgspec.Struct, frozen=True):
    """One metric. `labels` are in the order in which every measurement names them; histograms have `buckets`."""

    name: str
    kind: Kind
    summary: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


def _counter(name: str, summary: str, *labels: str) -> Metric:
    return Metric(name, "counter", summary, labels)


def _gauge(name: str, summary: str, *labels: str) -> Metric:
    return Metric(name, "gauge", summary, labels)


def _seconds(name: str, buckets: tuple[float, ...], summary: str, *labels: str) -> Metric:
    return Metric(name, "histogram", summary, labels, buckets)


_LIST = (
    _counter("kandev_tasks_created_total", "Tasks that were made."),
    _counter("kandev_tasks_finished_total", "Tasks that came to an end: completed, failed or cancelled.", "outcome"),
    _gauge("kandev_queue_tasks", "Tasks in the orchestrator's queue, waiting or running.", "state"),
    _counter(
        "kandev_agent_launches_total",
        "Launches of agents: started, failed, or stopped before they ran.",
        "agent_type",
        "outcome",
    ),
    _seconds(
        "kandev_agent_launch_duration_seconds",
        STARTS,
        "From the request for an agent until its session was open.",
        "agent_type",
    ),
    _gauge("kandev_agents", "Agents that live, by what they are.", "agent_type", "status"),
    _counter(
        "kandev_agent_runs_total",
        "Runs of agents that ended; failure says why one failed, else none.",
        "agent_type",
        "outcome",
        "failure",
    ),
    _counter("kandev_agent_retries_total", "Runs that were further attempts at their task.", "agent_type"),
    _counter("kandev_agent_stalls_total", "How often a prompted agent fell silent for too long.", "agent_type"),
    _gauge("kandev_agent_memory_bytes", "Resident memory of live agents and what they started.", "agent_type"),
    _gauge("kandev_agent_processes", "Processes of live agents.", "agent_type"),
    _counter("kandev_agent_cpu_seconds_total", "CPU time of agents, as far as a scrape saw it.", "agent_type"),
    _seconds("kandev_turn_duration_seconds", LONG, "Turns of agents, waits for people included.", "outcome"),
    _counter(
        "kandev_tokens_total",
        "Tokens that turns used. Of input, cached_read and cached_write are part; of output, thought.",
        "agent_type",
        "kind",
    ),
    _counter("kandev_cost_total", "What turns cost, in units of the currency.", "agent_type", "currency"),
    _counter(
        "kandev_turns_unpriced_total", "Turns that had no price when their usage was first recorded.", "agent_type"
    ),
    _counter("kandev_permissions_requested_total", "Permissions that a person was asked for."),
    _gauge("kandev_permissions_waiting", "Permission requests that wait for a person."),
    _counter(
        "kandev_permissions_answered_total",
        "Permission requests that were decided: by a person, the policy or the host.",
        "outcome",
        "by",
    ),
    _seconds("kandev_permission_wait_seconds", LONG, "How long permission requests waited for a person."),
    _seconds(
        "kandev_action_duration_seconds",
        CALLS,
        "Actions of the protocol, from the handler's start to its reply.",
        "action",
        "outcome",
    ),
    _counter("kandev_action_errors_total", "Actions whose handler refused, by the code of the error.", "code"),
    _gauge("kandev_websocket_connections", "Open sockets of clients."),
    _seconds(
        "kandev_agent_to_socket_latency_seconds",
        QUICK,
        "From the reading of what an agent said until a socket took it; the oldest of what was sent together.",
    ),
    _counter(
        "kandev_acp_messages_total",
        "JSON-RPC messages from (in) and to (out) agents; method is none for answers.",
        "direction",
        "kind",
        "method",
    ),
    _counter("kandev_bus_events_total", "Events given to the bus.", "event"),
    _seconds("kandev_bus_lag_seconds", QUICK, "From the making of an event until the bus had it; the oldest of each."),
    _seconds("kandev_store_duration_seconds", QUICK, "Operations of the store.", "operation"),
    _counter("kandev_store_errors_total", "Operations of the store that failed.", "operation", "code"),
    _counter("kandev_store_commits_total", "Commits: written, or refused by a precondition or the store.", "outcome"),
    _gauge("kandev_journal_queue_commits", "Commits that wait to be written."),
    _gauge("kandev_journal_queue_bytes", "About how much the commits that wait hold."),
    _counter("kandev_spawns_total", "Processes started in jails and containers.", "runtime", "kind", "outcome"),
    _seconds(
        "kandev_spawn_duration_seconds", STARTS, "From asking for a process until it was there.", "runtime", "kind"
    ),
    _seconds(
        "kandev_command_duration_seconds", CALLS, "Short commands of the host in jails (git …), whole.", "runtime"
    ),
    _gauge("kandev_asyncio_tasks", "Tasks of the host's event loop."),
    _gauge("kandev_uptime_seconds", "Since this host opened."),
    _gauge("kandev_build_info", "Always 1.", "version", "python"),
)

METRICS: dict[str, Metric] = {metric.name: metric for metric in _LIST}
