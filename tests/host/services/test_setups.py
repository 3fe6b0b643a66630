"""Workspaces made ready as [repositories.NAME] says: copied files, and a script in the jail."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from kandev_bwrap import BwrapSettings
from kandev_host.interfaces import ProcessSpec
from kandev_host.models import AgentLog, Command, Workspace
from kandev_host.protocol.actions.agents import AgentLaunch
from kandev_host.protocol.actions.boards import BoardCreate
from kandev_host.protocol.actions.search import SearchQuery
from kandev_host.protocol.actions.shells import ShellCommands
from kandev_host.services.setups import SetupFailed
from kandev_host.settings import RepositorySettings, Settings
from kandev_host.settings.load import load
from kandev_sandbox import cgroups

pytestmark = pytest.mark.anyio


@pytest.fixture
def open_desk(open_house: Any, make_desk: Any, tmp_path: Path) -> Any:
    @asynccontextmanager
    async def opened(**tables: RepositorySettings) -> AsyncIterator[Any]:
        async with open_house(tmp_path / "data", [], Settings(repositories=tables)) as house:
            board = (await house.boards.create(house.me, BoardCreate(name="Work"))).board
            yield make_desk(house, board.id)

    return opened


def table(repository: Path, **fields: Any) -> RepositorySettings:
    return RepositorySettings(match=str(repository), **fields)


async def test_the_script_runs_in_the_workspace_and_its_output_is_kept(open_desk: Any, repository: Path) -> None:
    script = "echo one; echo two >&2; pwd > where; git branch --show-current >> where"
    async with open_desk(app=table(repository, setup=script)) as desk:
        workspace = await desk.workspace(repository)
        assert (workspace.setup.name, workspace.setup.output) == ("app", "one\ntwo")
        assert (await desk.house.store.get(Workspace, workspace.id)).setup == workspace.setup
        assert await desk.sh(workspace, "cat where") == f"/workspace\n{workspace.branch}"


async def test_the_script_sees_no_network_and_no_variable_of_the_host(
    open_desk: Any, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_SECRET", "secret")
    script = "env; tail -n +3 /proc/net/dev"
    async with open_desk(app=table(repository, setup=script)) as desk:
        output = (await desk.workspace(repository)).setup.output
    assert "secret" not in output
    assert [line.split(":")[0].strip() for line in output.splitlines() if ": " in line and "=" not in line] == ["lo"]


async def test_a_script_that_fails_leaves_no_workspace_and_says_what_it_wrote(
    open_desk: Any, repository: Path, tmp_path: Path
) -> None:
    async with open_desk(app=table(repository, setup="printf 'no such \\033[31mpackage'; exit 7")) as desk:
        task = await desk.task(repository)
        with pytest.raises(SetupFailed) as caught:
            await desk.house.workspaces.ensure(task, "bwrap")
        assert await desk.house.store.get(Workspace, task.id) is None
    assert not (tmp_path / "data/workspaces" / task.id).exists()
    told = "The setup of [repositories.app] ended with status 7: no such \\x1b[31mpackage"
    assert caught.value.message == told


async def test_the_run_whose_setup_fails_has_its_output_in_its_log(open_shop: Any, repository: Path) -> None:
    settings = Settings(repositories={"app": table(repository, setup="echo the whole story; exit 1")})
    async with open_shop(settings, task={"repository_url": str(repository)}) as shop:
        launch = AgentLaunch(task_id=shop.task.id, agent_type="scripted", prompt="[]")
        await shop.house.agents.launch(shop.house.me, launch)
        agent = await shop.failed()
        assert (agent.failure, "ended with status 1" in agent.error_message) == ("config", True)
        (line,) = (await shop.house.store.find(AgentLog)).rows
        assert (line.agent_instance_id, line.message) == (agent.id, "the whole story")


async def test_a_script_that_takes_too_long_is_ended(open_desk: Any, repository: Path) -> None:
    async with open_desk(app=table(repository, setup="sleep 600", setup_timeout_s=0.3)) as desk:
        with pytest.raises(SetupFailed, match=r"took longer than 0\.3 s"):
            await desk.workspace(repository)


HOARD = """python3 -c 'x = [bytearray(b"x") * (1 << 20) for _ in range(200)]'"""


async def test_a_script_that_meets_its_memory_limit_says_so(
    open_desk: Any, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    met = r"memory limit of 64\.0 MiB" if cgroups.here().full else ""
    async with open_desk(app=table(repository, setup=HOARD)) as desk:
        monkeypatch.setattr(desk.house.runtimes["bwrap"], "_settings", BwrapSettings(memory_limit_bytes=64 << 20))
        with pytest.raises(SetupFailed, match=f"ended with status .*{met}"):
            await desk.workspace(repository)
        (row,) = await commands(desk)
    assert (row.state, row.exit_code) == ("killed" if met else "finished", 137 if met else 1)
    assert re.search(met, row.reason or "")


async def test_the_script_is_in_the_audit(open_desk: Any, repository: Path) -> None:
    script = "printf 'all of it'; exit 3"
    async with open_desk(app=table(repository, setup=script)) as desk:
        task = await desk.task(repository)
        with pytest.raises(SetupFailed):
            await desk.house.workspaces.ensure(task, "bwrap")
        (row,) = await commands(desk)
        assert (row.task_id, row.created_by, row.command, row.cwd) == (task.id, "host", script, "/workspace")
        assert (row.state, row.exit_code, row.stdout_bytes, row.output_head) == ("finished", 3, 9, "all of it")
        assert row.duration_ms > 0
        found = await desk.house.search.query(desk.house.me, SearchQuery(text="printf", kinds=["command"]))
        assert [hit.id for hit in found.hits] == [row.id]


async def test_all_that_a_script_wrote_is_counted(open_desk: Any, repository: Path) -> None:
    async with open_desk(app=table(repository, setup="yes | head -c 2000000; true")) as desk:
        await desk.workspace(repository)
        (row,) = await commands(desk)
    assert (row.stdout_bytes, row.truncated, row.output_tail) == (2_000_000, True, None)


async def commands(desk: Any) -> list[Command]:
    return list((await desk.house.shells.commands(desk.house.me, ShellCommands())).commands)


async def test_of_endless_output_the_end_is_kept(open_desk: Any, repository: Path) -> None:
    async with open_desk(app=table(repository, setup="yes | head -c 2000000; true")) as desk:
        output = (await desk.workspace(repository)).setup.output
    assert len(output) < 20_000
    assert output.endswith("(its output was longer)")


async def test_ignored_files_are_copied_from_the_checkout(open_desk: Any, repository: Path) -> None:
    (repository / "config").mkdir()
    (repository / "config/local.toml").write_text("local = 1\n")
    (repository / ".env").write_text("KEY=1\n")
    (repository / ".env").chmod(0o600)
    wanted = table(repository, copy=(".env", "config/local.toml", "not-there"), setup="cat .env")
    async with open_desk(app=wanted) as desk:
        workspace = await desk.workspace(repository)
        assert workspace.setup.copied == (".env", "config/local.toml")
        assert workspace.setup.output == "KEY=1"
        assert await desk.sh(workspace, "cat config/local.toml; stat -c %a .env") == "local = 1\n600"


async def test_what_the_clone_brought_is_not_overwritten(open_desk: Any, repository: Path) -> None:
    (repository / "a.txt").write_text("changed and not committed\n")
    async with open_desk(app=table(repository, copy=("a.txt",))) as desk:
        assert await desk.sh(await desk.workspace(repository), "cat a.txt") == "one"


@pytest.mark.parametrize("kind", ["link", "link to a folder", "pipe", "folder", "large"])
async def test_what_is_no_small_regular_file_is_not_copied(
    open_desk: Any, repository: Path, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/file").write_text("secret")
    if kind == "link":
        (repository / "file").symlink_to(tmp_path / "secrets/file")
    elif kind == "pipe":
        os.mkfifo(repository / "file")
    elif kind == "folder":
        (repository / "file").mkdir()
    elif kind == "large":
        (repository / "file").write_bytes(bytes(2000))
    else:
        (repository / "folder").symlink_to(tmp_path / "secrets")
    path = "folder/file" if kind == "link to a folder" else "file"
    async with open_desk(app=table(repository, copy=(path,), copy_limit_bytes=1000)) as desk:
        with pytest.raises(SetupFailed, match=rf"\[repositories\.app\] copy: {path}: "):
            await desk.workspace(repository)


async def test_the_first_table_that_matches_counts(open_desk: Any, repository: Path, tmp_path: Path) -> None:
    tables = {
        "other": RepositorySettings(match="https://example.org/*", setup="echo other"),
        "first": RepositorySettings(match=f"{tmp_path}/*", setup="echo first"),
        "second": table(repository, setup="echo second"),
    }
    (tmp_path / "linked").symlink_to(repository)
    async with open_desk(**tables) as desk:
        assert (await desk.workspace(tmp_path / "linked")).setup.output == "first"
        assert (await desk.workspace(None)).setup is None


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a//b", ".git/config", "", "a/../b"])
def test_a_file_outside_of_the_checkout_cannot_be_named(path: str) -> None:
    with pytest.raises(ValueError, match="name files by their path below the checkout"):
        RepositorySettings(match="/src", copy=(path,))


def test_tables_are_read_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text(
        "[repositories.z]\nmatch = '~/a'\nsetup = 'npm ci'\nallow = ['@npm']\n[repositories.a]\nmatch = '*'\n"
    )
    found = load(config=tmp_path / "settings.toml", data_dir=tmp_path).settings.repositories
    assert (list(found), found["z"].allow) == (["z", "a"], ("@npm",))


async def test_a_workspace_remembers_the_spec_of_no_secret(open_desk: Any, repository: Path) -> None:
    (repository / ".env").write_text("KEY=very-secret\n")
    async with open_desk(app=table(repository, copy=(".env",))) as desk:
        workspace = await desk.workspace(repository)
        spec = ProcessSpec(workspace_id=workspace.id, command=("cat", ".env"))
        assert (await desk.house.runtimes["bwrap"].run(spec)).stdout == b"KEY=very-secret\n"
        assert "very-secret" not in repr(workspace)
