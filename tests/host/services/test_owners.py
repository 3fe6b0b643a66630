"""What services themselves see to: whose a new board is, what holds on all boards, what is found; tokens of agents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from kandev_host import AgentType, LaunchExtras, Principal
from kandev_host.errors import Forbidden, NotFound
from kandev_host.interfaces import ProcessSpec, Put, scopes_of
from kandev_host.models import LOCAL_USER_ID, Task, User
from kandev_host.protocol.actions.agents import AgentLaunch, AgentStop, PermissionRespond
from kandev_host.protocol.actions.boards import BoardCreate, BoardUpdate
from kandev_host.protocol.actions.search import SearchQuery
from kandev_host.protocol.actions.tasks import TaskCreate
from kandev_host.secrets import known
from kandev_host.services.ownership import FIELDS
from kandev_host.settings import Settings

pytestmark = pytest.mark.anyio

WAIT_S = 60
ADA, BOB = (Principal(name, "user", name, scopes_of("member")) for name in ("ada", "bob"))


@pytest.fixture
async def users(house: Any) -> None:
    await house.journal.record(*(Put(User(id=each.id, email=each.id, username=each.id)) for each in (ADA, BOB)))


@pytest.mark.usefixtures("users")
async def test_a_board_is_its_makers_and_only_an_admin_gives_it_away(house: Any) -> None:
    board = (await house.boards.create(ADA, BoardCreate(name="ada's"))).board
    assert board.owner_id == "ada"
    with pytest.raises(Forbidden) as refused:
        await house.boards.create(BOB, BoardCreate(name="a present", owner_id="ada"))
    assert refused.value.details == {"scope": "boards:all", "owner": "ada"}
    with pytest.raises(Forbidden):
        await house.boards.update(ADA, BoardUpdate(board_id=board.id, owner_id="bob"))
    with pytest.raises(NotFound):
        await house.boards.update(house.me, BoardUpdate(board_id=board.id, owner_id="nobody"))
    given = (await house.boards.update(house.me, BoardUpdate(board_id=board.id, owner_id="bob"))).board
    assert (given.owner_id, given.version) == ("bob", 2)
    with pytest.raises(Forbidden):
        await house.ownership.check(ADA, board_id=board.id)
    await house.ownership.check(BOB, board_id=board.id)
    with pytest.raises(TypeError, match="note_id names nothing"):
        await house.ownership.check(BOB, note_id="x")


async def test_what_is_not_there_is_found_by_nobody_whatever_they_hold(house: Any) -> None:
    for who in (house.me, ADA):
        for field in FIELDS:
            with pytest.raises(NotFound):
                await house.ownership.check(who, **{field: "nope"})
        with pytest.raises(TypeError, match="note_id names nothing"):
            await house.ownership.check(who, note_id="x")
    await house.ownership.check(house.me, rule_id="settings:x")


async def test_whoever_the_host_does_not_know_owns_nothing(house: Any) -> None:
    stranger = Principal("x", "user", "x", scopes_of("member"))
    with pytest.raises(NotFound):
        await house.boards.create(stranger, BoardCreate(name="x"))
    service = Principal("s", "service", "s", frozenset({"boards:write", "boards:all"}))
    assert (await house.boards.create(service, BoardCreate(name="x"))).board.owner_id == LOCAL_USER_ID


async def test_a_member_makes_no_rule_that_holds_on_all_boards(house: Any) -> None:
    with pytest.raises(Forbidden) as refused:
        await house.permissions.respond(
            ADA, PermissionRespond(permission_id="x", option_id="yes", remember="agent_type")
        )
    assert refused.value.details == {"scope": "boards:all", "field": "remember"}
    with pytest.raises(NotFound):
        await house.permissions.respond(ADA, PermissionRespond(permission_id="x", option_id="yes", remember="task"))


async def test_a_search_finds_what_may_be_read(house: Any) -> None:
    board = (await house.boards.create(house.me, BoardCreate(name="b"))).board
    await house.tasks.create(house.me, TaskCreate(board_id=board.id, title="a needle", description=""))
    key = Principal("k", "user", "k", frozenset({"tasks:read"}))
    assert [hit.kind for hit in (await house.search.query(key, SearchQuery(text="needle"))).hits] == ["task"]
    for kind, scope in (("command", "shell:read"), ("message", "agents:read"), ("log", "agents:read")):
        with pytest.raises(Forbidden) as refused:
            await house.search.query(key, SearchQuery(text="needle", kinds=["task", kind]))
        assert refused.value.details == {"scope": scope}


async def test_an_agent_has_a_token_only_if_a_plugin_asks_and_until_it_ends(open_house: Any, tmp_path: Path) -> None:
    def prepare(agent: Any, task: Task) -> LaunchExtras | None:
        return LaunchExtras(token_variable="BOARD_TOKEN") if task.title == "with" else None

    # Renamed when it is whole; then it waits to be ended.
    script = 'echo "$BOARD_TOKEN." > new; mv new token; exec cat > rest'
    kind = AgentType(name="own", command=("sh", "-c", script))
    async with open_house(tmp_path / "data", [kind], Settings(), prepare_launch=prepare) as house:
        board = (await house.boards.create(house.me, BoardCreate(name="Work"))).board
        for title in ("with", "without"):
            task = (await house.tasks.create(house.me, TaskCreate(board_id=board.id, title=title, description=""))).task
            agent = (await house.agents.launch(house.me, AgentLaunch(task_id=task.id, agent_type="own"))).agent
            with anyio.fail_after(WAIT_S):
                while house.supervisor.live(agent.id) is None or not (said := await read(house, task.id)):
                    await anyio.sleep(0.1)
            token = said.removesuffix(".")
            whose = house.agent_tokens.whose(token)
            if title == "without":
                assert (token, whose) == ("", None)
            else:
                assert (whose.kind, whose.id, whose.task_id) == ("agent", agent.id, task.id)
                assert house.agent_tokens.holds(whose)
                assert known.found(token.encode())
            await house.agents.stop(house.me, AgentStop(agent_id=agent.id))
            with anyio.fail_after(WAIT_S):
                while house.agent_tokens.whose(token) is not None:
                    await anyio.sleep(0.02)
            assert whose is None or not house.agent_tokens.holds(whose)
            assert not token or not known.found(token.encode())


async def read(house: Any, task_id: str) -> str:
    result = await house.runtimes["bwrap"].run(ProcessSpec(workspace_id=task_id, command=("cat", "token")))
    return str(result.stdout.decode().strip())
