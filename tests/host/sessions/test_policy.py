"""The engine of permissions: deny over ask over allow, and nothing but the user and the preset ever raises anything."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kandev_host.interfaces import Decision
from kandev_host.models import PermissionRequest, PermissionRule
from kandev_host.sessions.commands import commands_in, simple_command
from kandev_host.sessions.policy import TRUNCATED, Situation, decide
from kandev_host.sessions.presets import KINDS, Preset, is_protected

ORDER = ("deny", "ask", "allow")
ALLOW, ASK, DENY = Decision("allow", "p"), Decision("ask", "p"), Decision("deny", "p")


def a_request(call: dict[str, Any]) -> PermissionRequest:
    return PermissionRequest(agent_id="a", task_id="t", session_id="s", tool_call=call, options=[], digest="")


def a_situation(preset: Preset = "ask", **fields: Any) -> Situation:
    known = {"jailed": True, "network": "none", "read_only": preset == "read-only"}
    return Situation(**{"preset": preset, "agent_type": "demo", "task_id": "t", **known, **fields})


def rule(effect: Any, **fields: Any) -> PermissionRule:
    return PermissionRule(effect=effect, created_by="me", **fields)


def runs(command: Any, **fields: Any) -> dict[str, Any]:
    return {"kind": "execute", "rawInput": {"command": command}, **fields}


def touches(path: str, kind: str = "edit") -> dict[str, Any]:
    return {"kind": kind, "locations": [{"path": path}]}


EDIT, READ, RUN = touches("src/a.py"), touches("src/a.py", "read"), runs("make test")
HOST = {"network": "host"}
GIVEN = {"outward": "the task has the credential push"}
BARE = {"jailed": False, "read_only": False}
GIT = touches("/workspace/.git/config")

TABLE: list[tuple[Preset, dict[str, Any], dict[str, Any], list[PermissionRule], list[Decision], str]] = [
    # preset, situation, call, rules, plugins, effect
    ("ask", {}, EDIT, [], [], "ask"),
    ("ask", {}, READ, [], [], "ask"),
    ("ask", {}, {}, [], [], "ask"),
    ("ask", {}, EDIT, [], [ALLOW], "ask"),
    ("ask", {}, EDIT, [], [DENY], "deny"),
    ("read-only", {}, READ, [], [], "allow"),
    ("read-only", {}, {"kind": "search"}, [], [], "allow"),
    ("read-only", {}, {"kind": "think"}, [], [], "allow"),
    ("read-only", {}, EDIT, [], [], "deny"),
    ("read-only", {}, {"kind": "delete"}, [], [], "deny"),
    ("read-only", {}, {"kind": "move"}, [], [], "deny"),
    ("read-only", {}, RUN, [], [], "deny"),
    ("read-only", {}, {"kind": "fetch"}, [], [], "deny"),
    ("read-only", {}, {"kind": "switch_mode"}, [], [], "deny"),
    ("read-only", {}, {"kind": "reading"}, [], [], "deny"),
    ("read-only", {}, {}, [], [], "deny"),
    ("read-only", {}, touches("/etc/passwd", "read"), [], [], "ask"),
    ("read-only", {}, runs("curl -d @a x", kind="read"), [], [], "ask"),
    ("read-only", {}, {"kind": "think", "rawInput": {"cmd": ["make"]}}, [], [], "ask"),
    ("read-only", BARE, READ, [], [], "ask"),
    ("read-only", BARE, EDIT, [], [], "deny"),
    ("read-only", BARE, READ, [rule("allow", kind="read")], [], "ask"),
    ("read-only", {}, EDIT, [rule("allow", kind="edit")], [ALLOW], "deny"),
    ("read-only", {}, READ, [], [ASK], "ask"),
    ("contained", {}, EDIT, [], [], "allow"),
    ("contained", {}, RUN, [], [], "allow"),
    ("contained", {}, {"kind": "fetch"}, [], [], "allow"),
    ("contained", {}, {"kind": "novel"}, [], [], "allow"),
    ("contained", {}, {"kind": 7}, [], [], "allow"),
    ("contained", {}, {"kind": "switch_mode"}, [], [], "ask"),
    ("contained", {}, GIT, [], [], "ask"),
    ("contained", {}, touches("/home/agent/.bashrc"), [], [], "ask"),
    ("contained", {}, {**EDIT, TRUNCATED: True}, [], [], "ask"),
    ("contained", HOST, EDIT, [], [], "allow"),
    ("contained", GIVEN, EDIT, [], [], "allow"),
    ("contained", GIVEN, RUN, [], [], "ask"),
    ("contained", GIVEN, {}, [], [], "ask"),
    ("contained", GIVEN, RUN, [rule("allow", command=("make", "test"))], [], "allow"),
    ("contained", HOST, READ, [], [], "allow"),
    ("contained", HOST, RUN, [], [], "ask"),
    ("contained", HOST, {"kind": "fetch"}, [], [], "ask"),
    ("contained", HOST, {"kind": "other"}, [], [], "ask"),
    ("contained", HOST, {"kind": "novel"}, [], [], "ask"),
    ("contained", HOST, {}, [], [], "ask"),
    ("contained", HOST, runs("curl -d @a x", kind="read"), [], [], "ask"),
    ("contained", HOST, runs("curl -d @a x", kind="edit"), [], [], "ask"),
    ("contained", {}, runs("make", kind="read"), [rule("deny", kind="execute")], [], "deny"),
    ("contained", {}, runs("make", kind="read"), [rule("deny", kind="execute", command=("make",))], [], "deny"),
    ("contained", HOST, RUN, [rule("allow", command=("make", "test"))], [], "allow"),
    ("contained", BARE, EDIT, [], [], "ask"),
    ("contained", {}, EDIT, [rule("deny", kind="edit")], [ALLOW], "deny"),
    ("contained", {}, EDIT, [rule("ask", path="src/*")], [], "ask"),
    ("contained", {}, EDIT, [rule("deny", path="docs/*")], [], "allow"),
    ("contained", {}, EDIT, [], [ASK, DENY], "deny"),
    ("contained", {}, EDIT, [], [ASK], "ask"),
    ("unattended", {}, EDIT, [], [], "allow"),
    ("unattended", {}, RUN, [], [], "allow"),
    ("unattended", {}, {"kind": "switch_mode"}, [], [], "ask"),
    ("unattended", {}, GIT, [], [], "ask"),
    ("unattended", {}, GIT, [rule("allow", path=".git/*")], [ALLOW], "ask"),
    ("unattended", HOST, EDIT, [], [], "ask"),
    ("unattended", GIVEN, EDIT, [], [], "ask"),
    ("unattended", BARE, EDIT, [], [], "ask"),
    ("unattended", {}, RUN, [rule("deny", command=("make",))], [], "deny"),
    ("unattended", {}, runs("cd src && make test"), [rule("deny", command=("make",))], [], "deny"),
    ("unattended", {}, runs("bash -c 'make test'"), [rule("deny", command=("make",))], [], "deny"),
    ("unattended", {}, runs("sudo -E /usr/bin/make"), [rule("deny", command=("make",))], [], "deny"),
    ("unattended", {}, runs("A=1 make"), [rule("deny", command=("make",))], [], "deny"),
    ("unattended", {}, runs(["bash", "-lc", "x; make"]), [rule("deny", command=("make",))], [], "deny"),
    ("unattended", {}, runs("echo $(make)"), [rule("deny", command=("make",))], [], "deny"),
    ("unattended", {}, {"kind": "execute", "title": "make"}, [rule("deny", command=("make",))], [], "deny"),
    ("unattended", {}, runs("remake"), [rule("deny", command=("make",))], [], "allow"),
    ("unattended", {}, runs("echo " * 5000), [rule("deny", command=("make",))], [], "ask"),
    ("unattended", {}, RUN, [rule("deny", agent_type="other")], [], "allow"),
    ("unattended", {}, RUN, [rule("deny", task_id="other")], [], "allow"),
    ("ask", {}, RUN, [rule("allow", command=("make", "test"))], [], "allow"),
    ("ask", {}, RUN, [rule("allow", command=("make", "test"), task_id="t", agent_type="demo")], [], "allow"),
    ("ask", {}, RUN, [rule("allow", command=("make", "test"), task_id="other")], [], "ask"),
    ("ask", {}, RUN, [rule("allow", command=("make", "test"))], [DENY], "deny"),
    ("ask", {}, RUN, [rule("allow", command=("make", "test"))], [ASK], "ask"),
    ("ask", {}, RUN, [rule("allow", command=("make", "test")), rule("deny", kind="execute")], [], "deny"),
    ("ask", {}, RUN, [rule("allow", command=("make",))], [], "ask"),
    ("ask", {}, runs("make test; rm -r src"), [rule("allow", command=("make", "test"))], [], "ask"),
    ("ask", {}, runs("make test", rawInput={"command": "make test", "cwd": "/tmp"}),
     [rule("allow", command=("make", "test"))], [], "ask"),
    ("ask", {}, runs(["bash", "-c", "make test"]), [rule("allow", command=("make", "test"))], [], "allow"),
    ("ask", {}, runs(["/workspace/bash", "-c", "make test"]), [rule("allow", command=("make", "test"))], [], "ask"),
    ("ask", {}, RUN, [rule("allow", kind="execute")], [], "allow"),
    ("ask", {}, RUN, [rule("allow")], [], "ask"),
    ("ask", {}, EDIT, [rule("allow", path="src/*")], [], "allow"),
    ("ask", {}, {**EDIT, "rawInput": {"path": "other.py"}}, [rule("allow", path="src/*")], [], "ask"),
    ("ask", {}, {"kind": "edit"}, [rule("allow", path="src/*")], [], "ask"),
    ("ask", {}, {"kind": "read", "rawInput": {"cmd": "make"}}, [rule("allow", kind="read")], [], "ask"),
    ("ask", {}, touches("src/../../etc/passwd"), [rule("allow", kind="edit")], [], "ask"),
]  # fmt: skip


@pytest.mark.parametrize(("preset", "situation", "call", "rules", "plugins", "effect"), TABLE)
def test_the_engine(preset: Preset, situation: Any, call: Any, rules: Any, plugins: Any, effect: str) -> None:
    decision = decide(a_request(call), a_situation(preset, **situation), rules, plugins)
    assert decision.effect == effect
    assert decision.reason


presets = st.sampled_from(["ask", "read-only", "contained", "unattended"])
situations = st.builds(
    a_situation,
    presets,
    jailed=st.booleans(),
    network=st.sampled_from(["none", "host"]),
    read_only=st.booleans(),
)
paths = st.sampled_from(["src/a.py", "/workspace/b", ".git/config", "/etc/passwd", "../x", "", "~/x", "file:///x"])
calls = st.fixed_dictionaries(
    {},
    optional={
        "kind": st.sampled_from([*sorted(KINDS), "novel", None, 3]),
        "title": st.sampled_from(["workspace-indexing-permission", "make", ""]),
        "locations": st.lists(st.fixed_dictionaries({"path": paths}), max_size=2),
        "rawInput": st.fixed_dictionaries(
            {}, optional={"command": st.sampled_from(["make", "rm -r .", ["ls"]]), "file_path": paths}
        ),
    },
)
claims = st.fixed_dictionaries(
    {},
    optional={
        "title": st.text(max_size=20),
        "_meta": st.just({"kind": "read", "allow": True}),
        "content": st.lists(st.fixed_dictionaries({"type": st.just("diff"), "path": paths}), max_size=2),
        "status": st.just("completed"),
        "anything": st.just("allow_once"),
    },
)
decisions = st.lists(st.builds(Decision, st.sampled_from(ORDER), st.just("plugin")), max_size=3)
rules = st.lists(
    st.builds(
        rule,
        st.sampled_from(["ask", "deny"]),
        kind=st.sampled_from([None, "edit", "execute", "other"]),
        path=st.sampled_from([None, "*", "src/*"]),
        command=st.sampled_from([None, ("make",)]),
    ),
    max_size=3,
)


@given(calls, claims, situations, rules, decisions)
def test_no_plugin_and_no_claim_ever_raises_a_decision(
    call: Any, claimed: Any, situation: Situation, mine: Any, said: Any
) -> None:
    def rank(*arguments: Any) -> int:
        return ORDER.index(decide(*arguments).effect)

    alone = rank(a_request(call), situation)
    assert rank(a_request(call), situation, mine, said) <= alone
    assert rank(a_request({**call, **claimed}), situation, [], said) <= alone
    ceiling = "ask" if situation.preset == "ask" else "allow"
    assert rank(a_request({**call, **claimed}), situation, mine, said) <= ORDER.index(ceiling)


@pytest.mark.parametrize("kind", ["workspace-indexing", "allow", None, 4, "Read"])
def test_unknown_kinds_ask_where_there_is_a_network(kind: Any) -> None:
    assert decide(a_request({"kind": kind}), a_situation("contained", network="host")).effect == "ask"


@pytest.mark.parametrize("preset", ["ask", "read-only", "contained", "unattended"])
@pytest.mark.parametrize(
    "call",
    [
        touches(".git/hooks/pre-commit", "read"),
        touches("/workspace/sub/.MCP.json", "read"),
        touches("/root/.ssh/id_ed25519", "read"),
        {"kind": "read", "content": [{"type": "diff", "path": "CLAUDE.md"}]},
        {"kind": "read", "rawInput": {"file_path": "/etc/shadow"}},
        {"kind": "read", "rawInput": {"filepath": "../up"}},
        touches(".kilo/kilo.jsonc", "read"),
        touches("opencode.jsonc", "read"),
        {"kind": "read", "rawInput": {"changes": {"/workspace/.vscode/tasks.json": {}}}},
    ],
)
def test_protected_paths_ask_under_every_preset(preset: Preset, call: Any) -> None:
    always = [rule("allow", kind="read"), rule("allow", path="*")]
    assert decide(a_request(call), a_situation(preset), always, [ALLOW]).effect == "ask"


def test_the_directories_beside_the_workspace_are_inside() -> None:
    assert not is_protected("/directories/data/a.csv")
    assert is_protected("/directories2/a.csv")


def test_a_preset_that_expires_is_ask_from_then_on() -> None:
    situation = a_situation("unattended", expires_at=100.0)
    assert situation.at(99.9).preset == "unattended"
    decision = decide(a_request(EDIT), situation.at(100.0))
    assert (decision.effect, decision.reason) == ("ask", "preset unattended has expired")


@pytest.mark.parametrize(
    ("raw_input", "words"),
    [
        ({"command": "git log -n 3"}, ("git", "log", "-n", "3")),
        ({"command": 'git commit -m "a b"'}, ("git", "commit", "-m", "a b")),
        ({"cmd": ["ls", "-l"]}, ("ls", "-l")),
        ({"command": ["/bin/sh", "-c", "ls -l"]}, ("ls", "-l")),
        ({"command": "ls *"}, None),
        ({"command": "ls '*'"}, None),
        ({"command": "ls | sh"}, None),
        ({"command": "ls\nrm x"}, None),
        ({"command": "ls > x"}, None),
        ({"command": "ls `x`"}, None),
        ({"command": "ls ~"}, None),
        ({"command": "ls \\; x"}, None),
        ({"command": "PATH=. ls"}, None),
        ({"command": "ls 'x"}, None),
        ({"command": "ls\u202e"}, None),
        ({"command": ""}, None),
        ({"command": "ls", "cmd": "rm"}, None),
        ({"command": "ls", "env": {"LD_PRELOAD": "x"}}, None),
        ({"command": {"a": 1}}, None),
        ({}, None),
        (None, None),
    ],
)
def test_a_simple_command_is_one_that_no_shell_changes(raw_input: Any, words: Any) -> None:
    assert simple_command({"rawInput": raw_input}) == words


def test_every_command_in_a_text_is_seen() -> None:
    found = commands_in(runs("a 1 && (b 2; c) | d $(e 'f g') > h"))
    assert found is not None
    assert {words[0] for words in found} >= {"a", "b", "c", "d", "e"}
