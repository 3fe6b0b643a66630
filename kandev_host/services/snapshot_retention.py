"""Which snapshots of a workspace are kept."""

from __future__ import annotations

from collections.abc import Sequence

from kandev_host.models import Snapshot


def superfluous(rows: Sequence[Snapshot], kept: int, *, full: bool) -> list[Snapshot]:
    """Those to forget, of all of a workspace, oldest first; when it is `full`, half of what may go.

    The first, the one from before the first agent (base) and the last stay. Those with a label of a person go after
    the others.
    """
    taken = [row for row in rows if row.tree is not None]
    first = next((row for row in taken if row.kind == "start"), None)
    stay = {row.id for row in (first, *taken[:1], *taken[-1:]) if row is not None}
    may_go = [row for row in rows if row.id not in stay]
    may_go.sort(key=lambda row: row.kind == "manual" and row.label is not None)
    count = max(len(rows) - kept, (len(may_go) + 1) // 2 if full else 0)
    return may_go[: max(count, 0)]
