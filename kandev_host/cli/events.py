"""`kandev-host events`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kandev_host.cli.asking import Remote
from kandev_host.cli.ids import find, short
from kandev_host.cli.options import as_json as json_option
from kandev_host.cli.options import example, place, settings_options
from kandev_host.cli.output import emit
from kandev_host.cli.running.outage import Outage
from kandev_host.cli.shown import moment
from kandev_host.printable import printable

if TYPE_CHECKING:
    from kandev_host.client import Client, Notification, ReconnectingClient
    from kandev_host.settings.load import Loaded

_KINDS = ("task", "board", "agent", "shell")


@click.command(
    epilog=example(
        "kandev-host events --follow\n"
        "kandev-host events --topic task:0c9e6a41\n"
        "kandev-host events --follow --after 1200 --json | jq 'select(.action == \"task.created\")'"
    )
)
@click.option(
    "--topic", "topics", multiple=True, metavar="TOPIC", help="task:ID, board:ID, agent:ID, shell:ID; repeatable."
)
@click.option("--follow", "-f", is_flag=True, help="Go on with what happens, until Ctrl-C, also over restarts.")
@click.option("--after", "after_seq", type=click.IntRange(0), metavar="SEQ", help="Only after this event.")
@settings_options
@json_option
def command(
    topics: tuple[str, ...],
    follow: bool,
    after_seq: int | None,
    config: Path | None,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """What happened, as the host keeps it; with --follow, what happens.

    --follow without --after begins now. A host that goes away is waited for, and nothing is missed or shown twice.
    With --json, one notification a line.
    """
    loaded = place(config, data_dir)
    import anyio

    show = _emit if as_json else _line
    anyio.run(_follow if follow else _stored, loaded, topics, after_seq, show)


async def _stored(loaded: Loaded, topics: tuple[str, ...], after_seq: int | None, show: Any) -> None:
    from kandev_host.cli.access import running_client
    from kandev_host.client import ClientError

    async with running_client(loaded) as client:
        wanted = await _topics(client, topics)
        first = after_seq or 0
        try:
            await _print(client, wanted, first, show)
        except ClientError as error:
            oldest = error.details.get("oldest")
            if after_seq is not None or not error.resync_required or oldest is None:
                raise
            await _print(client, wanted, oldest - 1, show)


async def _print(client: Client, topics: list[str], after_seq: int, show: Any) -> None:
    async for notification in client.history(*topics, after_seq=after_seq):
        show(notification)


async def _follow(loaded: Loaded, topics: tuple[str, ...], after_seq: int | None, show: Any) -> None:
    from kandev_host.cli.access import moving_host, running_client
    from kandev_host.client import Backoff, ReconnectingClient

    async with running_client(loaded) as client:
        wanted = await _topics(client, topics)
    where, token = moving_host(loaded)
    patient = Backoff(give_up_s=float("inf"))
    outage = Outage(lambda text: click.echo(printable(text), err=True))
    client_: ReconnectingClient = ReconnectingClient(
        where, token, backoff=patient, on_lost=outage.begins, on_back=outage.ends
    )
    async with client_:
        await client_.subscribe(*wanted, after_seq=after_seq)
        async for notification in client_.notifications():
            show(notification)


async def _topics(client: Client, topics: tuple[str, ...]) -> list[str]:
    """The topics with whole ids."""
    remote = Remote(client, as_json=False)
    found = []
    for topic in topics or ("*",):
        kind, _, id = topic.partition(":")
        if topic != "*" and (kind not in _KINDS or not id):
            raise click.UsageError(f"--topic: {topic!r} is none of task:ID, board:ID, agent:ID, shell:ID and *.")
        found.append(topic if topic == "*" else f"{kind}:{await find(remote, kind, id)}")
    return found


def _emit(notification: Notification) -> None:
    emit({"type": "notification", **{name: getattr(notification, name) for name in notification.__struct_fields__}})


def _line(notification: Notification) -> None:
    payload = notification.payload if isinstance(notification.payload, dict) else {}
    seq = "-" if notification.seq is None else notification.seq
    line = f"{seq:>8} {moment(notification.timestamp)} {notification.action:24} {_subject(payload)} {_told(payload)}"
    click.echo(printable(line.rstrip()))


def _subject(payload: Mapping[str, Any]) -> str:
    """What it is about: the ending of an id."""
    for kind in ("task", "board", "column", "agent", "permission", "shell"):
        if isinstance(payload.get(kind), dict):
            return f"{kind} {short(payload[kind].get('id'))}"
    for kind in ("agent", "shell", "task", "board"):
        if payload.get(f"{kind}_id"):
            return f"{kind} {short(payload[f'{kind}_id'])}"
    return ""


def _told(payload: Mapping[str, Any]) -> str:
    """The most telling of its fields, cut to a line."""
    if "how_to_allow" in payload:
        return _network(payload)
    if isinstance(command := payload.get("command"), dict):
        code = command.get("exit_code")
        ended = "" if code is None else f" with {code}"
        return f"{command.get('state')}{ended}: {' '.join(str(command.get('command')).split())}"[:200]
    if "offset" in payload and "data" in payload:
        return f"{payload.get('stream')}: {payload['data']!r}"[:200]
    inner = next((payload[kind] for kind in ("task", "agent", "board", "column", "shell") if kind in payload), payload)
    inner = inner if isinstance(inner, dict) else payload
    for names in (
        ("state", "title", "reason"),
        ("status", "activity"),
        ("level", "message"),
        ("name",),
        ("message",),
        ("code",),
    ):
        if inner.get(names[0]) is not None:
            return " ".join(str(inner[name]) for name in names if inner.get(name) is not None)[:200]
    return ""


def _network(payload: Mapping[str, Any]) -> str:
    count, moved = payload.get("count", 1), (payload.get("sent_bytes", 0), payload.get("received_bytes", 0))
    times = f" ({count} times)" if count > 1 else ""
    if any(moved):
        times += f" ({moved[0]} bytes out, {moved[1]} in)"
    how = f"; to allow it: {payload['how_to_allow']}" if payload.get("how_to_allow") else ""
    verdict = "allowed" if payload.get("allowed") else "denied"
    return f"{verdict} {payload.get('host')}:{payload.get('port')}{times}: {payload.get('reason')}{how}"
