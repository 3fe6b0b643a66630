"""Who may do what: every action, route and notification, for every role, over real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from kandev_host.events import event
from kandev_host.interfaces import SCOPES, Principal, Put, Route
from kandev_host.models import Board, ShellRow
from kandev_host.protocol.actions import ACTIONS
from kandev_host.protocol.notifications import NOTIFICATIONS
from kandev_host.protocol.schema import OFFERS

from .access_world import PEOPLE, PLUGIN, Rows, actions, agent, payload_of

pytestmark = pytest.mark.anyio

WHO = ("viewer", "owner", "other", "admin", "agent", "stranger", "gone", "nobody")
CODES = {"+": None, "F": "FORBIDDEN", "N": "NOT_FOUND", "X": "UNAVAILABLE", "U": "UNAUTHORIZED"}

# What is named is on the board b1 of ada, the owner, unless it is said. `agent` is the agent a1 of the task t1 there,
# `stranger` that of a task on another board of hers, `gone` has a token that was revoked, `nobody` none.
# What is allowed reaches a service that finds everything, so `none`, which is not there, is no fault of those.
# X: it is allowed, but this host knows no passwords.
TABLE = """
                                              viewer owner other admin agent stranger gone nobody
agent.authenticate                                 F     +     F     +     F        F    U      U
agent.cancel                                       F     +     F     +     F        F    U      U
agent.capture                                      F     +     F     +     F        F    U      U
agent.launch                                       F     +     F     +     F        F    U      U
agent.list                                         +     +     +     +     F        F    U      U
agent.list task_id=t1                              +     +     +     +     +        N    U      U
agent.logout                                       F     +     F     +     F        F    U      U
agent.logs                                         +     +     +     +     F        F    U      U
agent.prompt                                       F     +     F     +     F        F    U      U
agent.resume                                       F     +     F     +     F        F    U      U
agent.session                                      +     +     +     +     +        N    U      U
agent.session_delete                               F     +     F     +     F        F    U      U
agent.session_delete session_id=its agent_id=a1    F     +     F     +     F        F    U      U
agent.session_delete agent_id=a9                   F     F     F     +     F        F    U      U
agent.sessions                                     +     +     +     +     F        F    U      U
agent.set_option                                   F     +     F     +     F        F    U      U
agent.status                                       +     +     +     +     +        N    U      U
agent.status agent_id=none                         +     +     +     +     N        N    U      U
agent.stop                                         F     +     F     +     F        F    U      U
agent.transcript                                   +     +     +     +     F        F    U      U
agent.transcript task_id=t1                        +     +     +     +     +        N    U      U
agent.transcript agent_id=a1                       +     +     +     +     +        N    U      U
agent.type_update                                  F     F     F     +     F        F    U      U
agent.types                                        +     +     +     +     F        F    U      U
audit.list                                         F     F     F     +     F        F    U      U
auth.login                                         +     +     +     +     +        +    U      U
auth.logout                                        +     +     +     +     +        +    U      U
auth.refresh refresh_token=x                    X     X     X     X     F        F    U      U
auth.ticket                                        +     +     +     +     F        F    U      U
backup.create                                      F     F     F     +     F        F    U      U
backup.list                                        F     F     F     +     F        F    U      U
board.create                                       F     +     +     +     F        F    U      U
board.delete                                       F     +     F     +     F        F    U      U
board.get                                          +     +     +     +     F        F    U      U
board.list                                         +     +     +     +     F        F    U      U
board.update                                       F     +     F     +     F        F    U      U
board.update board_id=b9                           F     F     +     +     F        F    U      U
board.update board_id=none                         F     N     N     +     F        F    U      U
column.create                                      F     +     F     +     F        F    U      U
column.delete                                      F     +     F     +     F        F    U      U
column.list                                        +     +     +     +     F        F    U      U
column.move                                        F     +     F     +     F        F    U      U
column.update                                      F     +     F     +     F        F    U      U
elicitation.list                                   +     +     +     +     F        F    U      U
elicitation.respond                                F     +     F     +     F        F    U      U
events.subscribe                                   +     +     +     +     F        F    U      U
events.subscribe topics=board:b1                   +     +     +     +     F        F    U      U
events.subscribe topics=task:t1                    +     +     +     +     +        N    U      U
events.subscribe topics=agent:a1                   +     +     +     +     +        N    U      U
events.subscribe topics=agent:none                 +     +     +     +     N        N    U      U
events.subscribe topics=shell:sh1                  F     +     F     +     F        F    U      U
events.subscribe topics=task:t1,shell:sh1          F     +     F     +     F        N    U      U
events.subscribe topics=shell:scratch              F     F     +     +     F        F    U      U
events.unsubscribe                                 +     +     +     +     +        +    U      U
health.check                                       +     +     +     +     +        +    U      U
host.info                                          +     +     +     +     F        F    U      U
orchestrator.complete                              F     +     F     +     F        F    U      U
orchestrator.pause                                 F     F     F     +     F        F    U      U
orchestrator.prompt                                F     +     F     +     F        F    U      U
orchestrator.queue                                 +     +     +     +     F        F    U      U
orchestrator.resume                                F     F     F     +     F        F    U      U
orchestrator.start                                 F     +     F     +     F        F    U      U
orchestrator.status                                +     +     +     +     F        F    U      U
orchestrator.stop                                  F     +     F     +     F        F    U      U
orchestrator.trigger                               F     +     F     +     F        F    U      U
permission.list                                    +     +     +     +     F        F    U      U
permission.respond                                 F     +     F     +     F        F    U      U
permission.rule_delete                             F     +     F     +     F        F    U      U
permission.rule_delete rule_id=everywhere          F     F     F     +     F        F    U      U
permission.rule_delete rule_id=settings:x          F     F     F     +     F        F    U      U
permission.rules                                   +     +     +     +     F        F    U      U
queue.list                                         +     +     +     +     +        N    U      U
queue.remove                                       F     +     F     +     F        F    U      U
queue.update                                       F     +     F     +     F        F    U      U
search.query                                       +     +     +     +     F        F    U      U
search.query task_id=t1                            +     +     +     +     F        F    U      U
shell.close                                        F     +     F     +     F        F    U      U
shell.close shell_id=scratch                       F     F     +     +     F        F    U      U
shell.commands                                     F     +     +     +     F        F    U      U
shell.input                                        F     +     F     +     F        F    U      U
shell.jobs                                         F     +     +     +     F        F    U      U
shell.list                                         F     +     +     +     F        F    U      U
shell.open                                         F     +     +     +     F        F    U      U
shell.open task_id=t1                              F     +     F     +     F        F    U      U
shell.open workspace_id=t1                         F     +     F     +     F        F    U      U
shell.open workspace_id=w2                         F     F     +     +     F        F    U      U
shell.open workspace_id=none                       F     N     N     +     F        F    U      U
shell.read                                         F     +     F     +     F        F    U      U
shell.resize                                       F     +     F     +     F        F    U      U
shell.run                                          F     +     F     +     F        F    U      U
shell.signal                                       F     +     F     +     F        F    U      U
task.create                                        F     +     F     +     F        F    U      U
task.create column_id=c9                           F     F     F     +     F        F    U      U
task.delete                                        F     +     F     +     F        F    U      U
task.events                                        +     +     +     +     +        N    U      U
task.get                                           +     +     +     +     +        N    U      U
task.get task_id=none                              +     +     +     +     N        N    U      U
task.list                                          +     +     +     +     F        F    U      U
task.list board_id=b1                              +     +     +     +     F        F    U      U
task.move                                          F     +     F     +     F        F    U      U
task.move column_id=c9                             F     F     F     +     F        F    U      U
task.state                                         F     +     F     +     F        F    U      U
task.subscribe                                     +     +     +     +     +        N    U      U
task.unsubscribe                                   +     +     +     +     +        N    U      U
task.update                                        F     +     F     +     +        N    U      U
task.update title=Other                            F     +     F     +     F        F    U      U
usage.summary                                      +     +     +     +     F        F    U      U
workspace.commits                                  F     +     F     +     F        F    U      U
workspace.delete                                   F     +     F     +     F        F    U      U
workspace.diff                                     +     +     +     +     +        N    U      U
workspace.files                                    +     +     +     +     +        N    U      U
workspace.get                                      +     +     +     +     +        N    U      U
workspace.read                                     +     +     +     +     +        N    U      U
workspace.restore                                  F     +     F     +     F        F    U      U
workspace.restore snapshot_id=sn9                  F     F     F     +     F        F    U      U
workspace.snapshot                                 F     +     F     +     F        F    U      U
workspace.snapshots                                +     +     +     +     +        N    U      U
plugin.note                                        F     F     F     +     F        F    U      U
plugin.read                                        F     F     F     +     F        F    U      U
plugin.tag                                         F     +     F     +     F        F    U      U
plugin.tag task_ids=t1                             F     F     F     +     F        F    U      U
plugin.tag note_id=n1                              F     F     F     +     F        F    U      U
plugin.vague                                       F     F     F     +     F        F    U      U
plugin.anyone                                      +     +     +     +     F        F    U      U
"""


def table() -> list[tuple[str, dict[str, Any], dict[str, str]]]:
    head, *lines = [line.split() for line in TABLE.strip().splitlines()]
    assert tuple(head) == WHO
    rows = []
    for action, *words in lines:
        named = dict(word.split("=") for word in words[: -len(WHO)])
        outcomes = dict(zip(WHO, words[-len(WHO) :], strict=True))
        rows.append((action, named, outcomes))
    return rows


ROWS = table()


async def plugin_route(_request: web.Request) -> web.Response:
    return web.Response(text="the plugin's")


ROUTES = [Route("GET", "/metrics", plugin_route, "metrics:read"), Route("GET", "/notes", plugin_route, "notes:read")]


@pytest.fixture
async def served(open_house: Any, people: Any) -> AsyncIterator[Any]:
    known = people(PEOPLE.get)
    known.gone.add("gone")
    async with open_house(
        authenticator=known, store=Rows(), actions=actions, routes=ROUTES, requests_per_s=1e6, principal_rate_factor=1e3
    ) as house:
        house.tokens = {name: name for name in PEOPLE}
        house.tokens["agent"] = house.agent_tokens.mint(agent("a1", "t1"))
        house.tokens["stranger"] = house.agent_tokens.mint(agent("a2", "t2"))
        yield house


def test_the_table_has_a_row_for_every_action() -> None:
    assert {action for action, _, _ in ROWS} == {*OFFERS, *(each.name for each in PLUGIN)}


@pytest.mark.parametrize("who", ["viewer", "owner", "other", "admin", "agent", "stranger"])
async def test_every_action_for_every_role(served: Any, open_wire: Any, who: str) -> None:
    wrong = []
    async with open_wire(served, token=served.tokens[who]) as wire:
        for number, (action, named, outcomes) in enumerate(row for row in ROWS if row[0] != "auth.logout"):
            payload = {"token": served.tokens[who]} if action == "auth.login" else payload_of(action, named)
            await wire.request(action, payload, str(number))
            while (reply := await wire.message())["type"] == "notification":
                pass
            code = reply["payload"]["code"] if reply["type"] == "error" else None
            if code != CODES[outcomes[who]]:
                wrong.append((action, named, code, outcomes[who]))
    assert wrong == []


@pytest.mark.parametrize("who", ["gone", "nobody"])
async def test_no_action_without_a_good_token(served: Any, open_wire: Any, who: str) -> None:
    assert {outcomes[who] for _, _, outcomes in ROWS} == {"U"}
    if who == "gone":
        with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
            async with open_wire(served, token="gone"):
                pass
    for action in sorted({action for action, _, _ in ROWS}):
        async with open_wire(served, token=None) as wire:
            payload = {"token": "gone"} if who == "gone" else payload_of(action, {})
            reply = await wire.ask("auth.login" if who == "gone" else action, payload)
            assert reply["payload"]["code"] == "UNAUTHORIZED"
            assert (await wire.closed())[0] == 4401
        if who == "gone":  # it gets no further than its log-in
            break


async def test_whoever_holds_everything_costs_no_lookup(served: Any, open_wire: Any) -> None:
    async with open_wire(served, token="admin") as wire:
        before = served.store.looked_up
        for action in ("task.update", "shell.input", "task.get", "agent.capture"):
            assert (await wire.ask(action, payload_of(action, {})))["type"] == "response"
        assert served.store.looked_up == before


async def test_a_refusal_says_what_is_missing_and_whose_it_is(served: Any, open_wire: Any) -> None:
    async with open_wire(served, token="other") as wire:
        error = (await wire.ask("task.update", {"task_id": "t1", "title": "mine"}))["payload"]
        assert error["details"] == {"scope": "boards:all", "owner": "ada", "board_id": "b1"}
        assert "ask its owner" in error["message"]
        error = (await wire.ask("orchestrator.pause"))["payload"]
        assert error["details"] == {"scope": "settings:write"}
        error = (await wire.ask("shell.close", {"shell_id": "sh1"}))["payload"]
        assert error["details"]["owner"] == "ada"


async def test_a_board_that_changes_hands_changes_who_may(served: Any, open_wire: Any) -> None:
    async with open_wire(served, token="owner") as ada, open_wire(served, token="other") as bob:
        request = ("task.update", {"task_id": "t1"})
        assert (await ada.ask(*request))["type"] == "response"
        board = served.store.rows[Board, "b1"]
        await served.journal.record(Put(msgspec.structs.replace(board, owner_id="bob")))
        assert (await ada.ask(*request, id="2"))["payload"]["code"] == "FORBIDDEN"
        assert (await bob.ask(*request))["type"] == "response"


async def test_an_answer_given_before_does_not_follow_what_is_anothers_now(served: Any, open_wire: Any) -> None:
    id = "0190a1b2-0000-7000-8000-000000000001"
    served.store.rows[ShellRow, "t1"] = msgspec.structs.replace(served.store.rows[ShellRow, "sh1"], id="t1")
    async with open_wire(served, token="owner") as first, open_wire(served, token="owner") as second:
        opened = await first.ask("shell.open", {"task_id": "t1"}, id=id)  # the service of this test calls the shell t1
        board = served.store.rows[Board, "b1"]
        await served.journal.record(Put(msgspec.structs.replace(board, owner_id="bob")))
        assert (await second.ask("shell.open", {"task_id": "t1"}, id=id))["payload"] == opened["payload"]
        assert (await second.ask("events.unsubscribe", {"topics": ["task:x"]}))["payload"]["topics"] == []
        assert (await first.ask("events.unsubscribe", {"topics": ["task:x"]}))["payload"]["topics"] == ["shell:t1"]


# --- routes -----------------------------------------------------------------------------------------------------------

OPEN = {"/health", "/schema.json", "/login"}


@pytest.mark.parametrize("path", [*sorted(OPEN), "/metrics", "/notes", "/ws"])
async def test_every_route_for_every_role(served: Any, path: str) -> None:
    async with aiohttp.ClientSession() as session:
        for who in WHO:
            token = served.tokens.get(who)
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            async with session.get(served.url + path, headers=headers) as answer:
                known = 426 if path == "/ws" else 200
                allowed = who not in ("agent", "stranger") and (path != "/notes" or who == "admin")
                if who == "gone":
                    wanted = 401
                elif path in OPEN or path == "/ws":
                    wanted = known
                else:
                    wanted = 401 if who == "nobody" else known if allowed else 403
                assert (who, answer.status) == (who, wanted)


# --- notifications ----------------------------------------------------------------------------------------------------

SHELL = {name for name in NOTIFICATIONS if name.startswith("shell.")}
TASKS = {name for name in NOTIFICATIONS if name.startswith("task.")}
EVERYTHING = set(NOTIFICATIONS) - {"shell.output"}  # which has its own topic alone
RECEIVED = {
    "viewer": EVERYTHING - SHELL,
    "owner": EVERYTHING,
    "other": EVERYTHING,
    "admin": {*EVERYTHING, "plugin.told"},
    "key": TASKS,
    "agent": EVERYTHING - SHELL - {"board.created", "board.updated", "board.deleted"} - {
        "column.created", "column.updated", "column.deleted"
    },
    "stranger": set(),
}  # fmt: skip


@pytest.mark.parametrize("replayed", [False, True])
async def test_every_notification_for_every_role(served: Any, open_wire: Any, replayed: bool) -> None:
    async def tell() -> None:
        for name in (*NOTIFICATIONS, "plugin.told"):
            noun = name.partition(".")[0]
            ids: dict[str, Any] = {"board_id": "b1"}
            ids |= {} if noun in ("board", "column") else {"task_id": "t1", "agent_id": "a1"}
            ids |= {"shell_id": "sh1"} if noun == "shell" else {}
            await served.journal.record(event(name, {"of": "t1"}, to_all=name != "shell.output", **ids))
        # Of somebody's shell, though it is no event of shells.
        await served.journal.record(event("network.decided", {"of": "a shell"}, task_id="t1", shell_id="sh1"))
        for id in ("t1", "t2"):
            await served.journal.record(event("task.updated", {"last": id}, task_id=id))

    topics = {"agent": ["task:t1", "agent:a1"], "stranger": ["task:t2", "agent:a2"]}
    asked = {"after_seq": 0} if replayed else {}
    async with AsyncExitStack() as stack:
        wires = {who: await stack.enter_async_context(open_wire(served, token=served.tokens[who])) for who in RECEIVED}
        if replayed:
            await tell()
        for who, wire in wires.items():
            reply = await wire.ask("events.subscribe", {"topics": topics.get(who, ["*"]), **asked})
            assert reply["type"] == "response", (who, reply)
        if not replayed:
            await tell()
        for who, wire in wires.items():
            last = "t1" if who == "agent" else "t2"
            got = [await wire.message()]
            while got[-1]["payload"].get("last") != last:
                got.append(await wire.message())
            heard = {each["action"] for each in got if "of" in each["payload"]}
            assert (who, heard) == (who, RECEIVED[who])
            shells = [each for each in got if each["payload"].get("of") == "a shell"]
            assert bool(shells) == (who in ("viewer", "owner", "other", "admin"))
            assert who not in ("agent", "stranger") or {each["payload"].get("last", last) for each in got} == {last}


# --- tokens of agents -------------------------------------------------------------------------------------------------


async def test_the_token_of_an_agent_ends_with_its_agent(served: Any, open_wire: Any) -> None:
    async with (
        open_wire(served, token=served.tokens["agent"]) as wire,
        open_wire(served, token=served.tokens["stranger"]) as other,
    ):
        assert (await wire.ask("task.get", {"task_id": "t1"}))["type"] == "response"
        served.agent_tokens.revoke("a1")
        assert (await wire.closed())[0] == 4401
        assert (await other.ask("health.check"))["type"] == "response"
        with pytest.raises(aiohttp.WSServerHandshakeError):
            async with open_wire(served, token=served.tokens["agent"]):
                pass


async def test_another_token_for_an_agent_ends_the_first(served: Any, open_wire: Any) -> None:
    async with open_wire(served, token=served.tokens["agent"]) as wire:
        again = served.agent_tokens.mint(agent("a1", "t1"))
        assert (await wire.closed())[0] == 4401
    async with open_wire(served, token=again) as wire:
        assert (await wire.ask("auth.logout"))["payload"] == {"revoked": True}
        assert (await wire.closed())[0] == 4401


@pytest.mark.parametrize("task_id", [None, "t1"])
async def test_an_agent_is_held_to_its_task_whatever_its_scopes(
    open_house: Any, open_wire: Any, people: Any, task_id: str | None
) -> None:
    almighty = Principal("x", "agent", "x", frozenset({"*"}), task_id=task_id)
    async with (
        open_house(authenticator=people(lambda _: almighty), store=Rows(), actions=actions) as house,
        open_wire(house) as wire,
    ):
        for action in ("permission.respond", "elicitation.respond", "shell.open", "agent.launch", "agent.capture"):
            assert (await wire.ask(action, payload_of(action, {})))["payload"]["code"] == "FORBIDDEN"
        assert (await wire.ask("task.get", {"task_id": "t2"}))["payload"]["code"] in {"NOT_FOUND", "FORBIDDEN"}
        assert ((await wire.ask("task.get", {"task_id": "t1"}))["type"] == "response") is (task_id == "t1")


def test_the_roles_hold_scopes_that_there_are() -> None:
    served = {shape.scope for shape in ACTIONS.values()} | {"metrics:read"}
    assert SCOPES["viewer"] < SCOPES["member"] <= served
    assert all(scope.endswith(":read") for scope in SCOPES["viewer"])
