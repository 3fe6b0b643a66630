"""Rules: what is remembered, what cannot be, and what those of the settings do."""

from __future__ import annotations

from typing import Any

import pytest

from kandev_host.errors import ValidationFailed
from kandev_host.interfaces import Principal
from kandev_host.models import PermissionRule
from kandev_host.sessions import rulebook
from kandev_host.settings import RuleSettings

pytestmark = pytest.mark.anyio

USER = Principal("user-1", "user", "A user")
UNKNOWN = {"optionId": "new", "name": "Allow for ever and ever", "kind": "allow_forever"}
OPTIONS = [
    {"optionId": "always", "name": "Always", "kind": "allow_always"},
    {"optionId": "never", "name": "Never", "kind": "reject_always"},
    {"optionId": "no", "name": "No", "kind": "reject_once"},
    {"optionId": "yes", "name": "Yes", "kind": "allow_once"},
    UNKNOWN,
]


def asks(kind: str, raw_input: Any = None, call_id: str = "1", **fields: Any) -> dict[str, Any]:
    call = {"toolCallId": call_id, "kind": kind, "rawInput": raw_input, **fields}
    return {"permission": {"toolCall": call, "options": OPTIONS}}


def runs(command: str, call_id: str = "1") -> dict[str, Any]:
    return asks("execute", {"command": command}, call_id)


async def remembers(world: Any, option_id: str = "yes", scope: Any = "task") -> PermissionRule:
    permission = (await world.until("permission.requested"))["permission"]
    _, rule = await world.broker.answer(permission["id"], principal=USER, option_id=option_id, remember=scope)
    assert rule is not None
    return rule


async def answers(world: Any) -> list[str]:
    await world.until("acp.result")
    return [text.removeprefix("permission: ") for text in world.texts()]


async def test_a_remembered_answer_holds_for_the_same_command_alone(world: Any) -> None:
    await world.start(prompt=[runs("make test"), runs("make test", "2"), runs("make test -k", "3")])
    rule = await remembers(world)
    again = await world.until("permission.requested", lambda each: each["permission"]["tool_call"]["toolCallId"] == "3")
    await world.broker.answer(again["permission"]["id"], principal=USER, option_id="no")
    assert await answers(world) == ["yes", "yes", "no"]
    rows = await world.rows(type(await world.permission()))
    assert [row.reason for row in rows] == ["A user chose Yes", f"rule {rule.id}", "A user chose No"]


async def test_a_remembered_rejection_is_a_denial(world: Any) -> None:
    await world.start(prompt=[runs("make test"), runs("make test", "2")], preset="ask")
    rule = await remembers(world, "never")
    assert rule.effect == "deny"
    assert (await answers(world))[0] == "never"
    assert (await world.permission()).state == "rejected"


async def test_what_is_remembered_for_an_edit_is_its_path(world: Any) -> None:
    await world.start(prompt=[asks("edit", {"path": "/workspace/src/[a]*.py"})])
    rule = await remembers(world, scope="agent_type")
    assert (rule.path, rule.task_id, rule.agent_type) == ("src/[[]a][*].py", None, "scripted")
    stored = (await world.rows(PermissionRule))[0]
    assert stored == rule


@pytest.mark.parametrize(
    ("step", "option_id", "why"),
    [
        (runs("make test | tee out"), "yes", "no plain command"),
        (asks("execute", title="make test"), "yes", "no plain command"),
        (asks("edit", {"old_path": "a", "new_path": "b"}), "yes", "names 2 paths"),
        (asks("delete"), "yes", "names no paths"),
        (asks("edit", {"path": ".git/config"}), "yes", "always asked for"),
        (asks("switch_mode"), "yes", "always asked for"),
        (asks("novel"), "yes", "always asked for"),
        (runs("make test"), "always", "only allow_once"),
        (runs("make test"), "new", "only allow_once"),
    ],
)
async def test_what_no_rule_can_say_is_not_remembered(world: Any, step: Any, option_id: str, why: str) -> None:
    await world.start(prompt=[step])
    permission = (await world.until("permission.requested"))["permission"]
    with pytest.raises(ValidationFailed, match=why) as refused:
        await world.broker.answer(permission["id"], principal=USER, option_id=option_id, remember="task")
    assert refused.value.details["field"] == "remember"
    assert (await world.permission()).state == "pending"
    assert await world.rows(PermissionRule) == []


async def test_a_cancelled_request_is_not_remembered(world: Any) -> None:
    await world.start(prompt=[runs("make")])
    permission = (await world.until("permission.requested"))["permission"]
    with pytest.raises(ValidationFailed):
        await world.broker.answer(permission["id"], principal=USER, outcome="cancelled", remember="task")


async def test_rules_are_bounded_by_user_and_nobody_uses_up_anothers(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(rulebook.EACH):
        world.broker.rules.add(PermissionRule(id=f"r{number}", effect="deny", command=("ls",), created_by="mallory"))
    mallory = Principal("mallory", "user", "Mallory")
    await world.start(prompt=[runs("make"), runs("make test", "2")])
    permission = (await world.until("permission.requested"))["permission"]
    with pytest.raises(ValidationFailed, match="of yours are stored already: delete some"):
        await world.broker.answer(permission["id"], principal=mallory, option_id="yes", remember="task")
    assert (await world.broker.answer(permission["id"], principal=USER, option_id="yes", remember="task"))[
        1
    ] is not None
    monkeypatch.setattr(rulebook, "STORED_RULES", rulebook.EACH)
    first = permission["id"]
    permission = (await world.until("permission.requested", lambda told: told["permission"]["id"] != first))[
        "permission"
    ]
    with pytest.raises(ValidationFailed, match="delete some"):
        await world.broker.answer(permission["id"], principal=USER, option_id="yes", remember="task")


async def test_a_rule_of_the_settings_decides(open_world: Any) -> None:
    rules = {"no-push": RuleSettings(effect="deny", command=("git", "push"), reason="by hand")}
    world = await open_world(rules=rules)
    await world.start(prompt=[runs("git add . && git push --force")], preset="unattended")
    assert await answers(world) == ["no"]
    assert (await world.permission()).reason == "rule settings:no-push: by hand"


async def test_stored_rules_are_there_after_a_restart(world: Any) -> None:
    await world.start(prompt=[runs("make test")])
    rule = await remembers(world)
    fresh = rulebook.RuleBook(world.store)
    await fresh.load()
    assert fresh.all() == [rule]
