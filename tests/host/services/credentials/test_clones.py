"""Clones of repositories that want a log-in: the host fetches, and the jail of the clone holds no secret either."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from kandev_host.protocol.actions.boards import BoardCreate
from kandev_host.services.git import GitFailed
from kandev_host.settings import RepositorySettings, Settings

pytestmark = pytest.mark.anyio


@pytest.fixture
def open_desk(open_house: Any, make_desk: Any, tmp_path: Path) -> Any:
    @asynccontextmanager
    async def opened(**table: Any) -> AsyncIterator[Any]:
        settings = Settings(repositories={"app": RepositorySettings(match="*app*", **table)})
        async with open_house(tmp_path / "data", [], settings) as house:
            board = (await house.boards.create(house.me, BoardCreate(name="Work"))).board
            yield make_desk(house, board.id)

    return opened


async def test_a_clone_logs_in_where_the_settings_say_so_and_keeps_nothing_of_it(
    open_desk: Any, server: Any, tmp_path: Path
) -> None:
    url = f"{server.base}/team/app.git"
    async with open_desk(credentials=True) as desk:
        workspace = await desk.workspace(url)
        assert await desk.sh(workspace, "cat read.me") == "this is app"
        assert await desk.sh(workspace, "git remote get-url origin") == url
        look = "{ env; find /workspace /home /tmp -type f -exec cat {} +; } | base64 -w 0"
        kept = base64.b64decode(await desk.sh(workspace, look))
        events = [json.loads(bytes(each.payload)) for each in desk.house.events if each.action == "credential.used"]
    assert b"this is app" in kept
    assert server.token.encode() not in kept
    assert b"127.0.0.1" not in kept
    assert {(each["name"], each["what"], each["verb"], each["agent_id"]) for each in events} == {
        ("app", url, "fetch", None)
    }


async def test_a_clone_logs_in_nowhere_by_itself(open_desk: Any, server: Any) -> None:
    async with open_desk() as desk:
        with pytest.raises(GitFailed):
            await desk.workspace(f"{server.base}/team/app.git")
    assert not any(logged_in for _, _, logged_in in server.asked)


async def test_a_clone_that_is_refused_says_why_and_names_the_url(open_desk: Any, server: Any, tmp_path: Path) -> None:
    (tmp_path / "server/store").write_text("")
    url = f"{server.base}/team/app.git"
    async with open_desk(credentials=True) as desk:
        with pytest.raises(GitFailed) as caught:
            await desk.workspace(url)
    assert "the git of kandev-host's user knows none for it" in caught.value.message
    assert f"unable to access '{url}" in caught.value.message
    assert "127.0.0.1" not in caught.value.message
