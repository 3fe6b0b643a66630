"""Log-in links: tickets, the sessions that they are exchanged for, and the page that does it."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from msgspec.structs import replace

from kandev_host.errors import Conflict, Forbidden
from kandev_host.gateway.logins import EACH, TOTAL, Logins
from kandev_host.interfaces import Credentials, Issued, Principal
from kandev_host.models import now
from kandev_host.secrets import MARK, known

pytestmark = pytest.mark.anyio

ADA = Principal("u1", "user", "ada", frozenset({"*"}), credential="key-1")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ada(people: Any) -> Any:
    return people({"adas": ADA}.get)


@pytest.fixture
def logins(ada: Any, clock: Clock) -> Logins:
    return Logins(ada, session_lifetime_s=600, ticket_lifetime_s=60, clock=clock)


def opened(logins: Logins, whose: Principal = ADA) -> tuple[str, Principal]:
    made = logins.exchange(logins.ticket(whose))
    assert made is not None
    return made


async def test_a_ticket_is_good_for_one_session(logins: Logins) -> None:
    ticket = logins.ticket(ADA)
    made = logins.exchange(ticket)
    assert made is not None
    token, principal = made
    assert (principal.id, principal.kind, principal.scopes) == (ADA.id, ADA.kind, ADA.scopes)
    assert principal.expires_at is not None
    assert await logins.authenticate(Credentials(token)) == principal
    assert logins.exchange(ticket) is None
    assert await logins.authenticate(Credentials(ticket)) is None


def test_a_ticket_is_128_bits_and_lasts_its_time(logins: Logins, clock: Clock) -> None:
    early, late = logins.ticket(ADA), logins.ticket(ADA)
    assert len(early) * 6 >= 128
    clock.now += 59.9
    assert logins.exchange(early) is not None
    clock.now += 0.1
    assert logins.exchange(late) is None


def test_a_jump_of_the_wall_clock_keeps_no_ticket_alive(logins: Logins, clock: Clock, monkeypatch: Any) -> None:
    ticket = logins.ticket(ADA)
    monkeypatch.setattr("kandev_host.gateway.logins.now", lambda: now() - timedelta(days=1))
    clock.now += 60
    assert logins.exchange(ticket) is None


@pytest.mark.parametrize("seconds", [600, 10_000_000])
async def test_a_session_ends_by_itself(logins: Logins, clock: Clock, seconds: float) -> None:
    token, principal = opened(logins)
    clock.now += 599
    assert logins.holds(principal)
    clock.now += seconds - 599
    assert not logins.holds(principal)
    assert await logins.authenticate(Credentials(token)) is None


def test_a_session_lasts_no_longer_than_what_made_it(logins: Logins, ada: Any) -> None:
    soon = now() + timedelta(seconds=5)
    made = logins.exchange(logins.ticket(replace(ADA, expires_at=soon)))
    assert made is not None
    assert made[1].expires_at == soon
    _, principal = opened(logins)
    ada.gone.add(ADA.credential)
    assert not logins.holds(principal)


def test_a_ticket_of_somebody_who_has_lost_the_right_is_worth_nothing(logins: Logins, ada: Any) -> None:
    ticket = logins.ticket(ADA)
    ada.gone.add(ADA.credential)
    assert logins.exchange(ticket) is None


def test_whoever_has_expired_holds_no_longer(logins: Logins) -> None:
    assert logins.holds(replace(ADA, expires_at=now() + timedelta(seconds=60)))
    assert not logins.holds(replace(ADA, expires_at=now() - timedelta(seconds=1)))


async def test_a_logout_ends_one_session_and_no_other(logins: Logins) -> None:
    (token, mine), (_, other) = opened(logins), opened(logins)
    assert known.clean_text(token) == MARK
    assert await logins.revoke(mine)
    assert known.clean_text(token) == token
    assert not logins.holds(mine)
    assert await logins.authenticate(Credentials(token)) is None
    assert logins.holds(other)
    assert await logins.revoke(mine)


def test_nothing_prolongs_itself_and_no_agent_makes_a_link(logins: Logins) -> None:
    _, session = opened(logins)
    with pytest.raises(Conflict, match="kandev-host link"):
        logins.ticket(session)
    with pytest.raises(Forbidden):
        logins.ticket(replace(ADA, kind="agent"))


def test_a_credential_of_a_plugin_that_looks_like_a_session_holds_nothing(logins: Logins) -> None:
    assert not logins.holds(replace(ADA, credential="session:made-up"))


def test_of_tickets_and_sessions_ones_own_oldest_go(logins: Logins) -> None:
    bob = replace(ADA, id="u2")
    bobs_ticket, bobs_session = logins.ticket(bob), opened(logins, bob)[1]
    tickets = [logins.ticket(ADA) for _ in range(EACH + 1)]
    assert logins.exchange(tickets[0]) is None
    assert logins.exchange(tickets[-1]) is not None
    _, first = opened(logins)
    _, second = opened(logins)
    for _ in range(EACH - 1):
        opened(logins)
    assert not logins.holds(first)
    assert logins.holds(second)
    assert logins.holds(bobs_session)
    assert logins.exchange(bobs_ticket) is not None


def test_where_there_are_too_many_whoever_has_most_gives_one(logins: Logins) -> None:
    opened(logins)
    _, mine = opened(logins)
    crowd = [opened(logins, replace(ADA, id=f"c{number}"))[1] for number in range(TOTAL - 2)]
    _, bobs = opened(logins, replace(ADA, id="u2"))
    assert [logins.holds(each) for each in (mine, bobs, *crowd)] == [True] * TOTAL
    with pytest.raises(Conflict, match="by a link"):
        opened(logins, replace(ADA, id="u3"))
    _, again = opened(logins)
    assert [logins.holds(each) for each in (mine, again, bobs)] == [False, True, True]


# Over the wire.


async def post(house: Any, body: Any, **headers: str) -> tuple[int, dict[str, Any]]:
    usual = {"Origin": house.url, "Content-Type": "application/json"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"{house.url}/login",
            data=body,
            headers={name: value for name, value in {**usual, **headers}.items() if value},
            skip_auto_headers=["Content-Type"],
        ) as answer,
    ):
        assert not answer.cookies
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]
        return answer.status, await answer.json()


async def link(wire: Any) -> tuple[str, str]:
    """The page and the ticket."""
    reply = (await wire.ask("auth.ticket"))["payload"]
    page, _, ticket = reply["url"].partition("#")
    assert ticket == reply["ticket"]
    return page, ticket


async def test_a_link_logs_a_browser_in_once(house: Any, wire: Any, open_wire: Any) -> None:
    page, ticket = await link(wire)
    assert page == f"{house.url}/login"
    status, reply = await post(house, f'{{"ticket": "{ticket}"}}')
    assert (status, reply["principal"]["name"]) == (200, "local")
    async with open_wire(house, token=None, protocols=("kandev.v1", f"bearer.{reply['token']}")) as socket:
        said = (await socket.ask("auth.login", {"token": reply["token"]}))["payload"]
        assert said["expires_at"] == reply["expires_at"]
    assert (await post(house, f'{{"ticket": "{ticket}"}}'))[0] == 401


async def test_a_link_that_is_too_old_says_how_to_get_another(open_house: Any, open_wire: Any) -> None:
    async with open_house(ticket_lifetime_s=1e-9) as house, open_wire(house) as wire:
        _, ticket = await link(wire)
        status, reply = await post(house, f'{{"ticket": "{ticket}"}}')
        assert status == 401
        assert "kandev-host link" in reply["message"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": ""}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "https://board.example"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Host": "evil.example"}, 421),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": ""}, 415),
        ({"Authorization": "Bearer wrong"}, 401),
    ],
    ids=str,
)
async def test_only_the_page_itself_exchanges_a_ticket(
    open_house: Any, open_wire: Any, headers: dict[str, str], status: int
) -> None:
    async with open_house(origins=("https://board.example",)) as house, open_wire(house) as wire:
        _, ticket = await link(wire)
        assert (await post(house, f'{{"ticket": "{ticket}"}}', **headers))[0] == status
        assert (await post(house, f'{{"ticket": "{ticket}"}}'))[0] == 200


async def test_behind_a_proxy_the_page_has_the_proxys_origin(open_house: Any, open_wire: Any) -> None:
    names = {"hosts": ("board.example",), "origins": ("https://board.example", "https://other.example")}
    async with open_house(**names) as house, open_wire(house) as wire:
        _, ticket = await link(wire)
        body = f'{{"ticket": "{ticket}"}}'
        assert (await post(house, body, Host="board.example", Origin="https://other.example"))[0] == 403
        assert (await post(house, body, Origin="https://board.example"))[0] == 403
        assert (await post(house, body, Host="board.example", Origin="https://board.example"))[0] == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("", 400), ("null", 400), ("[]", 400), ("{}", 400), ('{"ticket": 1}', 400), ('{"ticket": "x", "more": 1}', 400),
        ('{"ticket": ""}', 401), ('{"ticket": "\\ud800"}', 400), ("{" * 4000, 400), (b"\xff", 400),
        ('{"ticket": "' + "x" * 2000 + '"}', 401), ('{"ticket": "' + "x" * 5000 + '"}', 413),
    ],
)  # fmt: skip
async def test_a_wrong_exchange_is_refused(house: Any, body: Any, status: int) -> None:
    assert (await post(house, body))[0] == status


@pytest.mark.parametrize("path", ["/login", "/login.js", "/login.css"])
async def test_the_page_has_a_strict_policy_and_nothing_inline(house: Any, path: str) -> None:
    async with aiohttp.ClientSession() as session, session.get(house.url + path) as answer:
        text = await answer.text()
        policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';")
    assert answer.headers["Cache-Control"] == "no-store"
    if path == "/login":
        assert "<script>" not in text
        assert " style=" not in text
    assert "http:" not in text
    assert "https:" not in text.replace('"https:"', "")


async def test_a_logout_ends_all_sockets_of_the_session_after_its_answer(house: Any, wire: Any, open_wire: Any) -> None:
    _, ticket = await link(wire)
    token = (await post(house, f'{{"ticket": "{ticket}"}}'))[1]["token"]
    async with open_wire(house, token=token) as one, open_wire(house, token=token) as other:
        assert (await one.ask("auth.ticket"))["payload"]["code"] == "CONFLICT"
        assert (await one.ask("auth.logout"))["payload"] == {"revoked": True}
        assert (await one.closed())[0] == 4401
        assert (await other.closed())[0] == 4401
    assert (await wire.ask("health.check"))["type"] == "response"
    assert (await wire.ask("auth.logout"))["payload"] == {"revoked": False}
    assert (await wire.ask("health.check"))["type"] == "response"


async def test_neither_ticket_nor_session_token_is_logged(house: Any, wire: Any, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG)
    _, ticket = await link(wire)
    token = (await post(house, f'{{"ticket": "{ticket}"}}'))[1]["token"]
    await post(house, f'{{"ticket": "{ticket}"}}')
    assert ticket not in caplog.text
    assert token not in caplog.text


class Issuing:
    """An authenticator of one user with a password, whose first refresh token is good."""

    remote = False
    ada = Principal("ada", "user", "ada", frozenset({"*"}), credential="c")

    async def authenticate(self, credentials: Credentials) -> Principal | None:
        return self.ada if credentials.token in {"t1", "t2"} else None

    def holds(self, principal: Principal) -> bool:
        return True

    async def revoke(self, principal: Principal) -> bool:
        return False

    async def log_in(self, name: str, password: str, address: str) -> Issued | None:
        return Issued(self.ada, "t1", "r1") if (name, password) == ("ada", "right") else None

    async def refresh(self, refresh_token: str, address: str) -> Issued | None:
        return Issued(self.ada, "t2", "r2") if refresh_token == "r1" else None


async def test_an_authenticator_may_also_know_names_and_passwords(open_house: Any, open_wire: Any) -> None:
    async with open_house(authenticator=Issuing()) as house:
        async with open_wire(house, token=None) as wire:
            reply = (await wire.ask("auth.login", {"name": "ada", "password": "right"}))["payload"]
            assert (reply["principal"]["name"], reply["token"], reply["refresh_token"]) == ("ada", "t1", "r1")
            again = (await wire.ask("auth.refresh", {"refresh_token": "r1"}))["payload"]
            assert (again["token"], again["refresh_token"]) == ("t2", "r2")
            assert (await wire.ask("auth.login", {"token": "t2"}))["payload"]["token"] is None
        for wrong in ({"name": "ada", "password": "wrong"}, {"name": "ada"}, {"token": "t1", "name": "ada"}, {}):
            async with open_wire(house, token=None) as wire:
                assert (await wire.ask("auth.login", wrong))["payload"]["code"] == "UNAUTHORIZED"
                assert (await wire.closed())[0] == 4401
        async with open_wire(house, token=None) as wire:
            assert (await wire.ask("auth.refresh", {"refresh_token": "r9"}))["payload"]["code"] == "UNAUTHORIZED"


async def test_the_page_has_a_form_where_there_are_passwords(open_house: Any, house: Any) -> None:
    async with open_house(authenticator=Issuing()) as with_names:
        for at, shown in ((house, False), (with_names, True)):
            async with aiohttp.ClientSession() as session, session.get(f"{at.url}/login") as answer:
                assert ('<form id="enter">' in await answer.text()) is shown
        status, reply = await post(with_names, '{"name": "ada", "password": "right"}')
        assert (status, reply["token"], reply["refresh_token"]) == (200, "t1", "r1")
        assert (await post(with_names, '{"name": "ada", "password": "wrong"}'))[0] == 401
        assert (await post(with_names, '{"refresh_token": "r1"}', Origin=""))[1]["token"] == "t2"
        assert (await post(with_names, '{"name": "ada", "password": "right"}', Origin="http://evil.example"))[0] == 403
        assert (await post(with_names, '{"name": "ada", "password": "right", "token": "t1"}'))[0] == 400
    assert (await post(house, '{"name": "ada", "password": "right"}'))[0] == 503


async def test_a_right_password_is_not_counted_with_wrong_ones_of_its_address(open_house: Any) -> None:
    limits = {"address_request_burst": 2, "address_requests_per_s": 0.001}
    async with open_house(authenticator=Issuing(), **limits) as house:
        said = [(await post(house, '{"name": "ada", "password": "wrong"}'))[0] for _ in range(4)]
        assert said == [401, 401, 429, 429]
        assert (await post(house, '{"name": "ada", "password": "right"}'))[0] == 200
        assert (await post(house, '{"ticket": "guess"}'))[0] == 429


JWT = f"eyJ{'h' * 20}.eyJ{'c' * 20}.{'s' * 20}"


async def test_a_jwt_may_come_in_the_address_where_the_settings_say_so(open_house: Any, people: Any) -> None:
    async with (
        open_house(authenticator=people({JWT: ADA}.get), query_token=True) as house,
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{house.url}/ws?token={JWT}") as socket,
    ):
        await socket.send_json({"id": "1", "type": "request", "action": "health.check", "payload": {}})
        assert (await socket.receive_json())["type"] == "response"


@pytest.mark.parametrize(
    ("allowed", "path"),
    [
        (False, f"/ws?token={JWT}"), (True, "/ws?token=adas"), (True, f"/ws?token={JWT}&token=adas"),
        (True, f"/ws?token={JWT}&token={JWT}"), (True, f"/login?token={JWT}"),
    ],
    ids=["not so set", "no JWT", "and no JWT", "two", "another path"],
)  # fmt: skip
async def test_nothing_else_may(open_house: Any, people: Any, allowed: bool, path: str) -> None:
    known = people({JWT: ADA, "adas": ADA}.get)
    async with open_house(authenticator=known, query_token=allowed) as house, aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as error:
            await session.ws_connect(house.url + path)
        assert error.value.status == 401
