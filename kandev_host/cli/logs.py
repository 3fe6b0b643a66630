"""`kandev-host logs`."""

from __future__ import annotations

import json
import re
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from kandev_host.cli.options import as_json as json_option
from kandev_host.cli.options import example, load_settings, settings_options
from kandev_host.errors import SettingsError
from kandev_host.log_files import Tail
from kandev_host.logs import log_path, text_of
from kandev_host.printable import printable

LEVELS = ("debug", "info", "warning", "error", "critical")
POLL_S = 0.2
# The beginning of a line of text: a traceback follows in lines without one.
_HEAD = re.compile(r"^\d{4}-\d\d-\d\dT\S+ \[(\w+) *\]")
_TASK = re.compile(r" task_id=(\S+)")
_SHOWN = ("timestamp", "level", "event", "logger", "exception")


class Wanted:
    """Which lines are shown. Lines that begin nothing of their own go with the one before."""

    def __init__(self, level: str, task: str | None) -> None:
        self._levels = LEVELS[LEVELS.index(level) :]
        self._task = task
        self._before = True

    def __call__(self, line: str, fields: dict[str, Any] | None) -> bool:
        if fields is not None:
            self._before = self._has(str(fields.get("level")), str(fields.get("task_id", "")))
        elif (head := _HEAD.match(line)) is not None:
            found = _TASK.search(line)
            self._before = self._has(head[1], found[1] if found else "")
        return self._before

    def _has(self, level: str, task_id: str) -> bool:
        return level in self._levels and (self._task is None or task_id.endswith(self._task))


@click.command(
    epilog=example(
        "kandev-host logs --follow --level warning\n"
        "kandev-host logs --task 0c9e6a41 -n 500\n"
        "kandev-host logs --json | jq -r 'select(.level == \"error\").event'"
    )
)
@click.option("--follow", "-f", is_flag=True, help="Go on with what is logged, until Ctrl-C, also over restarts.")
@click.option(
    "--level", type=click.Choice(LEVELS[:4]), default="debug", show_default=True, help="Least level that is shown."
)
@click.option("--task", metavar="ID", help="Only of this task: its id, or the end of it.")
@click.option("-n", "--lines", type=click.IntRange(0), default=100, show_default=True, help="The last so many lines.")
@settings_options
@json_option
def command(
    follow: bool,
    level: str,
    task: str | None,
    lines: int,
    config: Path | None,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """The host's own log, where log.path is a file; also of a host that has ended.

    Reads over the rotation of files, each line once. With --json, one object a line, where log.format is json.
    """
    loaded = load_settings(config, data_dir)
    path = log_path(loaded.settings.log)
    if path is None:
        raise SettingsError(
            "the host logs to its terminal, or to the journal of systemd (journalctl --user -u kandev-host):"
            ' to read its log here, set a file: [log] path = "/path/to/host.log"'
        )
    if not follow and not path.exists():
        raise SettingsError(f"there is no log yet at {path} (log.path)")
    wanted, tail = Wanted(level, task and task.strip().lower()), Tail(path)
    try:
        found = deque(_shown(tail, wanted, as_json), maxlen=lines)
        for line in found:
            click.echo(line)
        if not found and lines:
            of_task = f" of the task {printable(task)}" if task else ""
            click.echo(
                f"kandev-host: {path} has no line{of_task} at level {level} or above;"
                f" the host logs from level {loaded.settings.log.level} on (log.level)",
                err=True,
            )
        while follow:
            for line in _shown(tail, wanted, as_json):
                click.echo(line)
            if tail.missed:
                tail.missed = False
                click.echo("kandev-host: some lines were removed before they could be shown", err=True)
            time.sleep(POLL_S)
    finally:
        tail.close()


def _shown(tail: Tail, wanted: Wanted, as_json: bool) -> Iterator[str]:
    for line in tail.lines():
        fields = _fields(line)
        if not wanted(line, fields):
            continue
        if as_json:
            if fields is None:
                raise SettingsError('this log is text: it has objects with [log] format = "json"')
            yield line
        else:
            yield printable(line) if fields is None else _text(fields)


def _fields(line: str) -> dict[str, Any] | None:
    if not line.startswith("{"):
        return None
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _text(fields: dict[str, Any]) -> str:
    """As the host itself writes text."""
    told = {name: str(fields.get(name)) for name in _SHOWN if name in fields or name != "exception"}
    more = {name: str(value) for name, value in fields.items() if name not in _SHOWN}
    return printable(text_of(told, more), lines=True)
