"""MCP servers and directories: named in requests, defined in the settings, and there for the agent."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from acp import schema

from kandev_host import AgentType, Mount
from kandev_host.errors import SettingsError, ValidationFailed
from kandev_host.models import AgentInstance, Session, Task
from kandev_host.protocol.actions.agents import AgentLaunch, AgentPrompt
from kandev_host.protocol.actions.tasks import TaskUpdate
from kandev_host.services.directories import Directories
from kandev_host.services.launches import process_spec
from kandev_host.settings import DirectorySettings, McpSettings, Settings
from kandev_host.testing import scripted_mcp

pytestmark = pytest.mark.anyio

SECRET = "sk-of-the-server"
HTTP = {"tickets": McpSettings(url="http://127.0.0.1:8377/mcp", headers={"Authorization": "Bearer ${TICKETS_TOKEN}"},
                               env_required=("TICKETS_TOKEN",))}  # fmt: skip


def a_server(folder: Path) -> McpSettings:
    """One that is a program of its own, in a folder that no jail sees by itself."""
    folder.mkdir(mode=0o755)
    program = folder / "notes-server"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S -c {shlex.quote(source())} "$@"\n')
    program.chmod(0o755)
    return McpSettings(command=(str(program), "--quiet"), env={"NOTES_TOKEN": SECRET})


def source() -> str:
    return Path(scripted_mcp.__file__).read_text()


async def test_a_server_of_the_settings_is_started_by_the_agent_in_its_jail(open_shop: Any, tmp_path: Path) -> None:
    settings = Settings(mcp={"notes": a_server(tmp_path / "tools")})
    async with open_shop(settings, task={"mcp_servers": ["notes"]}) as shop:
        arguments = {"variable": "NOTES_TOKEN"}
        said = await shop.plays({"mcp": {"server": "notes", "arguments": arguments}, "backwards": True})
    assert json.loads(said[::-1]) == {"variable": SECRET, "path": None, "arguments": ["--quiet"]}


async def test_what_opens_a_session_is_valid_in_the_sdks_schema(
    open_shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TICKETS_TOKEN", SECRET)
    settings = Settings(mcp={"notes": a_server(tmp_path / "tools"), **HTTP})
    script = {"initialize": {"agentCapabilities": {"mcpCapabilities": {"http": True}}}}
    async with open_shop(settings, script, mcp_servers=("notes", "tickets")) as shop:
        params = json.loads((await shop.plays({"equipment": True, "backwards": True}))[::-1])
    known = schema.NewSessionRequest.model_validate(params)
    assert known.model_dump(by_alias=True, exclude_unset=True, mode="json") == params
    stdio, http = known.mcp_servers
    assert (stdio.name, stdio.command, stdio.args) == ("notes", str(tmp_path / "tools/notes-server"), ["--quiet"])
    assert (http.type, http.headers[0].value) == ("http", f"Bearer {SECRET}")


async def test_an_http_server_goes_only_to_agents_that_take_one(
    open_shop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TICKETS_TOKEN", SECRET)
    async with open_shop(Settings(mcp=HTTP), task={"mcp_servers": ["tickets"]}) as shop:
        assert json.loads(await shop.plays({"equipment": True}))["mcpServers"] == []
        told = await shop.heard("acp.error")
    assert told["code"] == "MCP_NOT_OFFERED"
    assert "'tickets'" in told["message"]


async def test_the_secrets_of_a_server_are_in_no_row_event_or_argument(
    open_shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TICKETS_TOKEN", SECRET)
    settings = Settings(mcp={"notes": a_server(tmp_path / "tools"), **HTTP})
    async with open_shop(settings, task={"mcp_servers": ["notes", "tickets"]}) as shop:
        await shop.plays({"text": "Done."})
        lines = [
            (Path("/proc") / name / "cmdline").read_bytes() for name in os.listdir("/proc") if name.isdigit()
            if (Path("/proc") / name / "cmdline").exists()
        ]  # fmt: skip
        events = [bytes(item.payload) for item in shop.house.events]
        (session,) = (await shop.house.store.find(Session)).rows
    kept = b"".join(file.read_bytes() for file in (tmp_path / "data").glob("*.db*"))
    assert session.opened == "new"
    assert kept
    assert not any(SECRET.encode() in text for text in (*lines, *events, kept))


async def test_each_secret_that_a_server_is_given_is_written_down(
    open_shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TICKETS_TOKEN", SECRET)
    settings = Settings(mcp={"notes": a_server(tmp_path / "tools"), **HTTP})
    async with open_shop(settings, task={"mcp_servers": ["notes", "tickets"]}) as shop:
        await shop.plays({"text": "Done."})
        assert used(shop) == [
            ("MCP server notes", "NOTES_TOKEN", True, "handed out"),
            ("MCP server tickets", "TICKETS_TOKEN", True, "handed out"),
            ("MCP server tickets", "header Authorization", True, "handed out"),
        ]


async def test_of_servers_that_cannot_be_had_what_is_missing_is_written_down_and_nothing_is_handed_out(
    open_shop: Any, tmp_path: Path
) -> None:
    gone = McpSettings(command=("sh",), env_required=("NO_SUCH_VARIABLE",), env={"LEVEL": "debug"})
    settings = Settings(mcp={"notes": a_server(tmp_path / "tools"), "gone": gone})
    async with open_shop(settings, task={"mcp_servers": ["notes", "gone"]}) as shop:
        await shop.house.agents.launch(shop.house.me, AgentLaunch(task_id=shop.task.id, agent_type="scripted"))
        await shop.failed()
        assert used(shop) == [("MCP server gone", "NO_SUCH_VARIABLE", False, "not set for the host")]


def used(shop: Any) -> list[tuple[str, str, bool, str]]:
    rows = [json.loads(bytes(item.payload)) for item in shop.house.events if item.action == "credential.used"]
    return [(row["name"], row["what"], row["allowed"], row["reason"]) for row in rows]


async def test_a_task_names_only_servers_and_directories_of_the_settings(open_shop: Any, tmp_path: Path) -> None:
    settings = Settings(mcp=HTTP, directories={"books": DirectorySettings(path=str(tmp_path / "books"))})
    async with open_shop(settings, task={"mcp_servers": ["tickets"], "directories": ["books"]}) as shop:
        assert (shop.task.mcp_servers, shop.task.directories) == (("tickets",), ("books",))
        for field, known in (("mcp_servers", ["tickets"]), ("directories", ["books"])):
            request = TaskUpdate(task_id=shop.task.id, **{field: [known[0], "sh"]})  # type: ignore[arg-type]
            with pytest.raises(ValidationFailed) as caught:
                await shop.house.tasks.update(shop.house.me, request)
            assert caught.value.details == {"field": f"{field}[1]", "known": known}
        cleared = TaskUpdate(task_id=shop.task.id, mcp_servers=[], directories=[])
        assert (await shop.house.tasks.update(shop.house.me, cleared)).task.mcp_servers == ()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (McpSettings(command=("no-such-server",)), "install no-such-server"),
        (McpSettings(command=("sh",), env_required=("NO_SUCH_VARIABLE",)), "needs the variable NO_SUCH_VARIABLE"),
    ],
)
async def test_a_server_that_cannot_be_had_fails_the_run_and_says_why(
    open_shop: Any, settings: McpSettings, told: str
) -> None:
    async with open_shop(Settings(mcp={"gone": settings}), task={"mcp_servers": ["gone"]}) as shop:
        launch = AgentLaunch(task_id=shop.task.id, agent_type="scripted")
        await shop.house.agents.launch(shop.house.me, launch)
        agent = await shop.failed()
    assert agent.failure == "config"
    assert told in str(agent.error_message)


# --- directories ------------------------------------------------------------------------------------------------------


def folders(tmp_path: Path, **fields: Any) -> Settings:
    """A folder that anybody may write to: what keeps an agent from that is the jail."""
    books = tmp_path / "books"
    books.mkdir()
    books.chmod(0o777)
    (books / "guide.txt").write_text("Read me.")
    (books / "guide.txt").chmod(0o666)
    return Settings(directories={"books": DirectorySettings(path=str(books), **fields)}, mcp={"look": look()})


def look() -> McpSettings:
    return McpSettings(command=("sh", "-c", f"exec {sys.executable} -I -S -c {shlex.quote(source())}"))


READ = {"mcp": {"server": "look", "arguments": {"path": "/directories/books/guide.txt"}}}
WRITE = {"write": {"path": "/directories/books/guide.txt", "text": "Written."}}


async def test_a_directory_is_there_and_read_only(open_shop: Any, tmp_path: Path) -> None:
    given = {"mcp_servers": ["look"], "directories": ["books"]}
    async with open_shop(folders(tmp_path), task=given) as shop:
        assert json.loads(await shop.plays(READ))["path"] == "Read me."
        (agent,) = (await shop.house.store.find(AgentInstance)).rows
        await shop.house.agents.prompt(shop.house.me, AgentPrompt(agent_id=agent.id, prompt=json.dumps([WRITE])))
        await shop.failed()
    assert (tmp_path / "books/guide.txt").read_text() == "Read me."


async def test_a_directory_that_may_be_changed_can_be_changed(open_shop: Any, tmp_path: Path) -> None:
    async with open_shop(folders(tmp_path, read_only=False), directories=("books",)) as shop:
        await shop.plays(WRITE, {"text": "Done."})
    assert (tmp_path / "books/guide.txt").read_text() == "Written."


def test_a_run_that_may_write_nothing_can_change_no_directory() -> None:
    kind = AgentType(name="scripted", command=("agent",))
    task = Task(board_id="b", title="t", description="", created_by="me")
    agent = AgentInstance(task_id=task.id, agent_type="scripted", runtime="bwrap")
    mount = Mount("/srv/books", "/directories/books", read_only=False)
    for read_only in (True, False):
        spec = process_spec(kind, agent, task, read_only=read_only, directories=[mount])
        assert [one.read_only for one in spec.mounts] == [read_only]


@pytest.mark.parametrize("takes", [True, False])
async def test_directories_are_named_to_agents_that_take_them(open_shop: Any, tmp_path: Path, takes: bool) -> None:
    capabilities = {"sessionCapabilities": {"additionalDirectories": {}} if takes else {}}
    script = {"initialize": {"agentCapabilities": capabilities}}
    async with open_shop(folders(tmp_path), script, directories=("books",)) as shop:
        params = json.loads(await shop.plays({"equipment": True}))
    assert params.get("additionalDirectories") == (["/directories/books"] if takes else None)
    schema.NewSessionRequest.model_validate(params)


async def test_a_directory_that_is_gone_fails_the_run(open_shop: Any, tmp_path: Path) -> None:
    settings = folders(tmp_path)
    async with open_shop(settings, directories=("books",)) as shop:
        shutil.rmtree(tmp_path / "books")
        await shop.house.agents.launch(shop.house.me, AgentLaunch(task_id=shop.task.id, agent_type="scripted"))
        agent = await shop.failed()
    assert (agent.failure, "'books' is not there" in str(agent.error_message)) == ("config", True)


@pytest.mark.parametrize(
    ("paths", "told"),
    [
        ({"all": "/"}, "would show your home"),
        ({"home": "~/"}, "would show your home"),
        ({"token": "{private}/sub"}, "is in the host's own folder"),
        ({"above": "{private}/.."}, "would show the host's own folder"),
        ({"link": "{private}-link"}, "is in the host's own folder"),
        ({"outer": "/srv/a", "inner": "/srv/a/b"}, "which agents may change"),
    ],
)
def test_no_directory_shows_the_home_the_token_or_what_an_agent_could_move(
    tmp_path: Path, paths: dict[str, str], told: str
) -> None:
    private = tmp_path / "host" / "data"
    private.mkdir(parents=True)
    (tmp_path / "host" / "data-link").symlink_to(private / "uids")
    settings = {
        name: DirectorySettings(path=path.format(private=private), read_only=False) for name, path in paths.items()
    }
    with pytest.raises(SettingsError, match=told):
        Directories(settings, private)


async def test_without_a_jail_a_directory_is_the_users_own(tmp_path: Path) -> None:
    class Plain:
        confines = False

    settings = folders(tmp_path)
    kind = AgentType(name="scripted", command=("agent",), directories=("books",))
    task = Task(board_id="b", title="t", description="", created_by="me")
    _, paths = Directories(settings.directories).of(kind, task, Plain())  # type: ignore[arg-type]
    assert paths == (str(tmp_path / "books"),)
