"""What clients see of a workspace: its files, their contents, what it takes and who needs it."""

from __future__ import annotations

import base64
from typing import Any

import anyio
import msgspec
import pytest

from kandev_host.errors import NotFound, ValidationFailed
from kandev_host.interfaces import Put
from kandev_host.models import QueueEntry, Workspace, new_id
from kandev_host.protocol.actions.workspaces import FilesReply, ReadReply, WorkspaceFiles, WorkspaceGet, WorkspaceRead
from kandev_host.services.workspace_reading import shown
from kandev_host.settings import Settings

pytestmark = pytest.mark.anyio


@pytest.fixture
async def workspace(desk: Any) -> Workspace:
    made: Workspace = await desk.workspace(None)
    return made


async def files(desk: Any, workspace: Workspace, **fields: Any) -> FilesReply:
    request = WorkspaceFiles(task_id=workspace.id, **fields)
    reply: FilesReply = await desk.house.workspace_reading.files(desk.house.me, request)
    msgspec.json.encode(reply)
    return reply


async def read(desk: Any, workspace: Workspace, path: str, **fields: Any) -> ReadReply:
    request = WorkspaceRead(task_id=workspace.id, path=path, **fields)
    reply: ReadReply = await desk.house.workspace_reading.read(desk.house.me, request)
    msgspec.json.encode(reply)
    return reply


async def get(desk: Any, workspace: Workspace) -> Any:
    return await desk.house.workspace_reading.get(desk.house.me, WorkspaceGet(task_id=workspace.id))


async def test_pages_of_files_are_all_files(desk: Any, workspace: Workspace) -> None:
    await desk.sh(workspace, "mkdir -p a/b; touch 1 a/2 a/b/3 z; rm -rf .git", pin_git=False)
    seen, cursor = [], None
    while True:
        page = await files(desk, workspace, depth=64, limit=2, cursor=cursor)
        seen += [entry.path for entry in page.entries]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == ["1", "a", "a/2", "a/b", "a/b/3", "z"]


async def test_a_listing_that_ends_with_its_page_has_no_cursor(desk: Any, workspace: Workspace) -> None:
    await desk.sh(workspace, "touch a; rm -rf .git", pin_git=False)
    assert (await files(desk, workspace, limit=1)).next_cursor is None


async def test_a_name_that_is_not_utf_8_comes_as_base64_and_is_read_by_it(desk: Any, workspace: Workspace) -> None:
    await desk.sh(workspace, "rm -rf .git; n=$(printf 'n\\377'); mkdir $n; echo in > $n/x; touch z", pin_git=False)
    (folder, _) = (await files(desk, workspace)).entries
    assert (folder.path_encoding, base64.b64decode(folder.path)) == ("base64", b"n\xff")
    (inside,) = (await files(desk, workspace, path=folder.path, path_encoding="base64")).entries
    assert (await read(desk, workspace, inside.path, path_encoding=inside.path_encoding)).content == "in\n"
    page = await files(desk, workspace, limit=1)
    assert [entry.path for entry in (await files(desk, workspace, cursor=page.next_cursor)).entries] == ["z"]


async def test_a_name_with_line_breaks_and_escapes_is_one_entry(desk: Any, workspace: Workspace) -> None:
    await desk.sh(workspace, "rm -rf .git; touch \"$(printf 'a\\n\\033[31mb')\"", pin_git=False)
    assert [entry.path for entry in (await files(desk, workspace)).entries] == ["a\n\x1b[31mb"]


async def test_long_paths_make_shorter_pages(desk: Any, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kandev_host.services.workspace_reading.PAGE_BYTES", 5)
    await desk.sh(workspace, "rm -rf .git; touch aaa bbb cccccccccc", pin_git=False)
    first = await files(desk, workspace)
    assert [entry.path for entry in first.entries] == ["aaa"]
    second = await files(desk, workspace, cursor=first.next_cursor)
    third = await files(desk, workspace, cursor=second.next_cursor)
    assert [entry.path for entry in (*second.entries, *third.entries)] == ["bbb", "cccccccccc"]
    assert third.next_cursor is None


@pytest.mark.parametrize("field", ["path", "cursor"])
async def test_what_is_no_base64_is_named(desk: Any, workspace: Workspace, field: str) -> None:
    with pytest.raises(ValidationFailed) as caught:
        await files(desk, workspace, path_encoding="base64", **{field: "?"})
    assert caught.value.details == {"field": field}


async def test_a_file_is_read_in_parts_that_are_whole_characters(desk: Any, workspace: Workspace) -> None:
    text = "aä€😀" * 50
    await desk.sh(workspace, f"printf %s '{text}' > text")
    parts, offset = [], 0
    while True:
        part = await read(desk, workspace, "text", offset=offset, limit=7)
        assert part.encoding == "utf-8"
        parts.append(part.content)
        if part.next_offset is None:
            break
        offset = part.next_offset
    assert ("".join(parts), part.size) == (text, len(text.encode()))


async def test_bytes_come_as_base64(desk: Any, workspace: Workspace) -> None:
    await desk.sh(workspace, "printf 'a\\377\\000' > bytes")
    part = await read(desk, workspace, "bytes")
    assert (part.encoding, base64.b64decode(part.content), part.next_offset) == ("base64", b"a\xff\0", None)


async def test_an_empty_file_is_empty_text(desk: Any, workspace: Workspace) -> None:
    await desk.sh(workspace, "touch empty")
    part = await read(desk, workspace, "empty")
    assert (part.content, part.encoding, part.size, part.next_offset) == ("", "utf-8", 0, None)


async def test_behind_the_end_of_a_file_there_is_nothing_more(desk: Any, workspace: Workspace) -> None:
    await desk.sh(workspace, "echo > x")
    assert (await read(desk, workspace, "x", offset=1 << 62)).next_offset is None


@pytest.mark.parametrize("content", [b"\x01" * 100, b"\x1b" * 20 + b"a" * 100, b"\xe2\x82", b"a\0"])
async def test_what_is_hardly_text_is_told_as_bytes(content: bytes) -> None:
    assert shown(content, whole=True)[1] == "base64"


async def test_a_part_that_is_less_than_a_character_is_bytes() -> None:
    assert shown("€".encode()[:2], whole=False) == (base64.b64encode("€".encode()[:2]).decode(), "base64", 0)


async def test_get_tells_branch_base_and_where_agents_find_it(desk: Any, workspace: Workspace) -> None:
    reply = await get(desk, workspace)
    assert (reply.workspace, reply.path, reply.held_by) == (workspace, "/workspace", [])


async def test_the_queue_holds_the_workspace_of_a_task_that_waits(desk: Any, workspace: Workspace) -> None:
    entry = QueueEntry(id=workspace.id, board_id=desk.board_id, created_by="me")
    await desk.house.journal.record(Put(entry))
    assert [(holder.kind, holder.id) for holder in (await get(desk, workspace)).held_by] == [("queue", workspace.id)]


async def test_an_agent_that_lives_holds_its_workspace(open_shop: Any) -> None:
    async with open_shop(Settings()) as shop:
        await shop.plays({"text": "Done."})
        with anyio.fail_after(60):
            reply = await shop.house.workspace_reading.get(shop.house.me, WorkspaceGet(task_id=shop.task.id))
        assert [holder.kind for holder in reply.held_by] == ["agent"]


async def test_without_workspace_there_is_nothing_to_look_at(desk: Any) -> None:
    task = await desk.task(None)
    for unknown, kind in ((task.id, "workspace"), (new_id(), "task")):
        with pytest.raises(NotFound) as caught:
            await desk.house.workspace_reading.get(desk.house.me, WorkspaceGet(task_id=unknown))
        assert caught.value.details["kind"] == kind
