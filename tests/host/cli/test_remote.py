"""Commands that ask the running host: what they take for an id, what they print, what they ask before."""

from __future__ import annotations

import io
import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kandev_host.cli.app import run
from kandev_host.models import new_id

Ask = Callable[..., Any]


@pytest.fixture
def ask(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answered: Any) -> Ask:
    """Run a command in this process, against the module's host; what it printed, and its exit status."""
    monkeypatch.setenv("KANDEV_HOME", str(home))
    monkeypatch.setenv("COLUMNS", "200")

    def asked(*arguments: str, stdin: str | None = None) -> Any:
        if stdin is not None:
            terminal = io.StringIO(stdin)
            monkeypatch.setattr(terminal, "isatty", lambda: True)
            monkeypatch.setattr("sys.stdin", terminal)
        status = run(arguments)
        return answered(status, *capsys.readouterr())

    return asked


@pytest.fixture
def board(ask: Ask) -> Any:
    """A board of this test's own, with its columns."""
    return ask("board", "create", f"Board {new_id()}", "--json").json


@pytest.fixture
def new_task(ask: Ask, board: Any) -> Callable[..., Any]:
    def make(title: str = "A task", *more: str) -> Any:
        return ask("task", "create", title, "--board", board["board"]["id"], *more, "--json").json["task"]

    return make


def test_without_a_host_it_is_one_line_with_the_way_out(kandev: Any) -> None:
    done = kandev("task", "list")
    assert done.status == 1
    assert "no host runs on" in done.err
    assert "kandev-host up" in done.err
    assert len(done.err.splitlines()) == 1


def test_a_token_that_others_may_have_is_named_as_the_cause(ask: Ask, home: Path) -> None:
    for path, others, private in ((home, 0o755, 0o700), (home / "token", 0o644, 0o600)):
        path.chmod(others)
        done = ask("task", "list")
        path.chmod(private)
        assert (done.status, f"chmod {private:o} {path}" in done.err) == (1, True), done
    assert ask("task", "list").status == 0


def test_a_row_is_found_by_its_whole_id_and_by_its_ending(ask: Ask, new_task: Any) -> None:
    task = new_task("Found")
    for id in (task["id"], task["id"][-8:], task["id"][-6:], task["id"][-8:].upper()):
        assert ask("task", "show", id, "--json").json["task"]["title"] == "Found"


@pytest.mark.parametrize("id", ["abc12", "", "nonsense", "zzzzzzzz"])
def test_what_is_no_id_is_wrong_usage(ask: Ask, id: str) -> None:
    done = ask("task", "show", id)
    assert done.status == 2
    assert "is no task id" in done.err


def test_an_ending_that_nothing_has_is_said(ask: Ask) -> None:
    done = ask("task", "delete", "ffffffffffff", "--yes")
    assert (done.status, "There is no task 'ffffffffffff'" in done.err) == (2, True)


def test_a_name_that_two_boards_have_stands_for_neither(ask: Ask) -> None:
    name = new_id()[-12:]
    for _ in range(2):
        ask("board", "create", f"Twice {name}")
    done = ask("board", "delete", f"Twice {name}", "--yes")
    assert done.status == 2
    assert "stands for 2 boards" in done.err


def test_boards_and_columns_go_by_their_names(ask: Ask, board: Any, new_task: Any) -> None:
    task = new_task()
    assert ask("task", "move", task["id"], "Done", "--json").json["task"]["state"] == "COMPLETED"
    shown = ask("column", "list", "--board", board["board"]["name"], "--json").json
    assert [column["name"] for column in shown["columns"]] == ["To Do", "In Progress", "Blocked", "Done"]


def test_json_is_the_payload_of_the_response(ask: Ask, new_task: Any) -> None:
    task = new_task("As it is")
    assert ask("task", "show", task["id"], "--json").json == {"task": task}


def test_a_table_in_a_pipe_is_plain_and_not_cut(ask: Ask, board: Any, new_task: Any) -> None:
    title = "long " * 90
    task = new_task(title.strip())
    out = ask("task", "list", "--board", board["board"]["id"]).out
    assert out.splitlines()[1].split() == [task["id"][-8:], "TODO", "0", "-", *title.split()]


def test_what_a_terminal_might_obey_is_escaped(ask: Ask, board: Any, new_task: Any) -> None:
    task = new_task("a\x1b]0;title\x07b\u202ec", "--description", "\x9b31mred\nsecond line")
    for command in (["list", "--board", board["board"]["id"]], ["show", task["id"]]):
        shown = ask("task", *command)
        assert not set(shown.out + shown.err) & set("\x1b\x07\x9b\u202e")
    assert "    | second line" in shown.out


def test_a_list_goes_page_by_page_and_all_means_all(ask: Ask, board: Any, new_task: Any) -> None:
    tasks = {new_task(f"Task {number}")["id"] for number in range(5)}
    of = ("task", "list", "--board", board["board"]["id"], "--limit", "2", "--json")
    first = ask(*of)
    assert f"--cursor {first.json['next_cursor']}" in first.err
    second = ask(*of, "--cursor", first.json["next_cursor"])
    assert not {task["id"] for task in first.json["tasks"]} & {task["id"] for task in second.json["tasks"]}
    every = ask(*of, "--all")
    pages = [json.loads(line)["tasks"] for line in every.out.splitlines()]
    assert {task["id"] for page in pages for task in page} == tasks
    assert every.err == ""


def test_fields_are_cleared_by_name(ask: Ask, new_task: Any) -> None:
    first, second = new_task(), new_task()
    blocked = ask("task", "update", first["id"], "--agent", "demo", "--blocked-by", second["id"], "--json").json
    assert blocked["task"]["blocked_by"] == [second["id"]]
    cleared = ask("task", "update", first["id"], "--clear", "agent", "--clear", "blocked-by", "--json").json["task"]
    assert (cleared["agent_type"], cleared["blocked_by"]) == (None, [])


def test_an_old_version_is_refused_with_the_hosts_word(ask: Ask, new_task: Any) -> None:
    task = new_task()
    ask("task", "update", task["id"], "--title", "Newer")
    done = ask("task", "update", task["id"], "--title", "Mine", "--expected-version", str(task["version"]))
    assert done.status == 1
    assert len(done.err.splitlines()) == 1


def test_a_description_comes_from_standard_input(ask: Ask, new_task: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("one\ntwo\n"))
    assert new_task("Piped", "--description", "-")["description"] == "one\ntwo\n"


@pytest.mark.parametrize("kind", ["task", "board", "column"])
def test_nothing_is_deleted_where_nobody_can_be_asked(ask: Ask, board: Any, new_task: Any, kind: str) -> None:
    ids = {"task": new_task()["id"], "board": board["board"]["id"], "column": board["columns"][0]["id"]}
    done = ask(kind, "delete", ids[kind])
    assert done.status == 2
    assert "add --yes" in done.err
    assert ask("board", "show", board["board"]["id"]).status == 0


def test_at_a_terminal_a_deletion_says_what_goes_with_it(ask: Ask, board: Any, new_task: Any) -> None:
    new_task()
    new_task()
    kept = ask("board", "delete", board["board"]["id"], stdin="n\n")
    assert "with its 4 columns and 2 tasks" in kept.err
    assert "Nothing was deleted." in kept.err
    assert kept.status == 1
    deleted = ask("board", "delete", board["board"]["id"], stdin="y\n")
    assert deleted.status == 0
    assert ask("board", "show", board["board"]["id"]).status == 1


def test_a_deleted_column_says_where_its_tasks_went(ask: Ask, board: Any, new_task: Any) -> None:
    of_board = ("--board", board["board"]["id"])
    ask("column", "create", "Any", *of_board)
    done, waiting = new_task("Done"), new_task("Waiting")
    assert ask("task", "state", done["id"], "completed").status == 0
    for task in (done, waiting):
        assert ask("task", "move", task["id"], "Any").status == 0
    deleted = ask("column", "delete", "Any", *of_board, "--force", "--yes")
    assert deleted.out.partition(": ")[2] == "1 task moved to Done, 1 task moved to To Do\n"


def test_an_agent_type_or_a_repository_that_is_not_there_makes_no_task(
    ask: Ask, board: Any, new_task: Any, tmp_path: Path
) -> None:
    of_board = ("--board", board["board"]["id"])
    unknown = ask("task", "create", "A task", *of_board, "--agent", "demmo")
    assert (unknown.status, "No agent type 'demmo' (known: auggie-cli, claude" in unknown.err) == (1, True)
    folder = ask("task", "create", "A task", *of_board, "--repo", str(tmp_path))
    assert (folder.status, "Not a git repository" in folder.err) == (1, True)
    assert ask("task", "list", *of_board, "--json").json["tasks"] == []
    assert ask("task", "update", new_task()["id"], "--agent", "demmo").status == 1


@pytest.mark.parametrize("more", [["--title", " "], ["--priority", "3", "--title", "x" * 501]])
def test_what_the_host_refuses_is_said_without_types_and_patterns(ask: Ask, new_task: Any, more: list[str]) -> None:
    done = ask("task", "update", new_task()["id"], *more)
    assert done.err == "kandev-host: title must be text of 1 to 500 characters, and not blank\n"


def test_what_force_would_do_is_said_where_it_is_missing(ask: Ask, board: Any, new_task: Any) -> None:
    task = new_task("sleep 600", "--agent", "demo")
    refused = ask("column", "delete", board["columns"][0]["id"], "--yes")
    assert "The column still holds 1 task; --force moves them elsewhere" in refused.err
    ask("task", "start", task["id"])
    for kind, id in (("task", task["id"]), ("board", board["board"]["id"])):
        refused = ask(kind, "delete", id, "--yes")
        assert f"The {kind} has running agents; --force stops them first" in refused.err
        assert refused.status == 1
    assert ask("board", "delete", board["board"]["id"], "--yes", "--force").status == 0


def test_tasks_of_all_boards_are_listed_with_their_boards(ask: Ask) -> None:
    name = f"Twice {new_id()[-12:]}"
    boards = [ask("board", "create", name, "--json").json["board"]["id"] for _ in range(2)]
    tasks = [ask("task", "create", "A task", "--board", id, "--json").json["task"]["id"] for id in boards]
    lines = ask("task", "list", "--all").out.splitlines()
    assert lines[0].split()[:3] == ["ID", "BOARD", "STATE"]
    for task, id in zip(tasks, boards, strict=True):
        assert f"{task[-8:]}  {name} ({id[-8:]})" in "\n".join(lines)
    assert "BOARD" not in ask("task", "list", "--board", boards[0]).out


def test_the_history_of_a_task_tells_old_and_new(ask: Ask, new_task: Any) -> None:
    task, other = new_task("Old"), new_task()
    ask("task", "update", task["id"], "--title", "New", "--blocked-by", other["id"], "--description", "long")
    ask("task", "state", task["id"], "blocked", "--reason", "Wait")
    shown = ask("task", "events", task["id"]).out
    assert "title: Old → New" in shown
    assert f"blocked_by: none → {other['id'][-8:]}" in shown
    assert "description: changed" in shown
    assert "TODO → BLOCKED" in shown
    assert "reason: Wait" in shown
    assert "{" not in shown


def test_the_queue_says_what_each_task_waits_for_and_what_to_do(ask: Ask, board: Any, new_task: Any) -> None:
    blocker = new_task("The first")
    blocked = new_task("The second", "--agent", "demo", "--blocked-by", blocker["id"])
    absent = new_task("The third", "--agent", "gemini")
    try:
        assert ask("queue", "pause").status == 0
        paused = new_task("The fourth", "--agent", "demo")
        for task in (blocked, absent, paused):
            assert ask("queue", "trigger", task["id"]).status == 0
        ask("task", "state", blocker["id"], "cancelled")
        shown = ask("queue", "list", "--board", board["board"]["id"]).out
    finally:
        ask("queue", "resume")
        assert ask("board", "delete", board["board"]["id"], "--yes", "--force").status == 0
    assert "The first (CANCELLED)" in shown
    assert f"kandev-host task update {blocked['id'][-8:]} --clear blocked-by" in shown
    assert re.search(r"^Agents: \d+ of 4, paused$", shown, re.M)
    assert "The queue is paused: kandev-host queue resume" in shown
    if shutil.which("gemini") is None:
        assert "gemini: npm install -g @google/gemini-cli" in shown


def test_a_task_for_an_agent_that_is_not_there_says_why_it_waits(ask: Ask, board: Any) -> None:
    told = [
        ask("task", "create", "x", "--board", board["board"]["id"], "--agent", name).err for name in ("vibe", "demo")
    ]
    assert ("cannot be started here" in told[0], told[1]) == (shutil.which("vibe-acp") is None, "")


def test_the_queue_is_paused_and_goes_on(ask: Ask) -> None:
    assert ask("queue", "pause", "--json").json["paused"] is True
    assert "paused:" in ask("queue", "status").out
    assert ask("queue", "resume", "--json").json["paused"] is False


def test_stored_events_are_shown_up_to_now(ask: Ask, board: Any, new_task: Any) -> None:
    task = new_task("Told")
    lines = ask("events", "--topic", f"task:{task['id'][-8:]}", "--json").out.splitlines()
    assert [json.loads(line)["action"] for line in lines] == ["task.created"]
    of_board = ask("events", "--topic", f"board:{board['board']['name']}").out
    assert "task.created" in of_board
    assert "Told" in of_board


@pytest.mark.parametrize("topic", ["tasks", "shell:x", "task:", "user:1"])
def test_a_wrong_topic_is_wrong_usage(ask: Ask, topic: str) -> None:
    assert ask("events", "--topic", topic).status == 2


def test_a_run_is_started_answered_and_looked_at(ask: Ask, new_task: Any, repository: Path) -> None:
    """From `task start` to `task diff`, by commands alone."""
    task = new_task("write HELLO.md: hello", "--repo", str(repository), "--agent", "demo")
    agent = ask("task", "start", task["id"], "--json").json["agent"]
    deadline = time.monotonic() + 60
    while not (asked := ask("permission", "list", "--task", task["id"], "--json").json["permissions"]):
        assert time.monotonic() < deadline, "nothing was asked"
    assert ask("agent", "status", agent["id"], "--json").json["activity"] == "waiting_permission"
    assert ask("permission", "answer", asked[0]["id"][-8:], "maybe").status == 2
    assert "allowed" in ask("permission", "answer", asked[0]["id"][-8:], "allow_once").out
    while ask("task", "show", task["id"], "--json").json["task"]["state"] != "COMPLETED":
        assert time.monotonic() < deadline + 30, "its task is not completed"
    assert "+hello" in ask("task", "diff", task["id"]).out
    assert "HELLO.md" in ask("agent", "transcript", agent["id"], "--all").out
    assert "COMPLETED" in ask("agent", "list", "--task", task["id"]).out
    assert ask("agent", "status", agent["id"]).status == 0
    assert ask("agent", "prompt", agent["id"], "more").status == 1


def test_a_runtime_that_is_not_open_is_told_from_one_that_there_is_not(ask: Ask) -> None:
    closed = ask("shell", "open", "--runtime", "docker")
    assert closed.status == 1
    assert "'docker' is not running. Fix: Add the table [runtime.docker] to the settings" in closed.err
    unknown = ask("shell", "open", "--runtime", "nope")
    assert (unknown.status, unknown.err) == (
        1, "kandev-host: There is no runtime 'nope'. Fix: Choose one of bwrap, docker, host\n",
    )  # fmt: skip
