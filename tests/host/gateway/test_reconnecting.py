"""The client that comes back, against a gateway that is killed, cuts it, changes its token or gets another journal."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from kandev_host.client import Backoff, ClientError, ConnectionLost, ReconnectingClient
from kandev_host.events import event
from kandev_host.gateway.tokens import LocalAuthenticator
from kandev_host.interfaces import Action, Call, Principal
from kandev_host.models import LOCAL_USER_ID
from kandev_host.protocol.actions.host import HealthCheck

pytestmark = pytest.mark.anyio
ME = Principal(LOCAL_USER_ID, "user", "local", frozenset({"*"}))
OTHER = "left-" + "t" * 40
QUICK = Backoff(first_s=0.01, limit_s=0.1, give_up_s=10)


class Address:
    """Where the gateway is now, and what its token is."""

    url = ""
    token = ""

    def of(self, house: Any) -> Address:
        self.url, self.token = house.url, house.token
        return self

    def client(self, **options: Any) -> ReconnectingClient:
        return ReconnectingClient(lambda: self.url, lambda: self.token, **{"backoff": QUICK, **options})


async def taken(notifications: AsyncIterator[Any], until: int) -> list[int]:
    """The numbers of what comes next, up to this one."""
    found: list[int] = []
    with anyio.fail_after(60):
        while not found or found[-1] < until:
            found.append((await anext(notifications)).seq)
    return found


async def failed(work: Any) -> ClientError:
    with pytest.raises(ClientError) as caught, anyio.fail_after(60):
        await work
    return caught.value


async def cut(house: Any) -> None:
    """Drop every socket without a word, as a network does."""
    for connection in tuple(house.gateway._connections):
        connection.abort()
    await anyio.lowlevel.checkpoint()


async def test_events_of_a_gateway_that_went_away_and_came_back_arrive_once_and_in_order(open_house: Any) -> None:
    address = Address()
    async with open_house() as first, address.of(first).client() as client:
        await first.record(5)
        await client.subscribe("task:t1", "task:t2", after_seq=0)
        notifications = client.notifications()
        assert await taken(notifications, 3) == [1, 2, 3]
        async with open_house(store=first.store) as second:
            address.of(second)
            await first.gateway.stop()
            await second.record(5)
            assert await taken(notifications, 11) == [4, 5, 7, 8, 9, 10, 11]
            assert client.connections == 2


async def test_topics_and_position_survive_any_number_of_cuts_under_load(open_house: Any) -> None:
    address = Address()
    async with open_house(requests_per_s=1000.0) as house, address.of(house).client() as client:
        got: list[int] = []
        await client.subscribe("*", after_seq=0)

        async def follow() -> None:
            async for notification in client.notifications():
                got.append(notification.seq or 0)
                if len(got) == 600:
                    return

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            for _ in range(10):
                await house.record(59)
                await cut(house)
                await client.call("echo.text", {"text": "here"})
        assert got == list(range(1, 601))


def creating(house: Any) -> list[Action[Any]]:
    """As `task.create` does: whoever asks follows t2 from now on, also while another topic is replayed."""

    def create(call: Call, _request: HealthCheck) -> dict[str, Any]:
        call.subscribe("task:t2")
        return {"task": {"id": "t2"}}

    return [*house.actions(), Action("task.create", HealthCheck, create, "host:read")]


async def test_a_topic_followed_amid_the_replay_of_another_costs_no_event(open_house: Any) -> None:
    """Its live events come before replayed ones; broken off there, nothing is skipped and nothing doubled."""
    address = Address()
    async with open_house(actions=creating) as house, address.of(house).client() as client:
        await house.record(900)

        async def amid_the_replay() -> None:
            house.store.on_events = None
            await client.call("task.create")
            await house.record(3, task_id="t2")

        house.store.on_events = amid_the_replay
        await client.subscribe("task:t1", after_seq=0)
        notifications = client.notifications()
        first = (await anext(notifications)).seq or 0
        assert first > 900
        await cut(house)
        await house.record(1)
        got = [first, *await taken(notifications, 905)]
        assert sorted(got) == [*range(1, 901), 902, 903, 904, 905 + 1]


async def test_a_call_on_its_way_is_asked_again_under_the_same_id(open_house: Any) -> None:
    address, answers = Address(), list[Any]()
    async with open_house() as house, address.of(house).client() as client:

        async def ask() -> None:
            answers.append(await client.call("echo.wait", {"text": "once"}))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await house.entered.wait()
            await cut(house)
            with anyio.fail_after(60):
                while client.connections < 2:
                    await anyio.sleep(0.01)
            house.gate.set()
        assert answers == [{"text": "once"}]


async def test_a_change_on_its_way_has_one_effect(open_house: Any) -> None:
    """P7: the repeated request waits for the first, and gets its answer."""
    address, answers = Address(), list[Any]()
    async with open_house() as house, address.of(house).client() as client:

        async def ask() -> None:
            answers.append(await client.call("echo.write", {"text": "once"}))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await house.entered.wait()
            await cut(house)
            with anyio.fail_after(60):
                while client.connections < 2:
                    await anyio.sleep(0.01)
            house.gate.set()
        assert answers == [{"text": "once"}]
        assert house.finished == ["once"]


async def test_a_call_ends_at_its_deadline_also_without_a_connection(open_house: Any) -> None:
    address = Address()
    async with open_house() as house, address.of(house).client() as client:
        await house.gateway.stop()
        assert (await failed(client.call("health.check", timeout_s=0.1))).code == "TIMEOUT"


async def test_cut_for_being_too_slow_it_gets_the_rest_when_it_reads_again(
    open_house: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """P6: 4408, and nothing is missing."""
    address, lost = Address(), list[ClientError]()
    small = {"outbound_limit_messages": 10, "outbound_limit_bytes": 10_000}
    async with open_house(**small) as house, address.of(house).client(buffer=1, on_lost=lost.append) as client:
        await client.subscribe("task:t1")
        with caplog.at_level(logging.INFO, "kandev_host.gateway.connection"):
            while "was cut" not in caplog.text:
                await house.record(50, size=4000)
        wanted = [event.seq for event in house.store.kept if event.task_id == "t1"]
        assert await taken(client.notifications(), wanted[-1]) == wanted
        assert lost[0].details["close_code"] == 4408


async def test_a_replaced_token_is_read_anew(open_house: Any) -> None:
    address = Address()
    async with (
        open_house() as first,
        open_house(LocalAuthenticator(OTHER, ME)) as second,
        address.of(first).client() as client,
    ):
        address.url, address.token = second.url, OTHER
        await first.gateway.stop()
        assert (await client.call("health.check", timeout_s=10))["status"] == "ok"


async def test_a_token_file_that_is_just_being_replaced_is_waited_for(open_house: Any) -> None:
    asked = 0

    async with open_house() as house:

        def token() -> str:
            nonlocal asked
            asked += 1
            if asked == 2:
                raise FileNotFoundError("token")
            return str(house.token)

        async with ReconnectingClient(house.url, token, backoff=QUICK) as client:
            await cut(house)
            assert (await client.call("health.check", timeout_s=10))["status"] == "ok"
            assert asked == 3


async def test_what_a_repeated_answer_follows_has_no_gap(open_house: Any) -> None:
    """The host made t2 and lost the connection before it could say so: its first event comes all the same."""
    address, started, answered = Address(), anyio.Event(), anyio.Event()

    def actions(house: Any) -> list[Action[Any]]:
        async def create(call: Call, _request: HealthCheck) -> dict[str, Any]:
            call.subscribe("task:t2")
            started.set()
            await answered.wait()
            return {"task": {"id": "t2"}}

        return [*house.actions(), Action("task.create", HealthCheck, create, "host:write")]

    async with open_house(actions=actions) as house, address.of(house).client() as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.call, "task.create")
            await started.wait()
            await cut(house)
            await house.journal.post(event("acp.log", {}, task_id="t2"))
            await house.settled()
            with anyio.fail_after(60):
                while client.connections < 2:
                    await anyio.sleep(0.01)
            answered.set()
        assert await taken(client.notifications(), 1) == [1]


async def test_a_refused_token_ends_it_with_the_reason(open_house: Any) -> None:
    address = Address()
    async with open_house() as house, address.of(house).client() as client:
        notifications = client.notifications()
        address.token = "wrong"
        await cut(house)
        for attempt in (anext(notifications), client.call("health.check")):
            error = await failed(attempt)
            assert (error.code, error.details["gave_up"]) == ("UNAUTHORIZED", True)
        assert client.closed is not None


async def test_it_gives_up_after_its_time_and_says_why(open_house: Any) -> None:
    address = Address()
    short = Backoff(first_s=0.01, limit_s=0.02, give_up_s=0.1)
    async with open_house() as house, address.of(house).client(backoff=short) as client:
        await house.gateway.stop()
        error = await failed(anext(client.notifications()))
        assert (error.code, error.details["gave_up"]) == ("UNAVAILABLE", True)
        assert "No host at" in error.message


async def test_another_journal_is_told_once_and_a_new_subscription_goes_on(open_house: Any) -> None:
    address = Address()
    async with open_house() as house, address.of(house).client() as client:
        await client.subscribe("*")
        house.journal._journal_id = "journal-2"
        await cut(house)
        error = await failed(anext(client.notifications()))
        assert error.resync_required
        await client.subscribe("*")
        assert client.journal_id == "journal-2"
        await house.record(1)
        assert (await anext(client.notifications())).action == "acp.log"


async def test_a_followed_task_that_is_gone_is_told_and_the_others_go_on(open_house: Any) -> None:
    address = Address()
    async with open_house() as house, address.of(house).client() as client:
        await client.subscribe("task:t1", "task:t2")
        known = house.store.get

        async def get(kind: Any, id: str) -> Any:
            return None if id == "t2" else await known(kind, id)

        house.store.get = get
        await cut(house)
        notifications = client.notifications()
        error = await failed(anext(notifications))
        assert (error.code, error.details["id"]) == ("NOT_FOUND", "t2")
        await house.record(1)
        assert (await anext(client.notifications())).action == "acp.log"


async def test_a_position_of_an_earlier_client_is_gone_on_from(open_house: Any) -> None:
    address = Address()
    async with open_house() as house:
        await house.record(5)
        async with address.of(house).client() as first:
            await first.subscribe("task:t1", after_seq=0)
            await taken(first.notifications(), 3)
            seq, journal_id = first.resume_seq, first.journal_id
        async with address.client() as second:
            await second.subscribe("task:t1", after_seq=seq, journal_id=journal_id)
            assert await taken(second.notifications(), 5) == [4, 5]


async def test_a_second_position_is_refused(open_house: Any) -> None:
    address = Address()
    async with open_house() as house, address.of(house).client() as client:
        await client.subscribe("task:t1")
        with pytest.raises(ValueError, match="one position"):
            await client.subscribe("task:t2", after_seq=0)


async def test_nobody_there_at_first_is_an_error_at_once() -> None:
    with pytest.raises(ConnectionLost, match="No host at"):
        async with ReconnectingClient("http://127.0.0.1:1", "t"):
            pass


async def test_the_bodys_own_error_comes_out_as_it_is(open_house: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_house() as house, Address().of(house).client():
            raise ZeroDivisionError


async def test_a_call_sent_just_as_the_connection_breaks_waits_for_the_next_one(open_house: Any) -> None:
    """The transport knows that it is lost before the reader does; asking again on it at once would never end."""
    address, over = Address(), anyio.Event()
    async with open_house(requests_per_s=100_000.0) as house, address.of(house).client() as client:

        async def ask() -> None:
            while not over.is_set():
                await client.call("health.check")

        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(ask)
            for number in range(30):
                before = client.connections
                await cut(house)
                with anyio.fail_after(60):
                    while client.connections == before:
                        await anyio.sleep(0.001)
                await anyio.sleep(0.002 * (number % 5))
            over.set()
