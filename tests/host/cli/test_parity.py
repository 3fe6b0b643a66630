"""The command line does all that the socket does: every action, with every field of its request."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

from kandev_host.cli.app import group, run
from kandev_host.client import Client, ClientError
from kandev_host.models import new_id
from kandev_host.protocol.actions import ACTIONS

# Every id is one that nothing has: the host is to understand the request, and to answer NOT_FOUND.
# {repo} is a repository. Several command lines for an action send, together, all fields of its request.
WAYS: dict[str, list[str]] = {
    "health.check": ["host health"],
    "host.info": ["host info"],
    "backup.create": ["backup --with-secrets"],
    "backup.list": ["backup list"],
    "board.list": ["board list --limit 5 --cursor {cursor}"],
    "board.create": ["board create Work --description d --owner {id}"],
    "board.get": ["board show {id}"],
    "board.update": ["board update {id} --name n --description d --owner {id} --expected-version 1"],
    "board.delete": ["board delete {id} --force --yes --expected-version 1"],
    "column.list": ["column list --board {id} --limit 5 --cursor {cursor}"],
    "column.create": ["column create c --board {id} --position 0 --wip-limit 3 --state todo"],
    "column.update": ["column update {id} --name n --wip-limit 3 --state blocked --expected-version 1"],
    "column.move": ["column move {id} 0 --expected-version 1"],
    "column.delete": ["column delete {id} --force --yes --expected-version 1"],
    "task.list": [
        "task list --board {id} --column {id} --state todo --agent demo --text fix --priority-min 1 --limit 5"
        " --cursor {cursor}"
    ],
    "task.create": [
        "task create t --board {id} --column {id} --description d --priority 1 --agent demo --repo {repo}"
        " --branch main --blocked-by {id} --mcp tickets --directory books --credential app --allow @npm"
        " --metadata '{{\"a\": 1}}'"
    ],
    "task.get": ["task show {id}"],
    "task.update": [
        "task update {id} --title t --description d --priority 1 --agent demo --repo {repo} --branch main"
        " --blocked-by {id} --mcp tickets --directory books --credential app --allow @npm --metadata '{{}}'"
        " --expected-version 1"
    ],
    "task.delete": ["task delete {id} --force --yes --expected-version 1"],
    "task.state": ["task state {id} blocked --reason r --expected-version 1"],
    "task.move": ["task move {task} {id} --position 0 --expected-version 1"],
    "task.events": ["task events {id} --limit 5 --cursor {cursor}"],
    "events.subscribe": ["events --topic task:{task} --after 0"],
    "events.unsubscribe": ["events --topic task:{task}"],
    "agent.types": ["agent types"],
    "agent.type_update": ["agent enable demo", "agent limit demo --memory 2g", "agent options-default demo model=fast"],
    "agent.launch": [
        "agent launch {id} --agent demo --prompt p --runtime bwrap --cpu 1 --memory 1g --disk 1g --preset ask"
    ],
    "agent.list": ["agent list --task {id} --status running --limit 5 --cursor {cursor}"],
    "agent.status": ["agent status {id}"],
    "agent.logs": ["agent log {id} --level info --limit 5 --cursor {cursor}"],
    "agent.prompt": ["agent prompt {id} p --interrupt"],
    "agent.sessions": [
        "agent sessions --agent demo --limit 5 --cursor {cursor}",
        "agent sessions --agent {id}",
    ],
    "agent.session_delete": ["agent session-delete {id} --agent {id}"],
    "agent.cancel": ["agent cancel {id}"],
    "agent.resume": ["agent resume {id} p"],
    "agent.stop": ["agent stop {id} --force"],
    "agent.capture": ["agent log {id} --raw"],
    "agent.transcript": ["agent transcript {id} --after 0 --limit 5", "agent transcript --task {id}"],
    "queue.list": ["agent queue {id}"],
    "queue.update": ["agent queue-edit {id} p --position 1"],
    "queue.remove": ["agent queue-remove {id}"],
    "agent.session": ["agent session {id}"],
    "agent.set_option": ["agent options {id} model fast"],
    "agent.authenticate": ["agent login {id} key"],
    "agent.logout": ["agent logout {id}"],
    "permission.list": ["permission list --agent {id} --task {id} --state pending --limit 5 --cursor {cursor}"],
    "permission.respond": [
        "permission answer {id} --cancel",
        "permission answer {permission} reject_once --remember task",
    ],
    "permission.rules": ["permission rules --agent demo --task {id} --limit 5 --cursor {cursor}"],
    "permission.rule_delete": ["permission forget {id}"],
    "elicitation.list": ["elicitation list --agent {id} --task {id} --state pending --limit 5 --cursor {cursor}"],
    "elicitation.respond": ['elicitation answer {id} --content \'{{"name": "Ada"}}\''],
    "orchestrator.status": ["queue status"],
    "orchestrator.queue": ["queue list --board {id} --limit 5 --cursor {cursor}"],
    "orchestrator.trigger": ["task trigger {id} --agent demo --preset ask", "queue trigger {id}"],
    "orchestrator.start": ["task start {id} --agent demo --preset ask"],
    "orchestrator.stop": ["task stop {id} --reason r"],
    "orchestrator.prompt": ["task prompt {id} p"],
    "orchestrator.complete": ["task complete {id}"],
    "orchestrator.pause": ["queue pause"],
    "orchestrator.resume": ["queue resume"],
    "search.query": ["search words --kind task --task {id} --limit 5"],
    "usage.summary": [
        "usage --by model --task {id} --agent {id} --board {id} --since 2026-01-01 --until 2026-02-01T12:00:00Z"
        " --limit 5"
    ],
    "audit.list": [
        "audit list --kind auth --actor {id} --task {id} --since 2026-01-01 --until 2026-02-01 --oldest-first --limit 5"
        " --cursor {cursor}"
    ],
    "workspace.delete": ["workspace delete {id} --force --yes"],
    "workspace.get": ["workspace get {id}"],
    "workspace.files": ["workspace files {id} src --depth 2 --limit 5 --cursor eA=="],
    "workspace.read": ["workspace read {id} a.txt --offset 1 --limit 5"],
    "workspace.diff": ["workspace diff {id} --from base --to {id}", "task diff {id}"],
    "workspace.commits": ["workspace commits {id} --push-to b --approve-protected --force"],
    "workspace.snapshot": ["workspace snapshot {id} --label l"],
    "workspace.snapshots": ["workspace snapshots {id} --limit 5 --cursor {cursor}"],
    "workspace.restore": ["workspace restore {id} {id} --force --yes"],
    "shell.open": [
        "exec --task {id} --runtime bwrap --network allowlist --allow @pypi true",
        "shell open --workspace {id} --pty --cols 80 --rows 24",
    ],
    "shell.run": ["shell run --timeout 5 --max-output 9 {id} true"],
    "shell.input": ["shell input {id} eA== --base64"],
    "shell.resize": ["shell resize {id} 80 24"],
    "shell.signal": ["shell signal {id} term --pid 7"],
    "shell.close": ["shell close {id}"],
    "shell.list": ["shell list --task {id} --state open --limit 5 --cursor {cursor}"],
    "shell.jobs": ["shell jobs {id}"],
    "shell.read": ["shell log {id} --offset 1 --limit 5"],
    "shell.commands": ["shell commands --shell {id} --task {id} --limit 5 --cursor {cursor}"],
}
# The protocol's second name for what the command line does with the first.
SAME = {"task.subscribe": "events.subscribe", "task.unsubscribe": "events.unsubscribe"}
NOT_UNDERSTOOD = {"BAD_REQUEST", "VALIDATION_ERROR", "UNKNOWN_ACTION"}


@pytest.fixture
def sent(home: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any], str | None]]:
    """What commands ask in this process: action, payload, and the code of the error if one was answered."""
    monkeypatch.setenv("KANDEV_HOME", str(home))
    asked: list[tuple[str, dict[str, Any], str | None]] = []
    ask = Client._ask

    async def spy(self: Client, action: str, payload: object, *more: Any) -> Any:
        code = None
        try:
            return await ask(self, action, payload, *more)
        except ClientError as error:
            code = error.code
            raise
        finally:
            asked.append((action, msgspec.to_builtins(payload) or {}, code))

    monkeypatch.setattr(Client, "_ask", spy)
    return asked


@pytest.fixture
def known(
    home: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> dict[str, str]:
    """What command lines name: a task that there is, and ids that nothing has."""
    monkeypatch.setenv("KANDEV_HOME", str(home))
    if run(["task", "list", "--json"]) == 0 and not json.loads(capsys.readouterr().out)["tasks"]:
        assert run(["board", "create", "Parity", "--json"]) == 0
        board = json.loads(capsys.readouterr().out)["board"]["id"]
        assert run(["task", "create", "A task", "--board", board]) == 0
        capsys.readouterr()
    assert run(["task", "list", "--json"]) == 0
    task = json.loads(capsys.readouterr().out)["tasks"][0]["id"]
    return {"task": task, "id": new_id(), "cursor": "c", "repo": str(repository)}


def test_every_action_has_a_way_on_the_command_line() -> None:
    assert {*WAYS, *SAME} == {*ACTIONS}


@pytest.mark.parametrize("action", list(WAYS))
def test_its_commands_send_every_field_and_the_host_understands(
    action: str, sent: list[tuple[str, dict[str, Any], str | None]], known: dict[str, str], monkeypatch: Any
) -> None:
    sent.clear()
    if action == "permission.respond":
        monkeypatch.setattr("kandev_host.cli.permission.row_of", a_request)
        known["permission"] = known["id"]
    for line in WAYS[action]:
        run(shlex.split(line.format(**known)))
    payloads = [(payload, code) for name, payload, code in sent if name == action]
    codes = {code for _, code in payloads}
    # A cursor is a word of the host's own: that it refuses ours shows that it came.
    assert not codes & NOT_UNDERSTOOD or "cursor" in payloads[0][0]
    fields = {field.encode_name for field in msgspec.structs.fields(ACTIONS[action].request)}
    assert {name for payload, _ in payloads for name in payload} == fields


async def a_request(_remote: Any, _kind: str, permission_id: str, *_: Any) -> dict[str, Any]:
    """One that waits for an answer."""
    return {"id": permission_id, "digest": "d", "options": [{"optionId": "no", "kind": "reject_once"}]}


def commands(
    parent: click.Command = group, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command, with its words."""
    if not isinstance(parent, click.Group):
        yield path, parent
        return
    for name in parent.list_commands(click.Context(parent)):
        found = parent.get_command(click.Context(parent), name)
        assert found is not None
        yield from commands(found, (*path, name))


@pytest.mark.parametrize("path", [path for path, _ in commands()], ids=" ".join)
def test_every_command_has_help_with_an_example_of_itself(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*path, "--help"]) == 0
    shown = capsys.readouterr().out.partition("Examples:")[2]
    assert f"kandev-host {' '.join(path)}" in shown
