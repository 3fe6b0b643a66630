"""`kandev-host workspace`, on a host that runs, with the demo agent."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def task(kandev: Any, home: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A task whose agent wrote a file, committed it, and is done."""
    monkeypatch.setenv("KANDEV_HOME", str(home))
    words = "write HELLO.md: hello\nrun: git add . && git commit -qm 'Say hello'"
    options = [
        "--agent",
        "demo",
        "--repo",
        str(repository),
        "--yes",
        "--policy",
        "unattended",
        "--confirm",
        "unattended",
        "--json",
    ]
    done = kandev("run", words, *options, KANDEV_HOME=str(home))
    assert done.status == 0, done.err
    listed = kandev("task", "list", "--json", KANDEV_HOME=str(home))
    return str(json.loads(listed.out.splitlines()[-1])["tasks"][-1]["id"])


def test_a_workspace_is_looked_at_gone_back_in_and_taken_home(
    task: str, kandev: Any, home: Path, repository: Path
) -> None:
    def workspace(*arguments: str) -> Any:
        done = kandev("workspace", *arguments, KANDEV_HOME=str(home))
        assert done.status == 0, done.err
        return done

    kinds = [row["kind"] for row in workspace("snapshots", task, "--json").json["snapshots"]]
    assert kinds == ["turn", "start"]
    shown = workspace("snapshots", task).out
    assert "KIND" in shown
    first = shown.splitlines()[-1].split()[0]
    assert "+hello" in workspace("diff", task, "--from", first).out
    restored = workspace("restore", task, first, "--yes")
    assert "1 deleted" in restored.out
    undo = restored.out.rpartition("kandev-host workspace ")[2].split()
    assert "1 file written" in workspace(*undo, "--yes").out
    assert "Took snapshot" in workspace("snapshot", task, "--label", "by hand").out
    assert "Say hello" in workspace("commits", task).out
    assert "branch say-hello" in workspace("commits", task, "--push-to", "say-hello").out
    command = ["git", "-C", str(repository), "show", "say-hello:HELLO.md"]
    assert subprocess.run(command, check=True, capture_output=True).stdout == b"hello\n"
    refused = kandev("workspace", "commits", task, "--push-to", "master", KANDEV_HOME=str(home))
    assert (refused.status, "name another" in refused.err) == (1, True)
    unknown = kandev("workspace", "restore", task, "abcdef", "--yes", KANDEV_HOME=str(home))
    assert (unknown.status, "0 snapshots" in unknown.err) == (2, True)


def test_commits_of_what_configures_others_are_named_with_the_option_that_approves(
    task: str, kandev: Any, home: Path
) -> None:
    def kept(*arguments: str) -> Any:
        return kandev(*arguments, KANDEV_HOME=str(home))

    script = "mkdir -p .github/workflows && touch .github/workflows/a.yml && git add . && git commit -qm CI"
    assert kept("exec", "--task", task, script).status == 0
    refused = kept("workspace", "commits", task, "--push-to", "home")
    assert (refused.status, "(.github/workflows/a.yml)" in refused.err) == (1, True)
    assert "--approve-protected" in refused.err
    assert kept("workspace", "commits", task, "--push-to", "home", "--approve-protected").status == 0
