"""What requests leave in the audit: by one rule for all that changes something, and for all that is refused."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from kandev_host.audit.acting import ACTING, EVERYDAY, kind_of
from kandev_host.audit.tally import SORTS, Tally
from kandev_host.client import ClientError
from kandev_host.errors import Conflict, Forbidden, StorageFull, Unauthorized
from kandev_host.interfaces import Action, Principal
from kandev_host.interfaces.roles import SCOPES, scopes_of
from kandev_host.models import AuditRow
from kandev_host.protocol.actions import ACTIONS
from kandev_host.protocol.actions.fields import Request

pytestmark = pytest.mark.anyio

ADMIN = Principal(id="u1", kind="user", name="Ada", scopes=frozenset({"*"}), credential="c1")
VIEWER = Principal(id="u2", kind="user", name="Bob", scopes=scopes_of("viewer"), credential="c2")


class Kept:
    """An audit in memory."""

    def __init__(self) -> None:
        self.rows: list[AuditRow] = []
        self.tally = Tally()
        self.full = False

    def count(self, row: AuditRow) -> None:
        first = self.tally.add(row)
        if first is not None:
            self.rows.append(first)

    async def write(self, *rows: AuditRow) -> None:
        if self.full:
            raise StorageFull("full")
        self.rows += rows

    def of(self, action: str) -> list[AuditRow]:
        return [row for row in self.rows if row.action == action]


class Ask(Request, frozen=True, kw_only=True):
    name: str = "n"
    task_id: str | None = None
    password: str | None = None
    how: str = "ok"


async def work(_call: Any, request: Ask) -> dict[str, Any]:
    acting = ACTING.get()
    if request.how == "forbidden":
        raise Forbidden("what is yours")
    if request.how == "wrong":
        raise Unauthorized("The current password is wrong")
    if request.how == "conflict":
        raise Conflict("no")
    return {"actor": None if acting is None else acting.principal.id}


ACTIONS_HERE = [
    Action("gadget.make", Ask, work, "gadgets:write"),
    Action("gadget.secret", Ask, work, "gadgets:write", keeps="nothing"),
    Action("gadget.list", Ask, work, "gadgets:read"),
    Action("shell.run", Ask, work, "shell:open"),
]


@pytest.fixture
async def kept() -> Kept:
    return Kept()


@pytest.fixture
async def house(open_house: Any, people: Any, kept: Kept) -> Any:
    known = {"ada": ADMIN, "bob": VIEWER}
    async with open_house(authenticator=people(known.get), actions=lambda _house: ACTIONS_HERE, audit=kept) as house:
        yield house


async def asked(house: Any, action: str, token: str = "ada", **payload: Any) -> Any:
    house.token = token
    async with house.client() as client:
        return await client.call(action, payload)


@pytest.mark.parametrize("action", ["gadget.make", "gadget.secret"])
async def test_every_action_that_changes_something_leaves_a_row(house: Any, kept: Kept, action: str) -> None:
    answer = await asked(house, action, name="x", task_id="t1", password="hunter2")
    assert answer == {"actor": "u1"}
    (row,) = kept.of(action)
    assert (row.actor, row.actor_kind, row.actor_name, row.address) == ("u1", "user", "Ada", "127.0.0.1")
    assert (row.outcome, row.task_id, row.details) == ("ok", "t1", {"name": "x", "password": True})


@pytest.mark.parametrize("action", ["gadget.list", "shell.run"])
async def test_reads_and_what_is_done_all_day_leave_none(house: Any, kept: Kept, action: str) -> None:
    await asked(house, action)
    assert kept.of(action) == []


@pytest.mark.parametrize("action", ["gadget.make", "gadget.secret"])
async def test_what_fails_leaves_none(house: Any, kept: Kept, action: str) -> None:
    with pytest.raises(ClientError):
        await asked(house, action, how="conflict")
    assert kept.of(action) == []


@pytest.mark.parametrize("action", ["gadget.make", "gadget.secret", "gadget.list", "shell.run"])
@pytest.mark.parametrize("how", ["by scope", "by the handler"])
async def test_whoever_asks_for_what_is_not_theirs_is_noted(house: Any, kept: Kept, action: str, how: str) -> None:
    token, payload = ("bob", {}) if how == "by scope" else ("ada", {"how": "forbidden"})
    for _ in range(3):
        with pytest.raises(ClientError) as error:
            await asked(house, action, token, **payload)
        assert error.value.code == "FORBIDDEN"
    (row,) = kept.of("access.refused")
    (more,) = (row for row in kept.tally.due(everything=True) if row.action == "access.refused")
    assert (row.kind, row.outcome, row.actor_name) == ("access", "FORBIDDEN", "Bob" if token == "bob" else "Ada")
    assert (row.details["action"], more.details["count"]) == (action, 2)


@pytest.mark.parametrize("action", ["gadget.make", "gadget.secret"])
async def test_a_wrong_password_that_somebody_gives_who_is_in_is_noted(house: Any, kept: Kept, action: str) -> None:
    for _ in range(3):
        with pytest.raises(ClientError):
            await asked(house, action, how="wrong")
    (row,) = kept.of("access.refused")
    assert (row.outcome, row.actor_name, row.details) == ("UNAUTHORIZED", "Ada", {"action": action})


@pytest.mark.parametrize("action", ["gadget.make", "gadget.secret"])
async def test_what_cannot_be_audited_is_not_acknowledged(house: Any, kept: Kept, action: str) -> None:
    kept.full = True
    with pytest.raises(ClientError) as error:
        await asked(house, action)
    assert error.value.code == "STORAGE_FULL"


async def test_a_log_out_works_also_when_nothing_can_be_written(house: Any, kept: Kept) -> None:
    kept.full = True
    assert (await asked(house, "auth.logout"))["revoked"]
    assert len(kept.of("auth.logout")) == 1


async def test_log_ins_and_a_flood_of_wrong_ones_are_a_few_rows(house: Any, kept: Kept) -> None:
    async def guess() -> None:
        with pytest.raises(ClientError):
            await asked(house, "gadget.list", "wrong")

    async with anyio.create_task_group() as group:
        for _ in range(40):
            group.start_soon(guess)
    await asked(house, "gadget.list")
    (failed, well) = kept.of("auth.login")
    assert (failed.outcome, failed.actor, failed.address) == ("failed", "unknown", "127.0.0.1")
    assert (well.outcome, well.actor_name, well.details) == ("ok", "Ada", {"credential": "c1"})
    assert [row.details["count"] for row in kept.tally.due(everything=True)] == [39]
    assert SORTS < 100


async def test_what_is_shown_on_an_open_socket_counts_where_the_socket_comes_from(
    house: Any, kept: Kept, open_wire: Any
) -> None:
    async with open_wire(house, "ada") as wire:
        assert (await wire.ask("auth.login", {"token": "wrong"}))["payload"]["code"] == "UNAUTHORIZED"
    assert [row.address for row in kept.of("auth.login") if row.outcome == "failed"] == ["127.0.0.1"]


def test_what_is_done_all_day_is_an_action_and_every_deletion_is_of_that_kind() -> None:
    known = ACTIONS.keys() | {"auth.login", "auth.refresh"}
    assert known >= EVERYDAY
    assert {action: kind_of(action) for action in ACTIONS if action.endswith(".delete")} == {
        action: "deletion" for action in ACTIONS if action.endswith(".delete")
    }
    assert "audit:read" not in SCOPES["member"] | SCOPES["viewer"]
