"""What every runtime must do with a place: its folders, what is in them, and that nothing leads out of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from kandev_host import FileEntry, Runtime, errors
from kandev_host.testing.runtime.base import HOLD, RuntimeSuite, line, needs, sh


@pytest.mark.anyio
class PlaceContract(RuntimeSuite):
    """The tests. They use only what `Runtime` promises of workspaces."""

    async def test_files_stay_in_workspace_and_home(self, runtime: Runtime) -> None:
        await runtime.run(sh("echo 1 > file; echo 2 > ~/file"))
        await runtime.prepare("w1")
        assert (await runtime.run(sh("cat file ~/file"))).stdout == b"1\n2\n"

    async def test_files_of_one_place_are_in_no_other(self, runtime: Runtime) -> None:
        await runtime.run(sh("echo 1 > file; echo 2 > ~/file"))
        assert (await runtime.run(sh("cat file ~/file 2>/dev/null; echo none", workspace="w2"))).stdout == b"none\n"

    @pytest.mark.parametrize("id", ["../x", "", "a/b", ".", "..", "-x", "a\0b", "x" * 65])
    async def test_a_workspace_id_is_no_path(self, runtime: Runtime, id: str) -> None:
        with pytest.raises(errors.ValidationFailed):
            await runtime.prepare(id)
        with pytest.raises(errors.ValidationFailed):
            await runtime.remove(id)

    async def test_remove_deletes_all_also_closed_folders(self, runtime: Runtime) -> None:
        await runtime.run(sh("mkdir -p a/b && touch a/b/c && chmod 500 a/b a; touch ~/file; mkfifo fifo"))
        await runtime.remove("w1")
        await runtime.remove("w1")
        with pytest.raises(errors.NotFound):
            await runtime.run(sh("true"))
        await runtime.prepare("w1")
        assert (await runtime.run(sh("ls -A; ls ~/file 2>/dev/null"))).stdout == b""

    async def test_remove_follows_no_link(self, runtime: Runtime, tmp_path: Path) -> None:
        (tmp_path / "victim").mkdir()
        (tmp_path / "victim" / "file").touch()
        await runtime.run(sh('ln -s "$1" link', str(tmp_path / "victim")))
        await runtime.remove("w1")
        assert (tmp_path / "victim" / "file").exists()

    async def test_a_place_in_use_is_not_removed(self, runtime: Runtime) -> None:
        async with runtime.spawn(sh(HOLD, "lock")) as process:
            await line(process)
            with pytest.raises(errors.Conflict):
                await runtime.remove("w1")
        await runtime.remove("w1")

    # --- the home -----------------------------------------------------------------------------------------------------

    async def test_write_home_makes_a_file_once(self, runtime: Runtime) -> None:
        await runtime.write_home("w1", ".config/agent/settings.json", b"first")
        await runtime.write_home("w1", ".config/agent/settings.json", b"second")
        result = await runtime.run(sh("cat ~/.config/agent/settings.json; echo more >> ~/.config/agent/settings.json"))
        assert (result.stdout, result.exit_code) == (b"first", 0)

    async def test_write_home_follows_no_link(self, runtime: Runtime, tmp_path: Path) -> None:
        (tmp_path / "victim").mkdir(mode=0o777)
        await runtime.run(sh('ln -s "$1" ~/linked; ln -s "$1/file" ~/dangling', str(tmp_path / "victim")))
        with pytest.raises(errors.ValidationFailed):
            await runtime.write_home("w1", "linked/file", b"x")
        await runtime.write_home("w1", "dangling", b"x")
        assert list((tmp_path / "victim").iterdir()) == []

    @pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "", "."])
    async def test_write_home_stays_in_the_home(self, runtime: Runtime, path: str) -> None:
        with pytest.raises(errors.ValidationFailed):
            await runtime.write_home("w1", path, b"x")

    # --- files --------------------------------------------------------------------------------------------------------

    async def test_files_are_listed_and_read_while_a_process_runs(self, runtime: Runtime) -> None:
        script = "mkdir a; printf 0123456789 > a/b; ln -s a/b c; echo up; read -r said"
        async with runtime.spawn(sh(script)) as process:
            await line(process)
            found = await runtime.list_files("w1", "", 2, 100)
            part = await runtime.read_file("w1", "a/b", 2, 3)
        assert [(entry.path, entry.kind, entry.size_bytes, entry.target) for entry in found] == [
            ("a", "directory", None, None),
            ("a/b", "file", 10, None),
            ("c", "symlink", None, "a/b"),
        ]
        assert (part.content, part.offset, part.size_bytes) == (b"234", 2, 10)

    async def test_a_listing_has_bounds_and_goes_on_behind_an_entry(self, runtime: Runtime) -> None:
        await runtime.run(sh("mkdir -p a/b/c; touch d e f"))
        assert paths(await runtime.list_files("w1", "", 1, 10)) == ["a", "d", "e", "f"]
        assert paths(await runtime.list_files("w1", "a", 1, 10)) == ["a/b"]
        assert paths(await runtime.list_files("w1", "", 1, 2, "a")) == ["d", "e"]

    async def test_a_link_in_a_workspace_is_not_followed(self, runtime: Runtime, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("secret")
        await runtime.run(sh('ln -s "$1/secret" file; ln -s "$1" folder', str(tmp_path)))
        for path in ("file", "folder/secret", "../home/x", "/etc/passwd"):
            with pytest.raises(errors.ValidationFailed) as caught:
                await runtime.read_file("w1", path, 0, 100)
            assert caught.value.details == {"field": "path"}
        with pytest.raises(errors.ValidationFailed):
            await runtime.list_files("w1", "folder", 1, 100)
        assert paths(await runtime.list_files("w1", "", 9, 100)) == ["file", "folder"]

    async def test_what_is_no_regular_file_is_not_read(self, runtime: Runtime) -> None:
        await runtime.run(sh("mkfifo fifo; mkdir folder"))
        for path in ("fifo", "folder"):
            with pytest.raises(errors.ValidationFailed):
                await runtime.read_file("w1", path, 0, 100)

    async def test_what_a_workspace_does_not_have_is_not_found(self, runtime: Runtime) -> None:
        with pytest.raises(errors.NotFound):
            await runtime.read_file("w1", "x\udcff", 0, 100)
        with pytest.raises(errors.NotFound):
            await runtime.list_files("w9", "", 1, 100)
        with pytest.raises(errors.NotFound):
            await runtime.use("w9")

    async def test_the_use_of_a_place_grows_with_what_is_in_it(self, runtime: Runtime) -> None:
        before = await runtime.use("w1")
        await runtime.run(sh("head -c 1048576 /dev/zero > file; head -c 1048576 /dev/zero > ~/file"))
        after = await runtime.use("w1")
        assert after.bytes - before.bytes >= 2 << 20
        assert after.inodes - before.inodes == 2

    # --- what is asked for of one process -----------------------------------------------------------------------------

    @needs("read_only")
    async def test_a_read_only_workspace_cannot_be_written(self, runtime: Runtime) -> None:
        await runtime.run(sh("echo kept > a"))
        script = "cat a; touch b; echo changed > a; rm a; mount -o remount,rw /workspace; touch b; touch ~/c"
        result = await runtime.run(sh(script, read_only=True))
        assert (result.exit_code, result.stdout) == (0, b"kept\n")
        assert (await runtime.run(sh("ls; cat a"))).stdout == b"a\nkept\n"

    @needs("snapshots")
    async def test_snapshots_are_seen_by_those_that_make_them_alone(self, runtime: Runtime) -> None:
        await runtime.run(sh("echo 1 > file; echo 2 > ~/secret"))
        made = await runtime.run(sh("cp file /snapshots/one; cat ~/secret", snapshots=True))
        assert made.stdout == b""
        assert (await runtime.run(sh("cat /snapshots/one", snapshots=True))).stdout == b"1\n"
        assert (await runtime.run(sh("test -e /snapshots/one"))).exit_code == 1


def paths(entries: list[FileEntry]) -> list[str]:
    return [entry.path for entry in entries]
