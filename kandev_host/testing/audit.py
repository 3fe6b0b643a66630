"""What every Store must do with the audit; part of `StoreContract`."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from kandev_host.errors import Conflict, KandevError, ValidationFailed
from kandev_host.interfaces import Append, Change, Commit, Expect, Put, Remove, Shift, Store
from kandev_host.models import AuditRow, Task, chained, now
from kandev_host.testing.world import a_task, a_world, write

KEY = bytes(range(32))
ROWS = tuple(
    AuditRow(
        kind="auth",
        action=f"test.{n}",
        actor="ä",
        actor_kind="user",
        actor_name="\N{SNOWMAN}",
        address="127.0.0.1",
        task_id="t",
        details={"n": n, "words": ["a", None, True], "share": 0.1},
    )
    for n in range(4)
)


def added(*rows: AuditRow) -> list[Change]:
    return [Append(row, KEY) for row in rows]


async def kept(store: Store) -> list[AuditRow]:
    return (await store.find(AuditRow, order=("seq",))).rows


def expected(*rows: AuditRow) -> list[AuditRow]:
    """The chain of these rows, from the first one on."""
    chain: list[AuditRow] = []
    for row in rows:
        seq, mac = (chain[-1].seq, chain[-1].mac) if chain else (0, "")
        chain.append(chained(row, KEY, seq=seq, mac=mac))
    return chain


class AuditContract:
    """The tests. They use only what `Store` promises."""

    async def test_rows_of_the_audit_are_chained_in_the_order_of_commits(self, store: Store) -> None:
        await store.commit([Commit(added(ROWS[0], ROWS[1])), Commit([]), Commit(added(ROWS[2]))])
        await write(store, *added(ROWS[3]))
        assert await kept(store) == expected(*ROWS)
        assert await store.get(AuditRow, ROWS[2].id) == expected(*ROWS)[2]

    async def test_a_commit_that_fails_alone_leaves_no_gap_in_the_audit(self, store: Store) -> None:
        await a_world(store)
        gone, orphan = Conflict("gone"), replace(a_task("orphan"), board_id="nobody")
        outcomes = await store.commit(
            [
                Commit(added(ROWS[0])),
                Commit(added(ROWS[1]), [Expect(Task, "nobody", gone)]),
                Commit([*added(ROWS[2]), Put(orphan)]),
                Commit([Put(a_task("kept")), *added(ROWS[3])]),
            ]
        )
        assert [isinstance(outcome, KandevError) for outcome in outcomes] == [False, True, True, False]
        assert await kept(store) == expected(ROWS[0], ROWS[3])

    @pytest.mark.parametrize("how", ["put", "put another", "remove", "shift", "again"])
    async def test_the_audit_is_only_added_to(self, store: Store, how: str) -> None:
        await write(store, *added(ROWS[0]))
        (row,) = await kept(store)
        changes: dict[str, Change] = {
            "put": Put(replace(row, outcome="changed")),
            "put another": Put(chained(ROWS[1], KEY, seq=row.seq, mac=row.mac)),
            "remove": Remove(AuditRow, row.id),
            "shift": Shift(AuditRow, "seq", 1, [("seq", ">", 0)]),
            "again": Append(replace(ROWS[1], id=row.id), KEY),
        }
        (outcome,) = await store.commit([Commit([changes[how]])])
        assert isinstance(outcome, ValidationFailed | Conflict)
        await write(store, *added(ROWS[2]))
        assert await kept(store) == expected(ROWS[0], ROWS[2])

    async def test_the_audit_outlives_what_it_tells_of(self, store: Store) -> None:
        await a_world(store)
        about = [replace(ROWS[0], task_id=task.id) for task in (await store.find(Task)).rows]
        await write(store, *added(*about))
        await write(store, *(Remove(Task, row.task_id or "") for row in about))
        assert [row.task_id for row in await kept(store)] == [row.task_id for row in about]

    async def test_trimming_leaves_the_audit(self, store: Store) -> None:
        await write(store, *added(*ROWS))
        await store.trim(1 << 40, receipts_before=now())
        assert await kept(store) == expected(*ROWS)
