"""How many snapshots are kept, how much goes into one, and when they are taken by themselves."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from kandev_host.errors import Conflict, Unavailable
from kandev_host.models import AgentInstance, Snapshot, Workspace
from kandev_host.protocol.actions.agents import AgentLaunch, AgentStop, WorkspaceDiff
from kandev_host.protocol.actions.boards import BoardCreate
from kandev_host.protocol.actions.snapshots import WorkspaceRestore, WorkspaceSnapshot, WorkspaceSnapshots
from kandev_host.services.jailed.index import tracked
from kandev_host.services.snapshot_jail import FOLDER, ORDER
from kandev_host.services.snapshot_retention import superfluous
from kandev_host.settings import Settings, SnapshotSettings

pytestmark = pytest.mark.anyio


def rows(count: int, **fields: Any) -> list[Snapshot]:
    return [Snapshot(task_id="t", kind="turn", tree="x", created_by="u", **fields) for _ in range(count)]


def test_the_oldest_go_but_for_the_first_and_the_last() -> None:
    made = rows(6)
    assert superfluous(made, 4, full=False) == made[1:3]
    assert superfluous(made, 6, full=False) == []
    assert superfluous(made, 2, full=False) == made[1:5]


def test_those_that_a_person_named_go_after_the_others() -> None:
    made = rows(4)
    named = Snapshot(task_id="t", kind="manual", label="mine", tree="x", created_by="u")
    assert superfluous([made[0], named, *made[1:]], 4, full=False) == [made[1]]


def test_what_was_there_before_the_first_agent_stays() -> None:
    made = rows(4)
    start = Snapshot(task_id="t", kind="start", tree="x", created_by="u")
    assert superfluous([made[0], start, *made[1:]], 3, full=False) == made[1:3]


def test_failed_ones_keep_no_place() -> None:
    failed = Snapshot(task_id="t", kind="start", error="no", created_by="u")
    made = rows(3)
    assert superfluous([failed, *made], 2, full=False) == [failed, made[1]]


def test_when_there_is_no_room_half_of_what_may_go_goes() -> None:
    made = rows(6)
    assert superfluous(made, 100, full=True) == made[1:3]
    assert superfluous(made[:2], 100, full=True) == []


@pytest.mark.parametrize("path", sorted(FOLDER.glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_programs_for_jails_import_the_standard_library_and_what_was_loaded_before_them(path: Path) -> None:
    known = ORDER[: ORDER.index(path.stem)]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert {alias.name for alias in node.names} <= sys.stdlib_module_names
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kandev_host"):
            module = (node.module or "").removeprefix("kandev_host.services.jailed").lstrip(".")
            assert ({module} if module else {alias.name for alias in node.names}) <= set(known)
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").partition(".")[0] in sys.stdlib_module_names


class Shelf:
    """A workspace in a house with these settings."""

    def __init__(self, house: Any, desk: Any, workspace: Workspace, place: Path) -> None:
        self.house = house
        self.desk = desk
        self.workspace = workspace
        self.place = place

    async def take(self) -> Snapshot:
        reply = await self.house.snapshots.take(self.house.me, WorkspaceSnapshot(task_id=self.workspace.id))
        taken: Snapshot = reply.snapshot
        return taken

    async def all(self) -> list[Snapshot]:
        request = WorkspaceSnapshots(task_id=self.workspace.id)
        return list((await self.house.snapshots.list(self.house.me, request)).snapshots)

    async def sh(self, script: str) -> str:
        return str(await self.desk.sh(self.workspace, script))

    async def restore(self, snapshot: Snapshot, *, force: bool = False) -> Any:
        request = WorkspaceRestore(task_id=self.workspace.id, snapshot_id=snapshot.id, force=force)
        return await self.house.snapshots.restore(self.house.me, request)


@pytest.fixture
def open_shelf(open_house: Any, make_desk: Any, tmp_path: Path) -> Any:
    @asynccontextmanager
    async def opened(**settings: Any) -> AsyncIterator[Shelf]:
        async with open_house(tmp_path / "data", [], Settings(snapshots=SnapshotSettings(**settings))) as house:
            board = (await house.boards.create(house.me, BoardCreate(name="Work"))).board
            desk = make_desk(house, board.id)
            workspace = await desk.workspace(None)
            yield Shelf(house, desk, workspace, tmp_path / "data/workspaces" / workspace.id)

    return opened


async def test_no_more_are_kept_than_the_settings_say(open_shelf: Any) -> None:
    async with open_shelf(kept=3) as shelf:
        taken = []
        for number in range(5):
            await shelf.sh(f"echo {number} > file")
            taken.append(await shelf.take())
        kept = [taken[4], taken[3], taken[0]]
        assert await shelf.all() == kept
        refs = subprocess.run(
            ["git", "-c", "safe.directory=*", "-C", str(shelf.place / "snapshots/git"), "for-each-ref"],
            check=True,
            capture_output=True,
        ).stdout.decode()
        assert refs.count("refs/snapshots/") == 3
        diff = WorkspaceDiff(task_id=shelf.workspace.id, from_=taken[0].id, to=taken[3].id)
        assert "-0\n+3\n" in (await shelf.house.snapshots.diff(shelf.house.me, diff)).diff


async def test_a_file_beyond_the_limit_is_left_out_and_named(open_shelf: Any) -> None:
    async with open_shelf(file_limit_bytes=1000) as shelf:
        await shelf.sh("head -c 1000 /dev/zero > fits; head -c 1001 /dev/zero > large; truncate -s 4G sparse")
        taken = await shelf.take()
        assert {each.path: each.reason for each in taken.skipped} == {
            "large": "more than 1000 bytes",
            "sparse": "more than 1000 bytes",
        }
        assert taken.files == 1
        await shelf.sh("echo x > fits")
        assert (await shelf.restore(taken)).exact
        assert await shelf.sh("wc -c < large") == "1001"


async def test_what_has_no_room_is_left_out_and_named(open_shelf: Any) -> None:
    async with open_shelf(limit_bytes=300_000) as shelf:
        await shelf.sh("head -c 200000 /dev/urandom > a; head -c 200000 /dev/urandom > b")
        taken = await shelf.take()
        assert [(each.path, each.reason) for each in taken.skipped] == [("b", "no room is left for it")]


async def test_too_many_files_cut_a_snapshot_and_its_restore_takes_nothing_away(open_shelf: Any) -> None:
    async with open_shelf(max_files=10) as shelf:
        await shelf.sh("for n in $(seq 20); do echo $n > f$n; done")
        taken = await shelf.take()
        assert (taken.cut, taken.files) == ("files", 10)
        await shelf.sh("echo x > f1")
        with pytest.raises(Conflict, match="undone"):
            await shelf.restore(taken)
        await shelf.restore(taken, force=True)
        assert await shelf.sh("cat f1; ls | wc -l") == "1\n20"


async def test_a_snapshot_that_takes_too_long_is_what_was_read_by_then(open_shelf: Any) -> None:
    async with open_shelf(walk_timeout_s=0.0001) as shelf:
        await shelf.sh("for n in $(seq 50); do echo $n > f$n; done")
        taken = await shelf.take()
        assert (taken.cut, taken.files < 50, taken.changed_files) == ("time", True, None)


async def test_one_that_cannot_be_taken_leaves_a_row_that_says_why(open_shelf: Any) -> None:
    async with open_shelf() as shelf:
        (shelf.place / "snapshots/git").write_text("no repository")
        with pytest.raises(Unavailable):
            await shelf.take()
        assert await shelf.all() == []
        await shelf.house.snapshots.at_start(_agent(shelf))
        (row,) = await shelf.all()
        assert (row.kind, row.tree, bool(row.error)) == ("start", None, True)


def _agent(shelf: Shelf) -> AgentInstance:
    return AgentInstance(task_id=shelf.workspace.id, agent_type="a", runtime="bwrap")


async def test_none_is_taken_by_itself_where_the_settings_say_so(open_shelf: Any) -> None:
    async with open_shelf(enabled=False) as shelf:
        await shelf.house.snapshots.at_start(_agent(shelf))
        assert await shelf.all() == []
        await shelf.take()
        assert len(await shelf.all()) == 1


async def test_a_host_that_stops_waits_for_no_snapshot(open_shelf: Any) -> None:
    async with open_shelf() as shelf:
        await shelf.sh("seq 30000 | split -l 1 -a 5")
        async with anyio.create_task_group() as group:

            async def take() -> None:
                with pytest.raises(Unavailable, match="stopping"):
                    await shelf.take()

            group.start_soon(take)
            while not await shelf.house.runtimes["bwrap"].list_owned():
                await anyio.lowlevel.checkpoint()
            shelf.house.snapshots.close()


async def snapshots(house: Any, task_id: str) -> Iterator[Snapshot]:
    """Oldest first."""
    return reversed((await house.snapshots.list(house.me, WorkspaceSnapshots(task_id=task_id))).snapshots)


async def test_a_run_has_a_snapshot_before_it_begins_and_one_of_each_turn(open_shop: Any) -> None:
    step = {"write": {"path": "/workspace/new", "text": "x"}}
    async with open_shop(Settings()) as shop:
        await shop.plays(step)
        (agent,) = (await shop.house.store.find(AgentInstance)).rows
        await shop.house.agents.stop(shop.house.me, AgentStop(agent_id=agent.id))
        rows = list(await snapshots(shop.house, shop.task.id))
        assert [(row.kind, row.changed_files) for row in rows] == [("start", 0), ("turn", 1)]
        assert (rows[1].agent_id, bool(rows[1].turn_id)) == (agent.id, True)
        request = WorkspaceDiff(task_id=shop.task.id, from_="base", to=rows[1].id)
        assert [file.path for file in (await shop.house.snapshots.diff(shop.house.me, request)).files] == ["new"]


async def test_while_an_agent_works_nothing_is_restored_unless_forced(open_shop: Any) -> None:
    async with open_shop(Settings(), {}, task={}) as shop:
        launch = AgentLaunch(task_id=shop.task.id, agent_type="scripted", prompt="[]")
        await shop.house.agents.launch(shop.house.me, launch)
        await shop.heard("acp.result")
        reply = await shop.house.snapshots.take(shop.house.me, WorkspaceSnapshot(task_id=shop.task.id))
        request = {"task_id": shop.task.id, "snapshot_id": reply.snapshot.id}
        with pytest.raises(Conflict, match="stop it first"):
            await shop.house.snapshots.restore(shop.house.me, WorkspaceRestore(**request))
        restored = await shop.house.snapshots.restore(shop.house.me, WorkspaceRestore(**request, force=True))
        assert restored.exact


@pytest.mark.parametrize("version", ["2", "3", "4"])
@pytest.mark.parametrize("kind", ["sha1", "sha256"])
def test_the_paths_of_an_index_are_those_that_git_lists(tmp_path: Path, version: str, kind: str) -> None:
    def git(*arguments: str) -> bytes:
        return subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True, capture_output=True).stdout

    git("init", "-q", f"--object-format={kind}")
    for name in ("a", "a b", "deep/er/x", "deep/er/y" * 3, "deep/z", "ü" * 40):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    git("add", ".")
    git("add", "--intent-to-add", ".")
    git("update-index", "--index-version", version)
    assert tracked((tmp_path / ".git/index").read_bytes()) == set(git("ls-files", "-z").split(b"\0")) - {b""}


@pytest.mark.parametrize("content", [b"", b"DIRC", b"DIRC\0\0\0\2\xff\xff\xff\xff" + b"x" * 300, b"\0" * 1000])
def test_an_index_that_is_none_names_nothing_or_little(content: bytes) -> None:
    assert len(tracked(content)) < 10
