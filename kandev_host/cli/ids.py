"""Which row is meant: by its whole id, by the ending that tables show, or, of what is in `_NAMED`, by its name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from kandev_host.cli.asking import Remote

SHOWN_CHARS = 8
LEAST_CHARS = 6
PAGE = 500
ID_HELP = f"An id: all of it, or its last {LEAST_CHARS} characters or more."
_WHOLE = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ENDING = re.compile(rf"[0-9a-f-]{{{LEAST_CHARS},35}}")
_LISTS = {
    **{
        kind: (f"{kind}.list", f"{kind}s")
        for kind in ("task", "board", "column", "agent", "permission", "elicitation", "shell")
    },
    "rule": ("permission.rules", "rules"),
    "user": ("user.list", "users"),
    "key": ("key.list", "keys"),
}
_NAMED = {"board", "column", "user"}


def short(id: str | None) -> str:
    """The ending of an id, as tables show it: the beginning is a time, and alike in rows made together."""
    return id[-SHOWN_CHARS:] if id else "-"


def is_id(text: str) -> bool:
    """Is this a whole id?"""
    return _WHOLE.fullmatch(text) is not None


def is_ending(text: str) -> bool:
    """May this be the ending of an id?"""
    return _ENDING.fullmatch(text) is not None


async def find(remote: Remote, kind: str, text: str, *, board_id: str | None = None) -> str:
    """The id of the one `kind` that `text` stands for. Raises `UsageError` for none, or for several.

    A whole id is not looked up. Columns are looked for in one board, or in all.
    """
    wanted = text.strip()
    if is_id(wanted.lower()):
        return wanted.lower()
    ending = wanted.lower() if is_ending(wanted.lower()) else None
    if ending is None and kind not in _NAMED:
        raise click.UsageError(f"{text!r} is no {kind} id: give all of it, or its last {LEAST_CHARS} characters.")
    named, ended = [], []
    async for row in _rows(remote, kind, board_id):
        if kind in _NAMED and row["name"] == wanted:
            named.append(row["id"])
        elif ending is not None and row["id"].endswith(ending):
            ended.append(row["id"])
    found = named or ended
    if not found:
        raise click.UsageError(f"There is no {kind} {text!r}.")
    if len(found) > 1:
        raise click.UsageError(f"{text!r} stands for {len(found)} {kind}s: {', '.join(found[:5])}; give the whole id.")
    return str(found[0])


async def find_given(remote: Remote, kind: str, text: str | None, *, board_id: str | None = None) -> str | None:
    """As `find`; None for None."""
    return None if text is None else await find(remote, kind, text, board_id=board_id)


async def find_all(remote: Remote, kind: str, texts: tuple[str, ...]) -> list[str] | None:
    """As `find`, of each; None when there are none."""
    return [await find(remote, kind, text) for text in texts] or None


async def only_board(remote: Remote, text: str | None) -> str:
    """The board that is meant; without a word, the only one there is. Raises `UsageError` when there are others."""
    if text is not None:
        return await find(remote, "board", text)
    boards = await board_names(remote)
    if len(boards) == 1:
        return next(iter(boards))
    if not boards:
        raise click.UsageError("There is no board yet: kandev-host board create NAME makes one.")
    raise click.UsageError(f"Which board? --board, one of: {', '.join(list(boards.values())[:10])}")


async def board_names(remote: Remote) -> dict[str, str]:
    """The name of each board; of those that share one, the id as well."""
    boards = [row async for row in _rows(remote, "board", None)]
    count = Counter(board["name"] for board in boards)
    return {
        board["id"]: board["name"] if count[board["name"]] == 1 else f"{board['name']} ({short(board['id'])})"
        for board in boards
    }


async def _rows(remote: Remote, kind: str, board_id: str | None) -> AsyncIterator[dict[str, Any]]:
    """All rows of this kind, page by page."""
    if kind == "column" and board_id is None:
        async for board in _rows(remote, "board", None):
            async for column in _rows(remote, "column", board["id"]):
                yield column
        return
    cursor = None
    while True:
        action, rows = _LISTS[kind]
        page = await remote.call(action, limit=PAGE, cursor=cursor, board_id=board_id if kind == "column" else None)
        for row in page[rows]:
            yield row
        cursor = page["next_cursor"]
        if cursor is None:
            return
