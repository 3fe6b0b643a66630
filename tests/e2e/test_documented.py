"""The plugins and the program that the pages show, run exactly as they stand there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import typing
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from kandev_host.client import Client, ClientError
from kandev_host.services import Services

pytestmark = pytest.mark.anyio

DEADLINE_S = 120
DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    fenced = rf"^```{language}\n(.*?)^```$"
    return [str(block) for block in re.findall(fenced, (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)]


def shown(word: str) -> str:
    """The module of docs/plugins.md that has this in it."""
    (module,) = (block for block in blocks("plugins.md", "python") if word in block and "import" in block)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both plugins, as pip leaves them."""
    folder = tmp_path_factory.mktemp("site")
    (text,) = (block for block in blocks("plugins.md", "toml") if "[project]" in block)
    project = tomllib.loads(text)["project"]
    (entry,) = project["entry-points"]["kandev"].items()
    modules = {entry: shown('name="hello"'), ("notes", "kandev_notes"): shown('"notes.add"')}
    assert '`notes = "kandev_notes"`' in (DOCS / "plugins.md").read_text()
    for (name, module), source in modules.items():
        (folder / f"{module}.py").write_text(source)
        info = folder / f"{module}-{project['version']}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: {project['version']}\n")
        (info / "entry_points.txt").write_text(f"[kandev]\n{name} = {module}\n")
    return folder


@pytest.fixture(scope="module")
def host(make_host: Any, site: Path) -> Any:
    return make_host(PYTHONPATH=str(site))


def ran(host: Any, *command: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "KANDEV_HOME": str(host.home), "COLUMNS": "200", **env},
        check=False, capture_output=True, text=True, timeout=DEADLINE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_agent_of_the_page_runs_and_has_fourteen_lines(host: Any, repository: Path) -> None:
    assert len([line for line in shown('name="hello"').splitlines() if line.strip()]) <= 14
    out = ran(host, "-m", "kandev_host", "run", "Greet me", "--agent", "hello", "--repo", str(repository))
    assert "+Hello! You said: Greet me" in out
    assert not (repository / "HELLO.txt").exists()


async def test_the_action_of_the_page_notes_what_is_there_and_nothing_else(host: Any) -> None:
    async with Client.connect(host.url, host.token, timeout_s=DEADLINE_S) as client:
        board = (await client.call("board.create", {"name": "Notes"}))["board"]
        task = (await client.call("task.create", {"board_id": board["id"], "title": "T", "description": ""}))["task"]
        noted = await client.call("notes.add", {"task_id": task["id"], "text": "look again"})
        with pytest.raises(ClientError) as refused:
            await client.call("notes.add", {"task_id": "nope", "text": "of nothing"})
        assert refused.value.code == "NOT_FOUND"
    async with Client.connect(host.url, host.token, timeout_s=DEADLINE_S) as client:
        told = [each async for each in client.history("*") if each.action == "notes.added"]
    assert [(each.seq, dict(each.payload)) for each in told] == [(noted["seq"], {"text": "look again", "by": "local"})]
    listed = ran(host, "-m", "kandev_host", "plugins")
    assert re.search(r"notes +1.0 +kandev_notes +.*action: notes.add.* active", listed)


def test_the_program_of_the_page_follows_its_agent(host: Any, tmp_path: Path) -> None:
    (text,) = blocks("cli.md", "python")
    (tmp_path / "hello.py").write_text(text)
    out = ran(host, str(tmp_path / "hello.py"), KANDEV_URL=host.url, KANDEV_TOKEN=host.token)
    assert out.splitlines()[-1].split()[1] == "acp.result"
    kept = [line for line in out.splitlines() if not line.startswith("None")]
    assert len(set(kept)) == len(kept) > 3


def test_what_the_page_calls_stable_of_the_services_is_there() -> None:
    table = (DOCS / "plugins.md").read_text().partition("| of `services` | |")[2].partition("\n\n")[0]
    named = re.findall(r"`(\w+)\.(\w+)\(", table)
    hints = typing.get_type_hints(Services)
    assert [(part, name) for part, name in named if not callable(getattr(hints[part], name, None))] == []
    assert {part for part, _ in named} == {"ownership", "journal", "store", "bus"}
    assert "`runtimes[name]`" in table
    assert "runtimes" in hints


def test_the_schema_says_what_the_page_says_of_plugins(host: Any) -> None:
    with urllib.request.urlopen(f"{host.url}/schema.json", timeout=DEADLINE_S) as answer:
        served = json.load(answer)["operations"]
    printed = json.loads(ran(host, "-m", "kandev_host", "schema"))["operations"]
    assert ("notes.add" in served, "notes.add" in printed) == (True, False)
