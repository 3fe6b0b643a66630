"""Snapshots of real workspaces by real git in the real jail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from kandev_host.errors import Conflict, NotFound
from kandev_host.interfaces import ProcessSpec
from kandev_host.models import AgentInstance, Snapshot, Workspace
from kandev_host.protocol.actions.agents import DiffReply, WorkspaceDiff
from kandev_host.protocol.actions.snapshots import (
    RestoreReply,
    WorkspaceRestore,
    WorkspaceSnapshot,
    WorkspaceSnapshots,
)

pytestmark = pytest.mark.anyio


class Album:
    """A workspace and its snapshots."""

    def __init__(self, desk: Any, workspace: Workspace) -> None:
        self.desk = desk
        self.house = desk.house
        self.workspace = workspace

    async def sh(self, script: str) -> str:
        return str(await self.desk.sh(self.workspace, script))

    async def take(self, label: str | None = None) -> Snapshot:
        request = WorkspaceSnapshot(task_id=self.workspace.id, label=label)
        reply = await self.house.snapshots.take(self.house.me, request)
        taken: Snapshot = reply.snapshot
        return taken

    async def all(self) -> list[Snapshot]:
        request = WorkspaceSnapshots(task_id=self.workspace.id)
        return list((await self.house.snapshots.list(self.house.me, request)).snapshots)

    async def diff(self, old: str, new: str = "now") -> DiffReply:
        request = WorkspaceDiff(task_id=self.workspace.id, from_=old, to=new)
        reply: DiffReply = await self.house.snapshots.diff(self.house.me, request)
        return reply

    async def names(self, old: str, new: str = "now") -> list[str]:
        return [file.path for file in (await self.diff(old, new)).files]

    async def restore(self, snapshot: Snapshot, *, force: bool = False) -> RestoreReply:
        request = WorkspaceRestore(task_id=self.workspace.id, snapshot_id=snapshot.id, force=force)
        reply: RestoreReply = await self.house.snapshots.restore(self.house.me, request)
        return reply

    def agent(self) -> AgentInstance:
        return AgentInstance(task_id=self.workspace.id, agent_type="a", runtime="bwrap")


@pytest.fixture
async def album(desk: Any, repository: Path) -> Album:
    return Album(desk, await desk.workspace(repository))


async def test_a_snapshot_says_what_it_holds(album: Album) -> None:
    taken = await album.take("first")
    head = await album.sh("git rev-parse HEAD")
    assert (taken.kind, taken.label, taken.files, taken.bytes, taken.head) == ("manual", "first", 2, 8, head)
    assert (taken.branch, taken.cut, taken.skipped_files) == (album.workspace.branch, None, 0)
    assert await album.all() == [taken]


async def test_two_snapshots_are_compared(album: Album) -> None:
    first = await album.take()
    await album.sh("echo more >> a.txt; rm b.txt; mkdir d; echo new > 'd/c d.txt'; chmod +x a.txt; ln -s a.txt link")
    second = await album.take()
    await album.sh("echo later > later")
    reply = await album.diff(first.id, second.id)
    assert [(file.path, file.status) for file in reply.files] == [
        ("a.txt", "modified"),
        ("b.txt", "deleted"),
        ("d/c d.txt", "added"),
        ("link", "added"),
    ]
    assert ("+more\n" in reply.diff, reply.from_, reply.to) == (True, first.id, second.id)
    assert await album.names(second.id) == ["later"]
    assert await album.names(second.id, second.id) == []
    assert second.changed_files == 4


async def test_ignored_files_are_left_out_and_tracked_ones_are_not(album: Album) -> None:
    await album.sh(
        "mkdir -p out/in; echo x > out/in/kept; git add -f out/in/kept; echo out > .gitignore; echo y > out/z"
    )
    first = await album.take()
    await album.sh("echo 2 > out/in/kept; echo 2 > out/z")
    assert await album.names(first.id) == ["out/in/kept"]


async def test_the_files_of_a_repository_inside_are_there_and_no_git_folder_is(album: Album) -> None:
    first = await album.take()
    await album.sh(
        "git init -q inner; echo x > inner/y; cd inner; git add y; git -c user.name=a -c user.email=a@a commit -qm m"
    )
    assert await album.names(first.id) == ["inner/y"]


async def test_names_that_are_no_text_or_hold_anything_survive(album: Album) -> None:
    first = await album.take()
    await album.sh("""for name in 'ü' "$(printf 'a\\nb\\tc')" '"q"' '\\back' "$(printf '\\377')" '-n' ' '; do
        echo x > "./$name"; done""")
    assert len(await album.names(first.id)) == 7
    second = await album.take()
    await album.sh("find . -maxdepth 1 -type f -not -name '*.txt' -delete")
    assert (await album.restore(second)).exact


async def test_attributes_and_filters_of_the_workspace_have_no_say(album: Album) -> None:
    await album.sh(
        "git config filter.evil.clean 'touch /workspace/ran; cat'; git config core.autocrlf true;"
        "echo '* filter=evil text eol=crlf -diff ident' > .gitattributes; printf 'one\\r\\ntwo $Id$\\r\\n' > crlf"
    )
    first = await album.take()
    await album.sh("test ! -e ran; echo three >> crlf")
    second = await album.diff(first.id)
    assert "+three" in second.diff
    await album.restore(first)
    assert await album.sh("od -c crlf | head -3; test ! -e ran") == await album.sh(
        "printf 'one\\r\\ntwo $Id$\\r\\n' | od -c"
    )


async def test_pipes_and_sockets_are_named_and_waited_for_by_nobody(album: Album) -> None:
    await album.sh("mkfifo pipe .gitattributes .gitignore d 2>/dev/null; mkdir e; mkfifo e/.gitignore")
    taken = await album.take()
    assert {(each.path, each.reason) for each in taken.skipped} == {
        (path, "a pipe") for path in ("pipe", ".gitattributes", ".gitignore", "d", "e/.gitignore")
    }
    assert taken.files == 2


async def test_a_link_is_kept_as_a_link_and_never_followed(album: Album) -> None:
    await album.sh("ln -s /etc/passwd secret; ln -s / root; ln -s . loop; rm -r .git; ln -s /snapshots .git")
    first = await album.take()
    assert (first.files, first.head) == (5, None)
    assert "root:" not in (await album.diff(first.id, first.id)).diff
    await album.sh("rm secret root loop")
    assert (await album.restore(first)).exact
    assert await album.sh("readlink secret root loop") == "/etc/passwd\n/\n."


async def test_files_that_are_swapped_all_the_time_lead_nowhere_and_hold_nothing_up(album: Album) -> None:
    await album.sh("echo mine > x; mkdir d; echo mine > d/x")
    script = """echo up; while :; do
        rm -rf x d; ln -s /etc/passwd x; ln -s /etc d
        rm -f x d; mkfifo x; mkdir d; mkfifo d/x
        rm -rf x d; echo mine > x; mkdir d; echo mine > d/x
    done"""
    spec = ProcessSpec(workspace_id=album.workspace.id, command=("sh", "-c", script))
    async with album.house.runtimes["bwrap"].spawn(spec) as racing:
        await racing.receive()
        first = await album.take()
        taken = [await album.take() for _ in range(4)]
    await album.sh("rm -rf x d")
    texts = [(await album.diff(first.id, row.id)).diff for row in taken] + [(await album.diff(taken[-1].id)).diff]
    assert [text for text in texts if "agent:x" in text] == []
    assert {row.cut for row in taken} == {None}


async def test_what_is_unreadable_too_deep_or_badly_named_is_named(album: Album) -> None:
    await album.sh(
        "echo x > closed; chmod 0 closed; mkdir -p shut/in; chmod 0 shut; mkdir .GIT; echo x > .GIT/x;"
        "d=deep; for n in $(seq 150); do mkdir $d && cd $d; d=d; done; echo x > file"
    )
    reasons = {each.reason for each in (await album.take()).skipped}
    assert reasons == {"Permission denied", "too deep", "git takes no such name"}


async def test_a_snapshot_is_out_of_the_reach_of_agents(album: Album) -> None:
    await album.take()
    assert await album.sh("ls -d /snapshots /workspace/../snapshots 2>/dev/null || echo none") == "none"


async def test_nothing_of_the_workspace_is_changed_by_a_snapshot(album: Album) -> None:
    script = "sha1sum .git/index; git status --porcelain; find . | sort; find /tmp ~ | sort"
    before = await album.sh(script)
    await album.take()
    assert await album.sh(script) == before


async def test_a_restore_brings_back_files_modes_links_and_takes_away_what_is_new(album: Album) -> None:
    await album.sh("mkdir -p d/e; echo 1 > d/e/f; chmod +x a.txt; ln -s a.txt link")
    wanted = await album.take()
    await album.sh(
        "rm -r d link; echo d > d; mkdir link; echo x > link/x; echo 2 > a.txt; chmod -x a.txt; echo n > new"
    )
    reply = await album.restore(wanted)
    assert (reply.exact, reply.skipped_files) == (True, 0)
    script = "cat d/e/f a.txt; readlink link; test -x a.txt && echo yes; test -e new || echo gone"
    assert (await album.sh(script)).split() == ["1", "one", "a.txt", "yes", "gone"]


async def test_a_restore_can_be_undone(album: Album) -> None:
    first = await album.take()
    await album.sh("echo work > work; echo more >> a.txt; rm b.txt")
    reply = await album.restore(first)
    assert await album.sh("ls") == "a.txt\nb.txt"
    undone = await album.restore(reply.before)
    assert (undone.exact, await album.sh("cat work a.txt; ls")) == (True, "work\none\nmore\na.txt\nwork")


async def test_a_restore_leaves_ignored_files_and_the_repository_alone(album: Album) -> None:
    first = await album.take()
    await album.sh("echo cache > .gitignore; mkdir cache; echo x > cache/x; git add .gitignore; git commit -qm i")
    head = await album.sh("git rev-parse HEAD")
    await album.restore(first)
    assert await album.sh("cat cache/x; git rev-parse HEAD; ls -A") == f"x\n{head}\n.git\na.txt\nb.txt\ncache"


async def test_what_was_ignored_later_is_restored_and_that_can_be_undone(album: Album) -> None:
    await album.sh("echo one > notes")
    first = await album.take()
    await album.sh("echo notes > .gitignore; echo two > notes")
    reply = await album.restore(first)
    assert await album.sh("cat notes") == "one"
    await album.restore(reply.before)
    assert await album.sh("cat notes") == "two"


async def test_a_restore_writes_through_no_link(album: Album) -> None:
    await album.sh("mkdir d; echo mine > d/f")
    first = await album.take()
    await album.sh("rm -r d; mkdir ~/victim; ln -s ~/victim d")
    assert (await album.restore(first)).exact
    assert await album.sh("cat d/f; ls ~/victim; test -L d || echo folder") == "mine\nfolder"


async def test_a_restore_writes_over_nothing_that_it_could_not_bring_back(album: Album) -> None:
    await album.sh("echo 1 > a")
    first = await album.take()
    await album.sh("rm a; mkfifo a")
    reply = await album.restore(first)
    assert ([each.path for each in reply.skipped], reply.exact, await album.sh("test -p a && echo pipe")) == (
        ["a"],
        False,
        "pipe",
    )


async def test_a_restore_works_in_folders_that_are_closed(album: Album) -> None:
    await album.sh("mkdir d; echo 1 > d/f")
    first = await album.take()
    await album.sh("echo 2 > d/f; echo 3 > d/g; chmod 500 d")
    assert (await album.restore(first)).exact


async def test_an_unknown_snapshot_is_not_found(album: Album, desk: Any) -> None:
    other = Album(desk, await desk.workspace(None))
    taken = await other.take()
    for id in ("none", taken.id):
        with pytest.raises(NotFound):
            await album.names(id)


async def test_a_snapshot_without_files_is_a_conflict(album: Album) -> None:
    row = Snapshot(task_id=album.workspace.id, kind="turn", error="it took too long", created_by="me")
    await album.house.snapshots._record(row)
    with pytest.raises(Conflict, match="it took too long"):
        await album.restore(row)


async def test_base_is_what_was_there_before_the_first_agent(album: Album) -> None:
    with pytest.raises(NotFound):
        await album.names("base", "base")
    await album.house.snapshots.at_start(album.agent())
    await album.sh("echo x > x")
    taken = await album.take()
    assert await album.names("base", taken.id) == ["x"]


async def test_by_itself_a_snapshot_is_only_kept_if_something_changed(album: Album) -> None:
    agent = album.agent()
    await album.house.snapshots.at_start(agent)
    await album.house.snapshots.at_start(agent)
    await album.sh("touch a.txt")
    await album.house.snapshots.at_start(agent)
    assert [row.kind for row in await album.all()] == ["start"]


async def test_a_snapshot_reads_again_only_what_changed(album: Album) -> None:
    first = await album.take()
    await album.sh("cp -p a.txt b.txt; touch -r a.txt b.txt")  # as long as before, and as old
    assert await album.names(first.id) == ["b.txt"]


async def test_what_changed_since_a_moment_is_told_without_a_row(album: Album) -> None:
    before = await album.house.looks.changed_since(album.workspace.id, None)
    await album.sh("echo x > x; rm a.txt")
    after = await album.house.looks.changed_since(album.workspace.id, before.moment)
    assert (before.paths, after.paths, after.count) == ((), ("a.txt", "x"), 2)
    again = await album.house.looks.changed_since(album.workspace.id, after.moment)
    assert (again.count, await album.all()) == (0, [])


async def test_what_changed_is_unknown_without_a_workspace(desk: Any) -> None:
    assert await desk.house.looks.changed_since("none", None) is None


async def test_the_repository_of_snapshots_heals_after_it_lost_objects(album: Album, tmp_path: Path) -> None:
    await album.take()
    for path in (tmp_path / "data/workspaces" / album.workspace.id / "snapshots/git/objects").rglob("*"):
        if path.is_file():
            path.unlink()
    taken = await album.take()
    assert (taken.files, await album.names(taken.id)) == (2, [])


MAPPED = """
import mmap, os
open("mapped", "w").write("good")
file = open("mapped", "r+b")
mapped = mmap.mmap(file.fileno(), 0)
mapped[0:4] = b"good"
print("ready", flush=True)
input()
mapped[0:4] = b"evil"
print("done", flush=True)
input()
"""


async def test_p18_a_snapshot_has_what_an_agent_writes_without_a_new_time(album: Album) -> None:
    runtime = album.house.runtimes["bwrap"]
    spec = ProcessSpec(workspace_id=album.workspace.id, command=("python3", "-c", MAPPED))
    with anyio.fail_after(50):
        async with runtime.spawn(spec) as process:
            assert await process.receive() == b"ready\n"
            first = await album.take()
            await process.send(b"\n")
            assert await process.receive() == b"done\n"
            second = await album.take()
    assert await album.names(first.id, second.id) == ["mapped"]
