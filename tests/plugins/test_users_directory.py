"""Users, keys and log-ins: what ends when, and what outlives a restart."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from msgspec.structs import replace

from kandev_host import Credentials, Issued, Principal, Refused, TokenFile, scopes_of
from kandev_host.errors import (
    Conflict,
    Forbidden,
    KandevError,
    NotFound,
    RateLimited,
    StartupError,
    Unauthorized,
    ValidationFailed,
)
from kandev_host.interfaces import Action, Call
from kandev_host.models import LOCAL_USER_ID, now
from kandev_host.testing import AuthenticatorContract, IssuerContract
from kandev_users.actions import users_actions
from kandev_users.authenticator import Users
from kandev_users.database import Database
from kandev_users.directory import Directory
from kandev_users.passwords import WAITING_PER_ADDRESS, Passwords, Turns, check_password
from kandev_users.tokens import Tokens
from kandev_users.wire import KeyCreate

pytestmark = pytest.mark.anyio

PASSWORD = "correct horse battery"
OTHER = "another staple entirely"
CHEAP = Passwords(memory_kib=64, rounds=1)
ADMIN = Principal("root", "user", "root", frozenset({"*"}), credential="login:x")
HERE = "127.0.0.1"
ASKED_FOR = scopes_of("member") | {"users:read", "users:write"}


class Nobody:
    """The store's rows of users, which these tests need not."""

    async def add(self, user: Any) -> None:
        pass


class Place:
    """A data folder; `open` is a start of the host's authenticator, which ends the one before."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        self.folder = folder
        self._stack = ExitStack()
        self.users: Users
        self.owners: Any = Nobody()
        self._actions: dict[str, Action[Any]] = {}

    def open(self, *, local: bool = True, login_lifetime_s: float = 3600.0) -> Users:
        self.close()
        self._database = database = self._stack.enter_context(Database(self.folder))
        tokens = Tokens("8mXw2-tPq0Lr7vKc5nYd9aHf3sJg6bZe1uRi4oTyWxE", lifetime_s=600)
        self.users = Users(
            Directory(database, local=local),
            tokens,
            CHEAP,
            login_lifetime_s=login_lifetime_s,
            local=TokenFile(self.folder) if local else None,
        )
        self._actions = {action.name: action for action in users_actions(self.users, self.owners, lambda: ASKED_FOR)}
        return self.users

    def read_only(self, so: bool) -> None:
        """From now on no change is written, as on a full disk; or it is again."""
        self._database._db.execute(f"PRAGMA query_only = {int(so)}")

    def close(self) -> None:
        self._stack.close()
        self._stack = ExitStack()

    async def ask(self, asked: str, caller: Principal = ADMIN, /, **fields: Any) -> Any:
        """As the host would call the action, with its scope."""
        action = self._actions[asked]
        if action.scope and not caller.may(action.scope):
            raise Forbidden(action.scope)
        call = Call(caller, "1", lambda _topic: None)
        return await action.handler(call, action.request(**fields))

    async def logged_in(self, name: str, role: Any = "member", password: str = PASSWORD) -> Issued:
        """A new user, who is let in."""
        await self.ask("user.create", name=name, role=role, password=password)
        issued = await self.users.log_in(name, password, HERE)
        assert isinstance(issued, Issued)
        return issued

    async def who(self, token: str, address: str = HERE) -> Principal | None:
        return await self.users.authenticate(Credentials(token, address))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path / "data")
    place.open()
    yield place
    place.close()


class TestUsers(IssuerContract):
    @pytest.fixture
    async def login(self, place: Place) -> tuple[str, str]:
        await place.ask("user.create", name="ada", password=PASSWORD)
        return "ada", PASSWORD

    @pytest.fixture
    def authenticator(self, place: Place) -> Users:
        return place.users

    @pytest.fixture
    async def token(self, place: Place, login: tuple[str, str]) -> str:
        issued = await place.users.log_in(*login, HERE)
        assert issued is not None
        return issued.token


class TestKeys(AuthenticatorContract):
    @pytest.fixture
    def authenticator(self, place: Place) -> Users:
        return place.users

    @pytest.fixture
    async def token(self, place: Place) -> str:
        ada = (await place.logged_in("ada")).principal
        return str((await place.ask("key.create", ada, name="ci"))["token"])


class TestLocal(AuthenticatorContract):
    @pytest.fixture
    def authenticator(self, place: Place) -> Users:
        return place.users

    @pytest.fixture
    def token(self, place: Place) -> str:
        return (place.folder / "token").read_text().strip()


async def test_a_right_password_lets_in_and_every_other_answer_is_the_same_no(place: Place) -> None:
    issued = await place.logged_in("Ada", "viewer")
    assert await place.who(issued.token) == issued.principal
    assert issued.principal.scopes == scopes_of("viewer")
    assert await place.users.log_in("ada", PASSWORD, HERE) is not None
    for name, password in (("nobody", PASSWORD), ("", ""), (PASSWORD, "Ada")):
        assert await place.users.log_in(name, password, HERE) is None
    for password in (OTHER, "", "\ud800" * 12):
        assert await place.users.log_in("ada", password, HERE) == Refused("Ada")
    await place.ask("user.create", name="carol")
    assert await place.users.log_in("carol", "", HERE) == Refused("carol")
    await place.ask("user.update", user="ada", disabled=True)
    assert await place.users.log_in("ada", PASSWORD, HERE) == Refused("Ada")


async def test_unknown_names_cost_as_much_work_as_wrong_passwords(place: Place, monkeypatch: Any) -> None:
    await place.logged_in("ada")
    hasher: Any = CHEAP._hasher
    verified = []
    monkeypatch.setattr(CHEAP, "_hasher", Counting(hasher, verified))
    for name in ("ada", "nobody"):
        await place.users.log_in(name, OTHER, HERE)
    assert [hash.split("$")[1:4] for hash in verified] == [verified[0].split("$")[1:4]] * 2


class Counting:
    def __init__(self, hasher: Any, verified: list[str]) -> None:
        self._hasher, self._verified = hasher, verified

    def verify(self, hash: str, password: str) -> Any:
        self._verified.append(hash)
        return self._hasher.verify(hash, password)


CHANGES: dict[str, Callable[[Place], Any]] = {
    "role": lambda place: place.ask("user.update", user="ada", role="viewer"),
    "disabled": lambda place: place.ask("user.update", user="ada", disabled=True),
    "password": lambda place: place.ask("user.update", user="ada", password=OTHER),
    "deleted": lambda place: place.ask("user.delete", user="ada"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
async def test_what_changes_a_user_ends_all_that_they_logged_in_with(place: Place, change: Any) -> None:
    issued = await place.logged_in("ada")
    other = await place.logged_in("bob")
    assert place.users.holds(issued.principal)
    await change(place)
    assert not place.users.holds(issued.principal)
    assert await place.who(issued.token) is None
    assert issued.refresh_token is not None
    assert await place.users.refresh(issued.refresh_token, HERE) is None
    assert place.users.holds(other.principal)
    place.open()
    assert await place.who(issued.token) is None
    assert await place.who(other.token) == other.principal


async def test_a_refresh_token_is_good_once_and_an_old_one_ends_its_log_in(place: Place) -> None:
    first = await place.logged_in("ada")
    beside = await place.users.log_in("ada", PASSWORD, HERE)
    assert first.refresh_token is not None
    assert isinstance(beside, Issued)
    second = await place.users.refresh(first.refresh_token, HERE)
    assert isinstance(second, Issued)
    assert second.refresh_token is not None
    assert await place.who(second.token) is not None
    place.open()
    assert await place.users.refresh("kd_" + "x" * 22 + "." + "y" * 43, HERE) is None
    assert place.users.holds(second.principal)
    refused = await place.users.refresh(first.refresh_token, HERE)
    assert isinstance(refused, Refused)
    assert refused.principal is not None
    assert (refused.name, refused.principal.credential) == ("ada", first.principal.credential)
    for token in (first.token, second.token):
        assert await place.who(token) is None
    assert await place.users.refresh(second.refresh_token, HERE) is None
    assert place.users.holds(beside.principal)


async def test_of_two_who_refresh_at_once_one_gets_a_token_and_the_log_in_ends(place: Place) -> None:
    issued = await place.logged_in("ada")
    got: list[Issued | Refused | None] = []

    async def refresh() -> None:
        assert issued.refresh_token is not None
        got.append(await place.users.refresh(issued.refresh_token, HERE))

    async with anyio.create_task_group() as group:
        group.start_soon(refresh)
        group.start_soon(refresh)
    assert {type(each) for each in got} == {Issued, Refused}
    assert not place.users.holds(issued.principal)


async def test_a_log_out_ends_the_log_in_and_no_other(place: Place) -> None:
    issued, other = await place.logged_in("ada"), await place.users.log_in("ada", PASSWORD, HERE)
    assert other is not None
    assert await place.users.revoke(issued.principal)
    assert not place.users.holds(issued.principal)
    assert place.users.holds(other.principal)
    assert not await place.users.revoke(issued.principal)


async def test_log_ins_end_by_themselves_and_their_number_is_bounded(place: Place) -> None:
    users = place.open(login_lifetime_s=1e-6)
    issued = await place.logged_in("ada")
    assert not users.holds(issued.principal)
    place.open()
    made = [await place.users.log_in("ada", PASSWORD, HERE) for _ in range(40)]
    held = [each is not None and place.users.holds(each.principal) for each in made]
    assert held == [False] * 8 + [True] * 32


async def test_the_local_token_is_an_administrator_of_this_machine_alone(place: Place) -> None:
    token = (place.folder / "token").read_text().strip()
    for address in ("127.0.0.1", "", "::"):
        local = await place.who(token, address)
        assert local is not None
        assert (local.id, place.users.holds(local)) == (LOCAL_USER_ID, True)
    for address in ("10.0.0.7", "2001:db8::", "unknown"):
        assert await place.who(token, address) is None
    place.open(local=False)
    assert await place.who(token) is None
    assert not place.users.holds(local)


async def test_a_key_may_no_more_than_its_owner_may_now(place: Place) -> None:
    ada = (await place.logged_in("ada")).principal
    narrow = (await place.ask("key.create", ada, name="narrow", scopes=["tasks:write", "tasks:read"]))["token"]
    wide = (await place.ask("key.create", ada, name="wide"))["token"]
    by_narrow, by_wide = await place.who(narrow), await place.who(wide)
    assert by_narrow is not None
    assert by_wide is not None
    assert (by_narrow.id, by_narrow.scopes) == (ada.id, {"tasks:write", "tasks:read"})
    assert by_wide.scopes == scopes_of("member")
    await place.ask("user.update", user="ada", role="viewer")
    assert not place.users.holds(by_narrow)
    assert not place.users.holds(by_wide)
    again = await place.who(narrow)
    assert again is not None
    assert again.scopes == {"tasks:read"}
    await place.ask("user.update", user="ada", role="admin")
    assert (await place.who(narrow)).scopes == {"tasks:write", "tasks:read"}  # type: ignore[union-attr]
    await place.ask("user.update", user="ada", disabled=True)
    assert await place.who(narrow) is None


async def test_a_narrow_key_gives_nobody_more_than_it_may_itself(place: Place) -> None:
    await place.logged_in("ada", "admin")
    await place.logged_in("bob")
    scopes = scopes_of("member") | {"users:write"}
    narrow = replace(ADMIN, scopes=scopes, credential="key:x")
    for asked, fields in (
        ("user.create", {"name": "eve", "role": "admin", "password": PASSWORD}),
        ("user.update", {"user": "ada", "password": "another staple entirely"}),
        ("user.update", {"user": "bob", "role": "admin"}), ("user.update", {"user": "ada", "role": "viewer"}),
        ("user.update", {"user": "ada", "disabled": True}), ("user.delete", {"user": "ada"}),
    ):  # fmt: skip
        with pytest.raises(Forbidden):
            await place.ask(asked, narrow, **fields)
    await place.ask("user.create", narrow, name="eve", role="viewer")
    await place.ask("user.update", narrow, user="bob", password="another staple entirely", role="viewer")
    assert [(user.name, user.role) for user in place.users.directory.users] == [
        ("ada", "admin"), ("bob", "viewer"), ("eve", "viewer")
    ]  # fmt: skip


async def test_keys_expire_are_revoked_and_go_with_their_owner(place: Place) -> None:
    ada = (await place.logged_in("ada")).principal
    brief = await place.ask("key.create", ada, name="brief", expires_in_s=1e-6)
    assert await place.who(brief["token"]) is None
    made = [await place.ask("key.create", ada, name=f"{n}", expires_in_s=60) for n in range(2)]
    by = [await place.who(each["token"]) for each in made]
    await place.ask("key.revoke", ada, key_id=made[0]["key"].id)
    assert [place.users.holds(each) for each in by if each] == [False, True]
    await place.ask("user.delete", user="ada")
    assert await place.who(made[1]["token"]) is None
    place.open()
    assert await place.who(made[1]["token"]) is None


async def test_of_a_key_only_a_digest_is_kept_and_when_it_was_used_to_the_hour(place: Place) -> None:
    ada = (await place.logged_in("ada")).principal
    token = (await place.ask("key.create", ada, name="ci"))["token"]
    await place.who(token)
    place.open()
    listed = (await place.ask("key.list", ada))["keys"][0]
    assert listed.last_used_at is not None
    assert (listed.last_used_at.minute, listed.last_used_at.second) == (0, 0)
    held = b"".join(path.read_bytes() for path in place.folder.iterdir())
    assert token.encode() not in held
    assert PASSWORD.encode() not in held
    assert b"$argon2id$" in held


async def test_people_see_and_make_keys_of_their_own_alone(place: Place) -> None:
    ada, bob = (await place.logged_in("ada")).principal, (await place.logged_in("bob")).principal
    key = (await place.ask("key.create", ada, name="ci"))["key"]
    assert (await place.ask("key.list", bob))["keys"] == []
    assert [each.id for each in (await place.ask("key.list", everybody=True))["keys"]] == [key.id]
    refused: list[tuple[str, dict[str, Any]]] = [
        ("key.list", {"user": "ada"}), ("key.list", {"everybody": True}), ("key.revoke", {"key_id": key.id}),
        ("key.create", {"name": "x", "user": "ada"}), ("key.create", {"name": "x", "scopes": ["users:write"]}),
        ("user.list", {}), ("user.create", {"name": "eve"}), ("user.update", {"user": "bob", "role": "admin"}),
        ("user.delete", {"user": "ada"}),
    ]  # fmt: skip
    for action, fields in refused:
        with pytest.raises(KandevError) as error:
            await place.ask(action, bob, **fields)
        assert error.value.code in {"FORBIDDEN", "NOT_FOUND"}
    # What another may not do with the wider rights of its owner, a narrow key may not either.
    narrow = replace(ada, scopes=frozenset({"tasks:read"}))
    for scopes in (["tasks:write"], ["*"]):
        with pytest.raises(Forbidden):
            await place.ask("key.create", narrow, name="x", scopes=scopes)


@pytest.mark.parametrize(
    ("scope", "told"),
    [("tasks:raed", "did you mean tasks:read"), ("xyz:xyz", "there are: agents:read, agents:run")],
)
async def test_a_key_for_what_nothing_asks_for_is_not_made(place: Place, scope: str, told: str) -> None:
    root = (await place.logged_in("root", "admin")).principal
    with pytest.raises(ValidationFailed, match=f"Nothing here asks for {scope}; {told}"):
        await place.ask("key.create", root, name="ci", scopes=["tasks:write", scope])
    ada = (await place.logged_in("ada")).principal
    with pytest.raises(ValidationFailed, match=f"Nothing here asks for {scope}; {told}"):
        await place.ask("key.create", ada, name="ci", scopes=["tasks:write", scope])
    assert (await place.ask("key.list", everybody=True))["keys"] == []


async def test_a_narrow_key_ends_itself_and_no_other(place: Place) -> None:
    ada = (await place.logged_in("ada")).principal
    other = (await place.ask("key.create", ada, name="laptop"))["key"]
    made = await place.ask("key.create", ada, name="ci", scopes=["tasks:read"])
    narrow = await place.who(made["token"])
    assert narrow is not None
    with pytest.raises(Conflict, match="revokes itself alone"):
        await place.ask("key.revoke", narrow, key_id=other.id)
    await place.ask("key.revoke", narrow, key_id=made["key"].id)
    assert [each.id for each in (await place.ask("key.list", ada))["keys"]] == [other.id]
    wide = await place.who((await place.ask("key.create", ada, name="wide"))["token"])
    assert wide is not None
    await place.ask("key.revoke", wide, key_id=other.id)


async def test_a_narrow_key_changes_no_password_and_guesses_none(place: Place) -> None:
    ada = replace((await place.logged_in("ada")).principal, scopes=frozenset({"tasks:read"}), credential="key:x")
    for guess in (PASSWORD, "another staple entirely"):
        with pytest.raises(Conflict, match="changes no password"):
            await place.ask("user.password", ada, current_password=guess, password="yet another long one")


@pytest.mark.parametrize("credential", ["key:x", "session:x"])
async def test_a_key_makes_no_keys(place: Place, credential: str) -> None:
    ada = replace((await place.logged_in("ada")).principal, credential=credential)
    with pytest.raises(Conflict, match="A key makes no keys"):
        await place.ask("key.create", ada, name="longer")


@pytest.mark.parametrize("credential", ["key:x", "session:x"])
async def test_what_a_key_of_an_administrator_makes_ends_with_it_at_the_latest(place: Place, credential: str) -> None:
    soon = now() + timedelta(seconds=60)
    root = replace((await place.logged_in("root", "admin")).principal, credential=credential, expires_at=soon)
    for asked, ends in ((None, soon), (3600.0, soon), (5.0, soon - timedelta(seconds=50))):
        made = (await place.ask("key.create", root, name="longer", expires_in_s=asked))["key"]
        assert made.expires_at <= ends
    by_password = (await place.logged_in("ada", "admin")).principal
    assert (await place.ask("key.create", by_password, name="lasting"))["key"].expires_at is None


async def test_what_is_taken_away_holds_also_where_it_cannot_be_written(place: Place) -> None:
    ada, bob = await place.logged_in("ada"), await place.logged_in("bob")
    keys = [await place.ask("key.create", ada.principal, name=f"k{number}") for number in range(2)]
    leaving = await place.users.log_in("ada", PASSWORD, HERE)
    assert leaving is not None
    place.read_only(True)
    refused: list[tuple[Any, bool]] = [
        (place.ask("key.revoke", ada.principal, key_id=keys[0]["key"].id), True),
        (place.users.revoke(leaving.principal), True),
        (place.ask("user.update", user="bob", disabled=True), True),
        (place.ask("user.update", user="ada", role="admin"), False),  # what gives something does not
        (place.ask("key.create", ada.principal, name="more"), False),
    ]
    for asking, held in refused:
        with pytest.raises(KandevError) as error:
            await asking
        assert ("holds until the host ends" in error.value.message) is held
    tokens = (keys[0]["token"], leaving.token, bob.token, keys[1]["token"], ada.token)
    assert [await place.who(token) is not None for token in tokens] == [False, False, False, True, True]
    place.open()  # still not written: what was there comes back
    assert await place.who(bob.token) is not None
    place.read_only(True)
    with pytest.raises(KandevError):
        await place.ask("user.update", user="bob", disabled=True)
    with pytest.raises(KandevError):
        await place.ask("key.revoke", ada.principal, key_id=keys[0]["key"].id)
    place.read_only(False)
    with pytest.raises(NotFound):  # asked again
        await place.ask("key.revoke", ada.principal, key_id=keys[0]["key"].id)
    place.open()
    assert [await place.who(token) is not None for token in (bob.token, keys[0]["token"])] == [False, False]


async def test_the_local_user_has_keys_while_the_local_token_counts(place: Place) -> None:
    local = Principal(LOCAL_USER_ID, "user", "local", frozenset({"*"}), credential="local-1")
    token = (await place.ask("key.create", local, name="script", scopes=["tasks:read"]))["token"]
    assert await place.who(token, "10.0.0.7") is not None
    place.open(local=False)
    assert await place.who(token) is None
    with pytest.raises(KandevError):
        await place.ask("key.create", name="x", user="local")


async def test_somebody_is_left_who_can_let_others_in(place: Place) -> None:
    place.open(local=False)
    await place.ask("user.create", name="ada", role="admin", password=PASSWORD)
    for change in ({"role": "member"}, {"disabled": True}):
        with pytest.raises(Conflict, match="last administrator"):
            await place.ask("user.update", user="ada", **change)
    with pytest.raises(Conflict, match="last administrator"):
        await place.ask("user.delete", user="ada")
    await place.ask("user.update", user="ada", password=OTHER)
    await place.ask("user.create", name="bob", role="admin", password=PASSWORD)
    await place.ask("user.delete", user="ada")


async def test_ones_own_password_wants_the_current_one(place: Place) -> None:
    ada = await place.logged_in("ada")
    with pytest.raises(Unauthorized):
        await place.ask("user.password", ada.principal, current_password=OTHER, password=OTHER)
    await place.ask("user.password", ada.principal, current_password=PASSWORD, password=OTHER)
    assert not place.users.holds(ada.principal)
    assert await place.users.log_in("ada", PASSWORD, HERE) == Refused("ada")
    assert await place.users.log_in("ada", OTHER, HERE) is not None


async def test_another_issuers_token_is_its_users_while_it_is_not_logged_out(place: Place) -> None:
    await place.ask("user.create", name="ada", role="member")
    ada = place.users.directory.find("ada")
    principal = Principal(ada.id, "user", "ada", scopes_of("member"), now() + timedelta(seconds=60), "issuer:j1")
    assert place.users.holds(principal)
    assert await place.users.revoke(principal)
    assert not place.users.holds(principal)
    place.open()
    assert not place.users.holds(principal)


async def test_names_are_taken_whatever_their_case(place: Place) -> None:
    await place.ask("user.create", name="ada")
    for name in ("ADA", "local"):
        with pytest.raises(Conflict):
            await place.ask("user.create", name=name)


@pytest.mark.parametrize(
    "password", ["short", "password1234", "changeme-2026", "aaaaaaaaaaaaaaa", "Ada-ada-2026!", "x" * 2000]
)
def test_a_password_that_is_easily_guessed_is_refused(password: str) -> None:
    with pytest.raises(ValidationFailed):
        check_password(password, "ada")


async def test_turns_go_round_by_address_and_a_flood_waits_for_itself() -> None:
    turns, served = Turns(1), []
    await turns("flood")

    async def wait(address: str, name: str) -> None:
        await turns(address)
        served.append(name)
        turns.done()

    async with anyio.create_task_group() as group:
        for number in range(WAITING_PER_ADDRESS):
            group.start_soon(wait, "flood", f"flood {number}")
        await anyio.wait_all_tasks_blocked()
        group.start_soon(wait, "other", "right")
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(RateLimited):
            await turns("flood")
        turns.done()
    assert served.index("right") <= 1
    assert len(served) == WAITING_PER_ADDRESS + 1


async def test_who_leaves_the_queue_holds_nobody_up() -> None:
    turns = Turns(1)
    await turns("a")
    async with anyio.create_task_group() as group:
        for address in ("a", "b", "b"):
            group.start_soon(turns, address)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    turns.done()
    with anyio.fail_after(10):
        await turns("c")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_file_that_others_could_read_or_write_is_refused(place: Place, mode: int) -> None:
    place.close()
    (place.folder / "users.db").chmod(mode)
    with pytest.raises(StartupError, match="Others may"):
        place.open()


def test_what_is_no_file_of_ours_is_refused(place: Place, tmp_path: Path) -> None:
    place.close()
    file = place.folder / "users.db"
    assert file.stat().st_mode & 0o777 == 0o600
    with sqlite3.connect(file) as newer:
        newer.execute("PRAGMA user_version = 99")
    newer.close()
    refused: list[tuple[str, Callable[[], Any]]] = [
        ("newer", lambda: None),
        ("cannot be used", lambda: file.write_bytes(b"no database" * 500)),
        ("not a file of yours", lambda: (file.unlink(), file.symlink_to(tmp_path / "elsewhere"))),
    ]
    for words, change in refused:
        change()
        with pytest.raises(StartupError, match=words):
            place.open()
    assert not (tmp_path / "elsewhere").exists()


def test_requests_for_keys_name_scopes_alone() -> None:
    import msgspec

    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode('{"name": "x", "scopes": ["Everything"]}', type=KeyCreate)
