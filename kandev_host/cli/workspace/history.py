"""`kandev-host workspace snapshot`, `snapshots`, `diff` and `restore`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from kandev_host.cli.asking import Remote, asking, confirm, paged, yes_option
from kandev_host.cli.ids import LEAST_CHARS, PAGE, find, is_ending, is_id, short
from kandev_host.cli.options import example
from kandev_host.cli.output import counted, done, hints, table
from kandev_host.cli.shown import moment, text
from kandev_host.cli.task.reading import show_diff
from kandev_host.printable import printable

_WORDS = ("base", "now")


@click.command(
    epilog=example(
        "kandev-host workspace snapshot 0c9e6a41 --label 'before the big change'\n"
        "kandev-host workspace snapshot 0c9e6a41 --json | jq -r .snapshot.id"
    )
)
@click.argument("task")
@click.option("--label", help="What it is, for people.")
@asking
async def snapshot(remote: Remote, task: str, label: str | None) -> None:
    """Keep what a workspace holds now. By itself one is kept before an agent begins and at the end of each turn."""
    reply = await remote.call("workspace.snapshot", task_id=await find(remote, "task", task), label=label)
    taken = reply["snapshot"]

    def plain() -> None:
        done("Took snapshot", short(taken["id"]), _holds(taken))
        _left_out(taken)

    remote.show(reply, plain)


@click.command(
    epilog=example(
        "kandev-host workspace snapshots 0c9e6a41\nkandev-host workspace snapshots 0c9e6a41 --json | jq '.snapshots[0]'"
    )
)
@click.argument("task")
@paged
@asking
async def snapshots(remote: Remote, task: str, **paging: Any) -> None:
    """The snapshots of a workspace, newest first."""

    def plain(rows: list[dict[str, Any]]) -> None:
        table(
            ["SNAPSHOT", "WHEN", "KIND", "CHANGED", "HOLDS", "BRANCH", "LABEL"],
            (
                [
                    short(row["id"]),
                    moment(row["created_at"]),
                    row["kind"],
                    text(row["changed_files"]),
                    _holds(row),
                    text(row["branch"]),
                    text(row["label"]),
                ]
                for row in rows
            ),
        )

    await remote.pages("workspace.snapshots", "snapshots", plain, paging, task_id=await find(remote, "task", task))


@click.command(
    epilog=example(
        "kandev-host workspace diff 0c9e6a41\n"
        "kandev-host workspace diff 0c9e6a41 --from 5d1f02aa --to now\n"
        "kandev-host workspace diff 0c9e6a41 --json | jq -r .diff | git apply"
    )
)
@click.argument("task")
@click.option("--from", "old", metavar="SNAPSHOT", help="A snapshot, or base: before the first agent [default: base].")
@click.option("--to", "new", metavar="SNAPSHOT", help="A snapshot, or now [default: now].")
@asking
async def diff(remote: Remote, task: str, old: str | None, new: str | None) -> None:
    """What changed between two moments. What a terminal might obey is escaped: --json has every byte."""
    task_id = await find(remote, "task", task)
    moments = {name: await _find(remote, task_id, word) for name, word in (("from", old), ("to", new)) if word}
    show_diff(remote, await remote.call("workspace.diff", {"task_id": task_id, **moments}))


@click.command(
    epilog=example(
        "kandev-host workspace restore 0c9e6a41 5d1f02aa\n"
        "kandev-host workspace restore 0c9e6a41 5d1f02aa --yes --json | jq -r .before.id"
    )
)
@click.argument("task")
@click.argument("snapshot")
@click.option("--force", is_flag=True, help="Also while an agent or a shell works there, or where it cannot be undone.")
@yes_option
@asking
async def restore(remote: Remote, task: str, snapshot: str, force: bool, yes: bool) -> None:
    """Make the files of a workspace what a snapshot holds; what they were is kept, to go back to.

    Files that .gitignore leaves out, and what was committed, stay as they are.
    """
    task_id = await find(remote, "task", task)
    snapshot_id = await _find(remote, task_id, snapshot)
    confirm(f"Make the workspace of task {short(task_id)} what snapshot {short(snapshot_id)} holds?", yes=yes)
    reply = await remote.call("workspace.restore", task_id=task_id, snapshot_id=snapshot_id, force=force)

    def plain() -> None:
        files = f"{counted(reply['written'], 'file')} written, {reply['deleted']} deleted"
        done("Restored snapshot", short(snapshot_id), files)
        _left_out(reply)
        hints([("To undo it", f"kandev-host workspace restore {short(task_id)} {short(reply['before']['id'])}")])

    remote.show(reply, plain)


async def _find(remote: Remote, task_id: str, word: str) -> str:
    """The id of a snapshot of this task, or one of the words for a moment. Raises `UsageError`."""
    wanted = word.strip().lower()
    if wanted in _WORDS or is_id(wanted):
        return wanted
    if not is_ending(wanted):
        raise click.UsageError(f"{word!r} is no snapshot: give its id, or the last {LEAST_CHARS} characters of it.")
    found: list[str] = []
    cursor = None
    while True:
        page = await remote.call("workspace.snapshots", task_id=task_id, limit=PAGE, cursor=cursor)
        found += [row["id"] for row in page["snapshots"] if row["id"].endswith(wanted)]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    if len(found) != 1:
        raise click.UsageError(f"{word!r} stands for {counted(len(found), 'snapshot')} of this task.")
    return found[0]


def _holds(row: Mapping[str, Any]) -> str:
    """What is in it, or why there is nothing."""
    if row["error"] is not None:
        return f"failed: {row['error']}"
    told = f"{counted(row['files'], 'file')}, {row['bytes']} bytes"
    told += f", {row['skipped_files']} left out" if row["skipped_files"] else ""
    return told + (f"; not whole: too much {row['cut']}" if row["cut"] else "")


def _left_out(told: Mapping[str, Any]) -> None:
    for skipped in told["skipped"]:
        click.echo(f"Left out: {printable(skipped['path'])} ({printable(skipped['reason'])})", err=True)
    more = told["skipped_files"] - len(told["skipped"])
    if more > 0:
        click.echo(f"and {more} more", err=True)
