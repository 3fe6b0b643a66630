"""`kandev-host status`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kandev_host.cli.options import as_json, example, place, settings_options
from kandev_host.cli.output import counted, emit, fields, hints
from kandev_host.errors import StartupError

if TYPE_CHECKING:
    from kandev_host.settings.load import Loaded

ASKED_S = 60.0
ENDS_S = 2.0
NOT_RUNNING = 3  # as in LSB


@click.command(
    epilog=example("kandev-host status\nkandev-host status --json | jq '.problems[]'\nkandev-host status || alert")
)
@settings_options
@as_json
def command(config: Path | None, data_dir: Path | None, as_json: bool) -> int:
    """How the running host is: store, bus, runtimes, plugins, disk, queue, backups, settings.

    Exit status 0 if it is well, 1 if it is degraded or does not answer, 3 if none runs.
    """
    import anyio

    from kandev_host.cli.access import remote
    from kandev_host.presence import holder

    loaded = place(config, data_dir)
    if remote(loaded)[0] is None:
        with holder(loaded.data_dir) as host:
            if host is None:
                return _none(loaded, as_json)
            raise StartupError(f"the host (pid {host.pid}) is starting or stopping: kandev-host logs says more")
    try:
        info = anyio.run(_asked, loaded)
    except Exception:
        if _ended(loaded):
            return _none(loaded, as_json)
        raise
    if as_json:
        emit(info)
    else:
        fields(_lines(info))
        for each in info["problems"]:
            hints((name, text) for name, text in (("Problem", each["message"]), ("Fix", each["fix"])) if text)
    return 0 if info["status"] == "ok" else 1


def _ended(loaded: Loaded) -> bool:
    """Did the host of this machine end while it was asked?"""
    from kandev_host.presence import holder

    if "KANDEV_URL" in os.environ:
        return False
    try:
        with holder(loaded.data_dir) as host:
            return host is None or host.ended(ENDS_S)
    except StartupError:  # what went wrong first says more
        return False


def _none(loaded: Loaded, as_json: bool) -> int:
    from kandev_host.presence import died

    how = "none runs; the last one died" if died(loaded.data_dir) else "none runs"
    if as_json:
        emit({"status": "not running", "reason": how, "fix": "kandev-host up"})
    else:
        fields([("status", f"{how} on {loaded.data_dir}"), ("start it", "kandev-host up")])
    return NOT_RUNNING


async def _asked(loaded: Loaded) -> dict[str, Any]:
    import anyio

    from kandev_host.cli.access import running_client

    with anyio.move_on_after(ASKED_S):
        async with running_client(loaded) as client:
            found: dict[str, Any] = await client.call("host.info")
            return found
    raise StartupError(f"the host does not answer within {ASKED_S:g} s; its log says more: kandev-host logs")


def _lines(info: dict[str, Any]) -> Iterator[tuple[str, str]]:
    from kandev_host.cli.keeping import size

    process, store, queue, backup, settings = (
        info[part] for part in ("process", "store", "queue", "backup", "settings")
    )
    yield "status", info["status"]
    yield "host", f"{info['version']}, pid {process['pid']}, up for {_time(process['uptime_s'])}"
    yield "address", ", ".join(process["addresses"])
    yield "memory", f"{_size(process['memory_bytes'])}, {counted(process['sockets'], 'socket')}"
    events = f"events {store['oldest']} to {store['head']}" if store["head"] else "no events yet"
    journal = f"{events}, {store['waiting_commits']} commits wait"
    answers = "" if store["answers"] is not False else "; DOES NOT ANSWER"
    yield "store", f"{store['name']}, {_size(store['size_bytes'])} (log {_size(store['log_bytes'])}){answers}"
    yield "journal", f"{journal}, last at {store['committed_at'] or '-'}"
    yield "checked", f"sound at {store['checked_at']}" if store["checked_at"] else "not since the start"
    bus = info["bus"]
    lag = "unknown" if bus["lag_s"] is None else f"{1000 * bus['lag_s']:.0f} ms"
    yield "bus", f"{bus['name']}, {_number(bus['subscriptions'])} subscriptions, lag {lag}"
    disk = info["disk"]
    if disk is not None:
        yield "disk", f"{size(disk['free_bytes'])} of {size(disk['size_bytes'])} free at {disk['path']}"
    yield "agents", f"{queue['live_agents']} live, of {queue['capacity']} that the queue starts"
    yield "queue", f"{_number(queue['waiting'])} wait, {_number(queue['running'])} run"
    yield "backup", f"last {backup['last_at'] or 'never'}, next {backup['next_at'] or 'never'}"
    for runtime in info["runtimes"]:
        found = runtime["availability"]
        default = " (default)" if runtime["default"] else ""
        yield f"runtime {runtime['name']}{default}", "ok" if found["ok"] else str(found["reason"])
    states: dict[str, list[str]] = {}
    for plugin in info["plugins"]:
        states.setdefault(plugin["state"], []).append(plugin["name"])
    yield "plugins", "; ".join(f"{state}: {', '.join(names)}" for state, names in states.items())
    yield "settings", f"{settings['path'] or 'defaults, no file'}, read at {settings['loaded_at']}"
    if settings["problem"] is not None:
        yield "refused since", settings["problem"]
    if settings["restart"]:
        yield "needs a restart", ", ".join(settings["restart"])


def _size(number: int | None) -> str:
    from kandev_host.cli.keeping import size

    return "-" if number is None else size(number)


def _number(number: int | None) -> str:
    return "?" if number is None else str(number)


def _time(seconds: float) -> str:
    """As in 2 d 3 h, or 4 min."""
    minutes, hours, days = int(seconds) // 60, int(seconds) // 3600, int(seconds) // 86_400
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{seconds:.0f} s"
