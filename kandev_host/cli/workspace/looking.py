"""`kandev-host workspace get`, `files` and `read`."""

from __future__ import annotations

import base64
import os
import sys
from typing import Any

import click

from kandev_host.cli.asking import Remote, asking, paged
from kandev_host.cli.ids import find, short
from kandev_host.cli.options import example
from kandev_host.cli.output import counted, emit, fields, table
from kandev_host.cli.shown import moment
from kandev_host.printable import printable

PART_BYTES = 1 << 20


def size_told(size: int | None) -> str:
    """As in `12 MiB`; "-" for unknown."""
    if size is None:
        return "-"
    shown, unit = float(size), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if shown < 1024 or unit == "TiB":
            break
        shown /= 1024
    return f"{shown:.0f} {unit}" if shown >= 100 or unit == "B" else f"{shown:.1f} {unit}"


def path_fields(path: str) -> dict[str, str]:
    """The fields of a request; a name that is not UTF-8 came in as bytes that Python smuggled through the arguments."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return {"path": base64.b64encode(os.fsencode(path)).decode(), "path_encoding": "base64"}
    return {"path": path, "path_encoding": "utf-8"}


@click.command(
    epilog=example("kandev-host workspace get 0c9e6a41\nkandev-host workspace get 0c9e6a41 --json | jq .bytes")
)
@click.argument("task")
@click.option("--quick", is_flag=True, help="Do not look for work that is nowhere else: that runs git.")
@asking
async def get(remote: Remote, task: str, quick: bool) -> None:
    """A task's workspace: its branch, what it takes of the disk, who needs it, and what a deletion would lose."""
    reply = await remote.call("workspace.get", task_id=await find(remote, "task", task), unsaved=not quick)
    remote.show(reply, lambda: fields(_told(reply)))


def _told(reply: dict[str, Any]) -> list[tuple[str, Any]]:
    workspace, limits = reply["workspace"], reply["limits"] or {}
    pairs = [(name, workspace[name]) for name in ("runtime", "repository_url", "branch", "base_branch", "base_commit")]
    pairs.insert(0, ("path", reply["path"]))
    pairs += [
        ("size", _of(size_told(reply["bytes"]), size_told(limits.get("bytes")))),
        ("files", _of(reply["inodes"] or "-", limits.get("inodes") or "-")),
        ("made", moment(workspace["created_at"])),
        ("needed by", ", ".join(f"{holder['kind']} {short(holder['id'])}" for holder in reply["held_by"]) or "nobody"),
    ]
    if reply["unsaved"] is not None:
        pairs.append(("only here", _unsaved(reply["unsaved"])))
    return pairs


def _unsaved(work: dict[str, Any]) -> str:
    if work["reason"] is not None:
        return f"not known: {work['reason']}"
    names = (
        f" ({', '.join(work['names'])}{' …' if work['files'] > len(work['names']) else ''})" if work["files"] else ""
    )
    return f"{counted(work['files'], 'changed file')}{names}, {counted(work['commits'], 'commit')}"


def _of(used: Any, limit: Any) -> str:
    return str(used) if limit == "-" else f"{used} of {limit}"


@click.command(
    epilog=example(
        "kandev-host workspace files 0c9e6a41\n"
        "kandev-host workspace files 0c9e6a41 src --depth 5 --all --json | jq -r '.entries[].path'"
    )
)
@click.argument("task")
@click.argument("path", default="")
@click.option("--depth", type=click.IntRange(1, 64), default=1, metavar="N", help="So many levels [default: 1].")
@paged
@asking
async def files(remote: Remote, task: str, path: str, depth: int, **paging: Any) -> None:
    """What is in a task's workspace, or in one folder of it. Links are shown, and never followed."""

    def plain(entries: list[dict[str, Any]]) -> None:
        table(
            ["MODE", "SIZE", "CHANGED", "PATH"],
            (
                [
                    f"{entry['kind'][0] if entry['kind'] != 'symlink' else 'l'} {entry['mode']:04o}",
                    "-" if entry["size"] is None else str(entry["size"]),
                    moment(entry["modified_at"]),
                    _name(entry) + (f" -> {entry['target']}" if entry["target"] is not None else ""),
                ]
                for entry in entries
            ),
        )

    task_id = await find(remote, "task", task)
    named: dict[str, Any] = path_fields(path)
    await remote.pages("workspace.files", "entries", plain, paging, task_id=task_id, depth=depth, **named)


def _name(entry: dict[str, Any]) -> str:
    if entry["path_encoding"] == "utf-8":
        return str(entry["path"])
    return base64.b64decode(entry["path"]).decode("utf-8", "backslashreplace")


@click.command(
    epilog=example(
        "kandev-host workspace read 0c9e6a41 README.md\n"
        "kandev-host workspace read 0c9e6a41 dist/app.tar.gz > app.tar.gz\n"
        "kandev-host workspace read 0c9e6a41 big.log --offset 1000000 --limit 4096"
    )
)
@click.argument("task")
@click.argument("path")
@click.option("--offset", type=click.IntRange(0), default=0, metavar="N", help="From this byte on [default: 0].")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most so many bytes [default: all].")
@asking
async def read(remote: Remote, task: str, path: str, offset: int, limit: int | None) -> None:
    """Print a file of a task's workspace. At a terminal what that might obey is escaped; a pipe gets every byte."""
    task_id, left, last = await find(remote, "task", task), limit, ""
    named: dict[str, Any] = path_fields(path)
    while True:
        size = PART_BYTES if left is None else min(left, PART_BYTES)
        reply = await remote.call("workspace.read", task_id=task_id, offset=offset, limit=size, **named)
        if remote.as_json:
            emit(reply)
        else:
            last = _print(reply) or last
        following = reply["next_offset"]
        if left is not None:
            left -= (reply["size"] if following is None else following) - offset
        if following is None or (left is not None and left <= 0):
            break
        offset = following
    if last and not last.endswith("\n"):
        click.echo()


def _print(reply: dict[str, Any]) -> str:
    """What was shown at a terminal; "" where bytes were written to a pipe."""
    is_text = reply["encoding"] == "utf-8"
    content = reply["content"].encode() if is_text else base64.b64decode(reply["content"])
    if not sys.stdout.isatty():
        click.echo(content, nl=False)
        return ""
    shown = printable(content.decode("utf-8", "backslashreplace"), lines=True)
    click.echo(shown, nl=False)
    return shown
