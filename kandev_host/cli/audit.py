"""`kandev-host audit`."""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import click

from kandev_host.cli.asking import given, paged
from kandev_host.cli.ids import short
from kandev_host.cli.inputs import MOMENT
from kandev_host.cli.options import as_json, example, load_settings, settings_options
from kandev_host.cli.output import counted, emit, table
from kandev_host.printable import printable

if TYPE_CHECKING:
    from kandev_host.audit.key import Head
    from kandev_host.audit.verify import Verdict
    from kandev_host.interfaces import Progress
    from kandev_host.models import AuditRow
    from kandev_host.protocol.actions.audit import AuditReply
    from kandev_host.settings.load import Loaded

    Ask = Callable[..., Awaitable[AuditReply]]

PAGE = 500
# Of one page, while the host says that these are too many requests.
PATIENCE_S = 60.0
LINE_LIMIT_BYTES = 1 << 20
KINDS = (
    "auth", "access", "policy", "approval", "credential", "launch", "deletion", "settings", "backup", "host", "audit",
    "action",
)  # fmt: skip
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.group(
    epilog=example(
        "kandev-host audit list --kind credential\nkandev-host audit verify\nkandev-host audit export audit.jsonl"
    )
)
def command() -> None:
    """Who did what: read it, check that nothing was changed, carry it elsewhere. Also while no host runs."""


@command.command(
    "list",
    epilog=example(
        "kandev-host audit list --actor ada --limit 20\nkandev-host audit list --kind auth --since 2026-01-31 --all\n"
        "kandev-host audit list --task 0c9e6a41-7f5b-7000-8000-3a6c2b1d4e5f --json | jq .rows"
    ),
)
@click.option("--kind", type=click.Choice(KINDS), help="Only of this kind.")
@click.option("--actor", metavar="USER", help="Only what this user did, by id or name; also host, policy, unknown.")
@click.option("--task", metavar="ID", help="Only of this task, which may be deleted.")
@click.option("--since", type=MOMENT, metavar="TIME", help="Only then or later, in UTC.")
@click.option("--until", type=MOMENT, metavar="TIME", help="Only before, in UTC.")
@click.option("--oldest-first", is_flag=True, help="From the first row on; else from the last one back.")
@paged
@settings_options
@as_json
def list_rows(
    config: Path | None,
    data_dir: Path | None,
    as_json: bool,
    every: bool,
    task: str | None,
    since: datetime | None,
    until: datetime | None,
    **fields: Any,
) -> None:
    """The rows of the audit, newest first."""
    import anyio

    times = {"since": _utc(since), "until": _utc(until)}
    loaded = load_settings(config, data_dir)
    anyio.run(_list, loaded, given(task_id=task, **times, **fields), every, as_json)


async def _list(loaded: Loaded, fields: dict[str, Any], every: bool, as_json: bool) -> None:
    found: list[AuditRow] = []
    async with _reading(loaded) as audit:
        while True:
            reply = await audit.ask(**fields)
            if as_json:
                emit(reply)
            else:
                found += reply.rows
            if reply.next_cursor is None or not every:
                break
            fields["cursor"] = reply.next_cursor
    if not as_json:
        table(
            ["ROW", "TIME", "KIND", "ACTION", "OUTCOME", "ACTOR", "ADDRESS", "TASK", "DETAILS"],
            (
                [
                    str(row.seq),
                    row.created_at.strftime("%Y-%m-%d %H:%M:%S"),
                    row.kind,
                    row.action,
                    row.outcome,
                    row.actor_name or row.actor,
                    row.address or "-",
                    short(row.task_id) if row.task_id else "-",
                    ", ".join(f"{name}={value}" for name, value in row.details.items() if value is not None),
                ]
                for row in found
            ),
        )
    if reply.next_cursor is not None:
        click.echo(f"There are more: --cursor {printable(reply.next_cursor)} goes on, --all shows all.", err=True)


@command.command(
    epilog=example(
        "kandev-host audit verify\nkandev-host audit verify --json | jq .problem\n"
        "kandev-host audit verify audit.jsonl --key /safe/audit-key"
    )
)
@click.argument("source", metavar="[FILE]", required=False, type=_FILE)
@click.option(
    "--key",
    "keys",
    multiple=True,
    type=_FILE,
    help="A file with a key that rows were made with [default: audit-key in the data folder]. May be repeated.",
)
@settings_options
@as_json
def verify(
    config: Path | None, data_dir: Path | None, source: Path | None, keys: tuple[Path, ...], as_json: bool
) -> int:
    """Check every row of the audit, or of a FILE that export wrote, and name the first bad one.

    Exit status 1 if there is one. Whoever has the key, or is root, can make rows that hold: keep an export elsewhere.
    """
    import anyio

    loaded = load_settings(config, data_dir)
    known = keys_of(loaded, keys)
    verdict = _of_file(source, known) if source is not None else anyio.run(of_host, loaded, known)
    if as_json:
        emit(verdict)
    else:
        _tell(verdict)
    return 0 if verdict.problem is None else 1


@command.command(epilog=example("kandev-host audit export audit.jsonl\nkandev-host audit export - | gzip > audit.gz"))
@click.argument("target", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@settings_options
@as_json
def export(config: Path | None, data_dir: Path | None, target: Path, as_json: bool) -> None:
    """Write all rows as lines of JSON, with what is needed to check them elsewhere but for the key.

    A FILE of - is standard output.
    """
    import anyio

    from kandev_host.cli.export import written

    loaded = load_settings(config, data_dir)
    with written(target) as file:
        number = anyio.run(_export, loaded, file)
    to_stdout = str(target) == "-"
    if as_json:
        emit({"path": None if to_stdout else str(target), "rows": number}, err=to_stdout)
    else:
        click.echo(f"Exported {counted(number, 'row')}", err=to_stdout)


async def _export(loaded: Loaded, file: BinaryIO) -> int:
    import msgspec

    from kandev_host.audit.key import read_head
    from kandev_host.cli.keeping import progress
    from kandev_host.models import now
    from kandev_host.version import __version__

    head = read_head(loaded.data_dir)
    encode = msgspec.json.encode
    file.write(encode({"kandev_audit": 1, "version": __version__, "exported_at": now(), "head": head}) + b"\n")
    number = 0
    async with _reading(loaded) as audit:
        async for row in _rows(audit.ask, head, progress()):
            file.write(encode(row) + b"\n")
            number += 1
    file.write(encode({"end": number}) + b"\n")
    return number


async def of_host(loaded: Loaded, keys: Mapping[str, bytes], *, within_s: float | None = None) -> Verdict:
    """Of the host that runs, else of its store; of as much as can be read `within_s`, quietly.

    Raises `ClientError`, `StartupError`.
    """
    import anyio

    from kandev_host.audit.key import read_head
    from kandev_host.audit.verify import Verifier
    from kandev_host.cli.keeping import progress

    # First: a host that runs goes on meanwhile, and what it wrote down before must still be there.
    here = "KANDEV_URL" not in os.environ
    head: Head | None = read_head(loaded.data_dir) if here else None
    verifier = Verifier(keys, head)
    with anyio.move_on_after(math.inf if within_s is None else within_s) as scope:
        async with _reading(loaded) as audit:
            verifier = Verifier(keys, head, needs_head=here and audit.begun)
            async for row in _rows(audit.ask, head, progress() if within_s is None else None):
                verifier.add(row)
    return verifier.so_far() if scope.cancelled_caught else verifier.verdict()


def _of_file(path: Path, keys: Mapping[str, bytes]) -> Verdict:
    import msgspec

    from kandev_host.audit.key import Head
    from kandev_host.audit.verify import Verifier
    from kandev_host.errors import ValidationFailed
    from kandev_host.models import AuditRow

    try:
        lines = _lines(path)
        first = msgspec.json.decode(next(lines), type=dict[str, Any])
        if first.get("kandev_audit") != 1:
            raise ValidationFailed("file", f"{path.name} is no export of the audit")
        verifier = Verifier(keys, None if first["head"] is None else msgspec.convert(first["head"], Head))
        ended = False
        for number, line in enumerate(lines):
            if line.startswith(b'{"end":'):
                ended = msgspec.json.decode(line, type=dict[str, int])["end"] == number
                break
            verifier.add(msgspec.json.decode(line, type=AuditRow))
    except (msgspec.MsgspecError, StopIteration, KeyError) as error:
        raise ValidationFailed("file", f"{path.name} is no export of the audit, or damaged: {error}") from error
    if not ended and verifier.verdict().problem is None:
        raise ValidationFailed("file", f"{path.name} was cut, or lines were added: export it again")
    return verifier.verdict()


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while line := file.readline(LINE_LIMIT_BYTES):
            yield line


def keys_of(loaded: Loaded, named: tuple[Path, ...] = ()) -> dict[str, bytes]:
    """By their ids. Raises `StartupError` when there is none."""
    from kandev_host.audit.key import KEY_FILE, read_head, read_key
    from kandev_host.errors import StartupError
    from kandev_host.models import key_id_of

    found = [read_key(path) for path in (named or (loaded.data_dir / KEY_FILE,))]
    keys = {key_id_of(key): key for key in found if key is not None}
    if not keys:
        if not named and read_head(loaded.data_dir) is None:
            raise StartupError(
                f"there is no key {loaded.data_dir / KEY_FILE}. If no host was up here, there is no audit yet either:"
                " the first kandev-host up begins it. Else name a copy of the key with --key"
            )
        raise StartupError(f"there is no key {loaded.data_dir / KEY_FILE}: name another one with --key")
    return keys


class _Audit(NamedTuple):
    """`begun` is whether a host has lived here: it wrote rows, and how far they go."""

    ask: Ask
    begun: bool = True


@asynccontextmanager
async def _reading(loaded: Loaded) -> AsyncIterator[_Audit]:
    """Asks the host that runs; else the store itself, which nobody else has open then."""
    from kandev_host.cli.access import remote

    url, token = remote(loaded)
    if url is not None and token is not None:
        async with _client(url, token) as ask:
            yield _Audit(ask)
        return
    from kandev_host.audit.key import KEY_FILE, read_head
    from kandev_host.cli.keeping import alone
    from kandev_host.errors import StartupError
    from kandev_host.gateway.tokens import LOCAL_USER
    from kandev_host.interfaces import Environment
    from kandev_host.models import AuditRow
    from kandev_host.plugins import load_plugins
    from kandev_host.protocol.actions.audit import AuditList
    from kandev_host.selection import opening
    from kandev_host.services.audit import AuditService
    from kandev_host.version import __version__

    if not (loaded.data_dir / KEY_FILE).exists():
        raise StartupError(f"there is no audit in {loaded.data_dir}: the first kandev-host up begins it")
    if not _stored(loaded):
        if read_head(loaded.data_dir) is None:
            raise StartupError(
                f"there is no audit in {loaded.data_dir}, but the key of one: hosts may have lived here, and their"
                " database and audit-head are gone; restore a backup of them"
            )
        yield _Audit(_nothing)  # rows that are known to have been
        return
    with alone(loaded, "reading the audit"):
        plugins = load_plugins(loaded.settings.plugins)
        environment = Environment(str(loaded.data_dir), __version__)
        open_it = opening(plugins, loaded.settings, "store", loaded.settings.use.store, environment)
        async with open_it() as store:
            service = AuditService(store)
            # As the next start sees it (AuditLog.look): a command that only looked made the key, and no row.
            rows = (await store.find(AuditRow, limit=1)).rows
            begun = bool(rows) or (await store.journal_state()).head > 0
            yield _Audit(lambda **fields: service.list(LOCAL_USER, AuditList(**fields)), begun)


def _stored(loaded: Loaded) -> bool:
    """Is there a database? It is not made by looking."""
    from kandev_host.cli.keeping import origin_of
    from kandev_host.errors import Unavailable

    try:
        return origin_of(loaded).upkeep.size_bytes() is not None
    except Unavailable:  # a store that does not say
        return True


async def _nothing(**_fields: Any) -> AuditReply:
    from kandev_host.protocol.actions.audit import AuditReply

    return AuditReply(rows=[], next_cursor=None)


@asynccontextmanager
async def _client(url: str, token: str) -> AsyncIterator[Ask]:
    import anyio
    import msgspec

    from kandev_host.client import ClientError, connect
    from kandev_host.protocol.actions.audit import AuditReply

    async with connect(url, token) as client:

        async def ask(**fields: Any) -> AuditReply:
            payload, ends_s = msgspec.to_builtins(fields), anyio.current_time() + PATIENCE_S
            while True:
                try:
                    return msgspec.convert(await client.call("audit.list", payload), AuditReply)
                except ClientError as error:
                    wait_s = float(error.details.get("retry_after_s") or 0.1)
                    if error.code != "RATE_LIMITED" or anyio.current_time() + wait_s > ends_s:
                        raise
                await anyio.sleep(wait_s)

        yield ask


async def _rows(ask: Ask, head: Head | None, tell: Progress | None) -> AsyncIterator[AuditRow]:
    """All, oldest first; `head` says about how many there are, for whoever is told."""
    cursor: str | None = None
    while True:
        reply = await ask(oldest_first=True, limit=PAGE, **given(cursor=cursor))
        for row in reply.rows:
            yield row
        cursor = reply.next_cursor
        if cursor is None:
            return
        if tell is not None:
            tell(f"{row.seq} rows read", row.seq, 0 if head is None else head.seq)


def _tell(verdict: Verdict) -> None:
    for mark in verdict.marks:
        at = f"{mark['at']:%Y-%m-%d %H:%M}"
        click.echo(printable(f"From row {mark['seq']} on it is a new chain ({at}): {mark['why']}"))
    for first, last, key_id in verdict.unchecked:
        click.echo(f"Rows {first} to {last} were made with another key ({key_id}), and not checked: name it with --key")
    if verdict.problem is not None:
        click.echo(printable(f"Row {verdict.problem.seq} is bad: {verdict.problem.why}"))
        return
    click.echo(f"{counted(verdict.rows, 'row')}, all in order up to row {verdict.last_seq}")
    if verdict.rows and verdict.head != "holds":
        click.echo(f"Whether rows are missing after that is not known: audit-head is {verdict.head}", err=True)


def _utc(time: datetime | None) -> datetime | None:
    return None if time is None else time.replace(tzinfo=UTC)
