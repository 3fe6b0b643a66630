"""What an agent may reach for a task, and what of it comes into the journal."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from msgspec.structs import replace

from kandev_host import AgentType, NetworkDecision, Principal, ProcessSpec
from kandev_host.errors import Busy, Forbidden, ValidationFailed
from kandev_host.models import AgentInstance, ShellRow, Task
from kandev_host.protocol.actions.agents import AgentLaunch
from kandev_host.protocol.actions.boards import BoardCreate
from kandev_host.protocol.actions.shells import ShellInput, ShellOpen, ShellRun
from kandev_host.protocol.actions.tasks import TaskCreate, TaskUpdate
from kandev_host.services import network_log, network_tally
from kandev_host.services.network import check_allow, reaching
from kandev_host.services.network_log import NetworkLog
from kandev_host.services.network_tally import KINDS, OTHERS, OWNERS, Tally
from kandev_host.settings import Settings

pytestmark = pytest.mark.anyio

TASK = Task(board_id="b", title="t", description="", created_by="u")
DENIED = NetworkDecision(
    allowed=False, host="pypi.org", port=443, protocol="connect", reason="not in the allowlist",
    how_to_allow="allow it", labels={"task_id": "t1", "agent_id": "a1"},
)  # fmt: skip
ALLOWED = replace(DENIED, allowed=True, rule="pypi.org", address="151.101.0.223", reason="allowed", how_to_allow=None)


def kind(**fields: Any) -> AgentType:
    return AgentType(name="a", command=("a",), **fields)


@pytest.mark.parametrize(
    ("agent_type", "allow", "network", "reached"),
    [
        (kind(), (), "none", ()),
        (kind(hosts=("api.example",)), (), "none", ()),
        (kind(allow=("127.0.0.1:80",)), ("127.0.0.1:81",), "none", ("127.0.0.1:80", "127.0.0.1:81")),
        (kind(hosts=("api.example",)), ("pypi.org",), "allowlist", ("pypi.org",)),
        (kind(allow=("127.0.0.1:80",)), ("@npm",), "allowlist", ("127.0.0.1:80", "@npm")),
        (kind(network="allowlist", hosts=("api.example",)), (), "allowlist", ("api.example",)),
        (kind(network="allowlist", hosts=("a",), allow=("b", "a")), ("c", "b"), "allowlist", ("a", "b", "c")),
        (kind(network="host"), ("pypi.org",), "host", ("pypi.org",)),
    ],
)
def test_what_an_agent_reaches_for_a_task(
    agent_type: AgentType, allow: tuple[str, ...], network: str, reached: tuple[str, ...]
) -> None:
    task = Task(board_id="b", title="t", description="", created_by="u", allow=allow)
    found = reaching(agent_type, task)
    assert (found.network, found.allow) == (network, reached)


@pytest.mark.parametrize("who", ["agent", "service"])
async def test_only_a_user_opens_a_jail(house: Any, who: Any) -> None:
    def check(kind: Any, *entries: str) -> tuple[str, ...]:
        principal = Principal("x", kind, "x", frozenset({"*"}))
        return check_allow(principal, entries, house.workspaces, house.agent_types)

    with pytest.raises(Forbidden):
        check(who, "pypi.org")
    assert check(who) == ()
    assert check("user", "pypi.org", "@npm", "pypi.org") == ("pypi.org", "@npm")


async def test_a_preset_that_is_none_is_refused_with_those_there_are(open_shop: Any) -> None:
    async with open_shop(Settings()) as shop:
        with pytest.raises(ValidationFailed, match=r"no preset .*npm, "):
            await shop.house.tasks.update(shop.house.me, TaskUpdate(task_id=shop.task.id, allow=["@pipy"]))


async def test_what_is_allowed_meanwhile_holds_at_once(open_house: Any, tmp_path: Path) -> None:
    """The agent asks until it is answered otherwise than with a denial: the name is one that nothing has."""
    asks = "until curl -s -o /dev/null -w '%{http_code}' http://a.invalid/ | grep 502; do sleep 0.1; done; exit 0"
    kind = AgentType(name="asks", command=("/bin/sh", "-c", asks), network="allowlist")
    async with open_house(tmp_path / "data", [kind], Settings()) as house:
        board = (await house.boards.create(house.me, BoardCreate(name="Work"))).board
        task = (await house.tasks.create(house.me, TaskCreate(board_id=board.id, title="t", description=""))).task
        async with NetworkLog(house.journal, house.runtimes):
            await house.agents.launch(house.me, AgentLaunch(task_id=task.id, agent_type="asks"))
            (denied,) = await decided(house, 1)
            await house.tasks.update(house.me, TaskUpdate(task_id=task.id, allow=["a.invalid"]))
            first, second = (await decided(house, 2))[:2]
    assert b'"allowed":false' in bytes(denied.payload)
    assert first is denied
    assert b'"allowed":true' in bytes(second.payload)


@pytest.mark.parametrize("pty", [False, True])
async def test_an_open_shell_of_the_task_reaches_what_is_allowed_meanwhile(
    open_house: Any, tmp_path: Path, pty: bool
) -> None:
    asks = "curl -s -o /dev/null -w '%{http_code}' http://a.invalid/"
    async with open_house(tmp_path / "data", [], Settings()) as house:
        task = await a_task(house)
        other = (await house.shells.open(house.me, ShellOpen(task_id=task.id, network="none"))).shell
        how = ShellOpen(task_id=task.id, network="allowlist", pty=pty)
        shell = (await house.shells.open(house.me, how)).shell
        async with NetworkLog(house.journal, house.runtimes):
            await ask(house, shell, asks)
            (denied,) = await decided(house, 1)
            await house.tasks.update(house.me, TaskUpdate(task_id=task.id, allow=["a.invalid"]))
            await ask(house, shell, asks)
            let = (await decided(house, 2))[1]
        nowhere = await house.shells.run(house.me, ShellRun(shell_id=other.id, command=asks, timeout_s=60))
    assert b'"allowed":false' in bytes(denied.payload)
    assert b'"allowed":true' in bytes(let.payload)
    assert nowhere.exit_code == 6  # curl: nobody to ask for the name


async def a_task(house: Any) -> Task:
    board = (await house.boards.create(house.me, BoardCreate(name="Work"))).board
    made = TaskCreate(board_id=board.id, title="t", description="")
    task: Task = (await house.tasks.create(house.me, made)).task
    return task


async def ask(house: Any, shell: ShellRow, command: str) -> None:
    if shell.pty:
        await house.shells.input(house.me, ShellInput(shell_id=shell.id, data=command + "\n"))
    else:
        await house.shells.run(house.me, ShellRun(shell_id=shell.id, command=command, timeout_s=60))


@pytest.mark.parametrize("purpose", ["setup", "git", "snapshot"])
async def test_what_a_task_allows_reaches_none_of_the_hosts_own_jails(house: Any, purpose: str) -> None:
    """The name is one that nothing has: told 403, it was not looked up."""
    task = await a_task(house)
    runtime = house.runtimes["bwrap"]
    await runtime.prepare(task.id)
    await house.tasks.update(house.me, TaskUpdate(task_id=task.id, allow=["a.invalid"]))
    asks = ("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://a.invalid/")
    labels = {"task_id": task.id, "purpose": purpose}
    spec = ProcessSpec(workspace_id=task.id, command=asks, network="allowlist", labels=labels)
    assert (await runtime.run(spec)).stdout == b"403"


async def launched(shop: Any) -> AgentInstance:
    """The agent of the task, once it runs in its jail."""
    launch = AgentLaunch(task_id=shop.task.id, agent_type="scripted")
    agent_id = (await shop.house.agents.launch(shop.house.me, launch)).agent.id
    with anyio.fail_after(60):
        while True:
            arrived = shop.house.arrived  # before the look: what arrives during it is news as well
            agent: AgentInstance = await shop.house.store.get(AgentInstance, agent_id)
            if agent.status == "RUNNING":
                return agent
            await arrived.wait()


async def test_a_task_that_names_something_gives_its_agent_an_allowlist(open_shop: Any) -> None:
    async with open_shop(Settings(), task={"allow": ["@npm"]}) as shop:
        assert (await launched(shop)).network == "allowlist"


async def test_an_agent_with_the_hosts_network_is_warned_about(
    open_shop: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_shop(Settings(), network="host") as shop:
        assert (await launched(shop)).network == "host"
    assert "has the network of this host" in caplog.text


async def test_a_preset_that_needs_no_network_looks_at_what_the_task_names(open_shop: Any) -> None:
    async with open_shop(Settings(), task={"allow": ["pypi.org"]}) as shop:
        launch = AgentLaunch(task_id=shop.task.id, agent_type="scripted", preset="unattended")
        with pytest.raises(Exception, match="without a network"):
            await shop.house.agents.launch(shop.house.me, launch)
        plain = TaskUpdate(task_id=shop.task.id, allow=[])
        assert (await shop.house.tasks.update(shop.house.me, plain)).task.allow == ()
        await shop.house.agents.launch(shop.house.me, launch)


async def test_an_agent_cannot_allow_itself_anything(open_shop: Any) -> None:
    agent = Principal("a", "agent", "a", frozenset({"*"}))
    async with open_shop(Settings()) as shop:
        with pytest.raises(Forbidden):
            await shop.house.tasks.update(agent, TaskUpdate(task_id=shop.task.id, allow=["pypi.org"]))
        more = TaskCreate(board_id=shop.task.board_id, title="t", description="", allow=["pypi.org"])
        with pytest.raises(Forbidden):
            await shop.house.tasks.create(agent, more)


# --- counting ---------------------------------------------------------------------------------------------------------


def test_the_first_of_a_kind_is_told_at_once_and_repeats_are_counted() -> None:
    tally = Tally()
    assert [tally.add(each) for each in (DENIED, DENIED, ALLOWED, DENIED)] == [True, False, True, False]
    assert [(notice.allowed, notice.count) for notice in tally.first()] == [(False, 1), (True, 1)]
    assert [(notice.allowed, notice.count, notice.agent_id) for notice in tally.repeats()] == [(False, 2, "a1")]
    assert (tally.first(), tally.repeats()) == ([], [])


def test_what_went_through_is_told_with_the_repeats() -> None:
    tally = Tally()
    ended = replace(ALLOWED, ended=True, sent_bytes=10, received_bytes=2000)
    assert [tally.add(each) for each in (ALLOWED, ended, ALLOWED, ended)] == [True, False, False, False]
    assert [(notice.count, notice.sent_bytes, notice.received_bytes) for notice in tally.first()] == [(1, 0, 0)]
    assert [(notice.count, notice.sent_bytes, notice.received_bytes) for notice in tally.repeats()] == [(1, 20, 4000)]
    assert tally.repeats() == []


def test_the_end_of_a_long_connection_is_not_another_one() -> None:
    tally = Tally()
    tally.add(replace(ALLOWED, ended=True, sent_bytes=10))
    assert tally.first() == []
    assert [(notice.count, notice.sent_bytes) for notice in tally.repeats()] == [(0, 10)]


def test_an_agent_that_asks_for_many_hosts_pushes_none_of_them_out() -> None:
    tally = Tally()
    tally.add(ALLOWED)
    for number in range(10_000):
        tally.add(replace(DENIED, host=f"a{number}.example"))
    tally.add(replace(ALLOWED, host="late.example"))
    tally.add(ALLOWED)
    notices = [*tally.first(), *tally.repeats()]
    assert len(notices) <= KINDS + 5
    others = [(notice.allowed, notice.count) for notice in notices if notice.host == OTHERS]
    assert others == [(False, 1), (True, 1), (False, 10_000 - KINDS)]
    assert sum(notice.count for notice in notices) == 10_003


def test_another_agent_has_kinds_of_its_own() -> None:
    tally = Tally()
    for number in range(KINDS * 2):
        tally.add(replace(DENIED, host=f"a{number}.example"))
    tally.first()
    assert tally.add(replace(ALLOWED, labels={"agent_id": "a2"}))
    assert [notice.host for notice in tally.first()] == ["pypi.org"]


def test_what_is_counted_of_an_owner_beyond_the_bound_is_told_when_it_is_forgotten() -> None:
    tally = Tally()
    tally.add(DENIED)
    tally.add(DENIED)
    for number in range(OWNERS):
        tally.add(replace(DENIED, labels={"agent_id": f"b{number}"}))
    assert sum(notice.count for notice in tally.first() if notice.agent_id == "a1") == 2


def test_what_was_long_silent_is_told_at_once_again() -> None:
    clock = [0.0]
    tally = Tally(lambda: clock[0])
    tally.add(DENIED)
    clock[0] = network_tally.FORGOTTEN_S + 1
    tally.repeats()
    assert tally.add(DENIED)


# --- into the journal -------------------------------------------------------------------------------------------------


class Place:
    """A runtime that decides what it is told to."""

    def __init__(self, *decisions: NetworkDecision) -> None:
        self._decisions = decisions

    async def decisions(self) -> AsyncIterator[NetworkDecision]:
        for decision in self._decisions:
            yield decision


async def decided(house: Any, count: int) -> list[Any]:
    with anyio.fail_after(60):
        while True:
            found = [item for item in house.events if item.action == "network.decided"]
            if len(found) >= count:
                return found
            await house.arrived.wait()


async def test_a_decision_comes_to_the_topics_of_its_task_and_its_agent(house: Any) -> None:
    async with NetworkLog(house.journal, {"place": Place(DENIED)}):
        (event,) = await decided(house, 1)
    assert event.topics() == ("task:t1", "agent:a1", "*")
    assert event.seq is not None
    assert b'"how_to_allow":"allow it"' in bytes(event.payload)


async def test_repeats_are_written_now_and_then(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_log, "REPEATS_EVERY_S", 0.01)
    async with NetworkLog(house.journal, {"place": Place(*[DENIED] * 1000)}):
        events = await decided(house, 2)
    assert len(events) == 2
    assert b'"count":999' in bytes(events[1].payload)


async def test_what_is_still_counted_is_written_at_the_end(house: Any) -> None:
    async with NetworkLog(house.journal, {"place": Place(DENIED, DENIED)}):
        await decided(house, 1)
    assert len(await decided(house, 2)) == 2


async def test_a_journal_that_is_full_stops_nothing(house: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Full:
        asked = anyio.Event()

        async def record(self, *_: Any) -> None:
            self.asked.set()
            raise Busy("full")

    full: Any = Full()
    async with NetworkLog(full, {"place": Place(DENIED)}):
        with anyio.fail_after(60):
            await full.asked.wait()
    assert "1 network decisions were not written" in caplog.text
