"""What agents in real jails are given of credentials: nowhere in the jail is what the host logs in with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from kandev_host import AgentType, Principal
from kandev_host.errors import Conflict, Forbidden, ValidationFailed
from kandev_host.models import AgentInstance, Task
from kandev_host.protocol.actions.tasks import TaskCreate, TaskUpdate
from kandev_host.services.credentials.files import check_login, check_network
from kandev_host.services.credentials.handed import Handed
from kandev_host.services.launches import process_spec
from kandev_host.settings import CredentialSettings

pytestmark = pytest.mark.anyio

FETCH = CredentialSettings(git="fetch")
PUSH = CredentialSettings(git="push")


LOOK = """
GIT_TRACE_CURL=1 GIT_TRACE_REDACT=0 git clone {url} /tmp/clone && cat /tmp/clone/read.me
cd /tmp/clone && echo new > new && git add . && git -c user.name=a -c user.email=a@a commit -qm second
git push origin HEAD:main && echo pushed
{{ cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline; cat /etc/*; env; git config --list --show-origin; }} 2>/dev/null
find /workspace /home /tmp /run /dev/shm -type f ! -path /workspace/out -exec cat {{}} + 2>/dev/null
printf 'protocol=https\\nhost=localhost:{port}\\n\\n' | GIT_TERMINAL_PROMPT=0 git credential fill
echo done
"""


@pytest.mark.parametrize("way", [FETCH, PUSH])
async def test_git_of_an_agent_works_and_its_jail_holds_no_secret(
    open_work: Any, server: Any, tmp_path: Path, way: CredentialSettings
) -> None:
    url = f"{server.base}/team/app.git"
    credentials = {"app": CredentialSettings(git=way.git, repository=url)}
    script = LOOK.format(url=url, port=server.port)
    async with open_work(tmp_path, script, credentials, credentials=("app",)) as work:
        await work.run()
        said = await work.said()
        used = work.used()
        rows = b"".join(bytes(item.payload) for item in work.house.events)
    assert "this is app" in said
    assert ("\npushed\n" in said) == (way.git == "push")
    assert said.endswith("done\n")
    assert "KANDEV_AGENT_ID" in said  # it did look into the environment
    stored = b"".join(file.read_bytes() for file in (tmp_path / "data").glob("*.db*"))
    for text in (said.encode(), rows, stored):
        assert server.token.encode() not in text
    assert {(each["name"], each["way"], each["what"]) for each in used} == {("app", "git", url)}
    assert ("push", way.git == "push") in {(each["verb"], each["allowed"]) for each in used}


@pytest.mark.parametrize("network", ["allowlist", "host"])
async def test_git_reaches_the_host_from_every_network(
    open_work: Any, server: Any, tmp_path: Path, network: str
) -> None:
    url = f"{server.base}/team/app"
    there = {"app": CredentialSettings(git="fetch", repository=url)}
    async with open_work(tmp_path, f"git ls-remote {url}", there, credentials=("app",), network=network) as work:
        await work.run()
        assert "refs/heads/main" in await work.said()


async def test_the_repository_of_the_task_must_be_there(open_work: Any, tmp_path: Path) -> None:
    async with open_work(tmp_path, "true", {"own": FETCH}, task={"credentials": ["own"]}) as work:
        told = str((await work.run()).error_message)
    assert "is for the repository of the task, which has none" in told


async def test_variables_are_handed_out_and_written_down(
    open_work: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = f"canary{os.urandom(16).hex()}"
    monkeypatch.setenv("GITHUB_TOKEN", value)
    monkeypatch.setenv("OTHER_TOKEN", f"other{value}")
    credentials = {"github": CredentialSettings(variables=("GITHUB_TOKEN",))}
    async with open_work(tmp_path, "env", credentials, task={"credentials": ["github"]}) as work:
        await work.run()
        said = await work.said()
        rows = b"".join(bytes(item.payload) for item in work.house.events)
        (used,) = work.used()
    assert f"GITHUB_TOKEN={value}\n" in said
    assert "OTHER_TOKEN" not in said
    assert (used["name"], used["way"], used["what"], used["reason"]) == (
        "github",
        "variable",
        "GITHUB_TOKEN",
        "handed out",
    )
    assert value.encode() not in rows


async def test_a_variable_that_is_not_set_is_said_and_nothing_starts(open_work: Any, tmp_path: Path) -> None:
    credentials = {"ci": CredentialSettings(variables=("NO_SUCH_VARIABLE",))}
    async with open_work(tmp_path, "echo ran", credentials, credentials=("ci",)) as work:
        agent = await work.run()
        (used,) = work.used()
    assert (agent.status, agent.process_ref) == ("FAILED", None)
    assert "needs the variable NO_SUCH_VARIABLE; set it for the host" in str(agent.error_message)
    assert (used["allowed"], used["reason"]) == (False, "not set for the host")


async def test_what_an_agent_type_takes_by_itself_is_written_down_too(
    open_work: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", f"canary{os.urandom(8).hex()}")
    async with open_work(tmp_path, "true", {}, env_optional=("SOME_API_KEY", "NOT_SET_KEY")) as work:
        await work.run()
        used = work.used()
    assert [(each["name"], each["what"], each["allowed"]) for each in used] == [("agent type", "SOME_API_KEY", True)]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the host's user, with a configuration that everybody may read and a key that nobody else may."""
    folder = tmp_path / "home"
    (folder / ".ssh").mkdir(parents=True)
    (folder / ".gitconfig").write_text("[user]\n\tname = Somebody\n")
    (folder / ".ssh/id").write_text("key\n")
    (folder / ".ssh/id").chmod(0o600)
    (folder / ".ssh/known_hosts").write_text("hosts\n")
    monkeypatch.setenv("HOME", str(folder))
    return folder


FILES = {"files": CredentialSettings(files=("~/.gitconfig", "~/.ssh/known_hosts"))}


@pytest.mark.usefixtures("home")
async def test_named_files_of_the_home_are_there_to_be_read_alone(open_work: Any, tmp_path: Path) -> None:
    script = "git config --global user.name; cat ~/.ssh/known_hosts; ls ~/.ssh; echo x >> ~/.gitconfig"
    async with open_work(tmp_path, script, FILES, credentials=("files",)) as work:
        await work.run()
        said = await work.said()
        used = work.used()
    assert said.splitlines()[:3] == ["Somebody", "hosts", "known_hosts"]
    assert "cannot create" in said
    assert [(each["way"], each["what"], each["allowed"]) for each in used] == [
        ("file", "~/.gitconfig", True),
        ("file", "~/.ssh/known_hosts", True),
    ]


@pytest.mark.usefixtures("home")
async def test_files_are_refused_to_an_agent_with_an_open_network_unless_forced(open_work: Any, tmp_path: Path) -> None:
    reach: Any = {"network": "host", "credentials": ("files",)}
    async with open_work(tmp_path / "a", "true", FILES, **reach) as work:
        told = str((await work.run()).error_message)
        assert [(each["name"], each["way"], each["what"], each["allowed"]) for each in work.used()] == [
            ("files", "file", "~/.gitconfig", False),
            ("files", "file", "~/.ssh/known_hosts", False),
        ]
    assert "what an agent can read it can pass on" in told
    assert "open_network = true in [credentials.files]" in told
    forced = {"files": CredentialSettings(files=("~/.gitconfig",), open_network=True)}
    async with open_work(tmp_path / "b", "cat ~/.gitconfig", forced, **reach) as work:
        await work.run()
        assert "Somebody" in await work.said()


SHARED: Any = {"login_files": (".ssh", ".gitconfig"), "share_login": (".gitconfig",)}


@pytest.mark.usefixtures("home")
async def test_a_shared_log_in_is_refused_with_an_open_network_unless_handed_out_by_a_credential_that_forces_it(
    open_work: Any, tmp_path: Path
) -> None:
    async with open_work(tmp_path / "a", "true", {}, network="host", **SHARED) as work:
        agent = await work.run()
        (used,) = work.used()
    assert (agent.failure, agent.process_ref) == ("config", None)
    assert "[agents.sh] share_login hands out ~/.gitconfig, and sh has the network" in str(agent.error_message)
    assert 'files = ["~/.gitconfig"] and open_network = true' in str(agent.error_message)
    assert (used["name"], used["what"], used["allowed"]) == ("agent type", "~/.gitconfig", False)
    async with open_work(tmp_path / "b", "cat ~/.gitconfig", {}, network="allowlist", **SHARED) as work:
        await work.run()
        assert "Somebody" in await work.said()


@pytest.mark.usefixtures("home")
async def test_the_same_file_named_twice_is_mounted_once(open_work: Any, tmp_path: Path) -> None:
    twice = {name: CredentialSettings(files=("~/.gitconfig",)) for name in ("a", "b")}
    both: Any = {**SHARED, "credentials": ("a", "b")}
    async with open_work(tmp_path / "a", "cat ~/.gitconfig", twice, **both) as work:
        await work.run()
        assert "Somebody" in await work.said()
        assert [each["name"] for each in work.used()] == ["agent type", "a", "b"]


async def test_what_a_jail_can_never_be_fails_the_run_as_a_wrong_setting_with_its_fix(
    open_work: Any, tmp_path: Path
) -> None:
    async with open_work(tmp_path, "true", {}, network="allowlist", allow=("*.com",)) as work:
        agent = await work.run()
    assert agent.failure == "config"
    assert "Fix: name the domain, as in *.example.org" in str(agent.error_message)


@pytest.mark.parametrize(
    ("path", "private", "told"),
    [
        (".ssh", ".data", "names .ssh, which is no file"),
        (".gitconfig", "", "the host's own folder is there"),
        ("../x", ".data", "is not a path below the home"),
    ],
)
def test_a_shared_log_in_is_a_file_of_the_home_and_none_of_the_hosts(
    home: Path, path: str, private: str, told: str
) -> None:
    kind = AgentType(name="a", command=("a",), login_files=(path,), share_login=(path,))
    with pytest.raises((Conflict, ValidationFailed), match=told):
        check_login(path, kind, home / private)


@pytest.mark.parametrize("entry", ["*", "*.com", "*:443", "*.com:443"])
def test_an_allowlist_of_everything_is_an_open_network(entry: str) -> None:
    with pytest.raises(Conflict, match="may reach"):
        check_network("files", AgentType(name="a", command=("a",), network="allowlist", allow=("a.example", entry)))
    check_network("files", AgentType(name="a", command=("a",), network="allowlist", allow=("*.example.com",)))


@pytest.mark.parametrize(
    ("path", "told"),
    [("~/.none", "No such file"), ("~/.ssh/sub", "which is no file")],
)
async def test_only_files_that_are_there_are_handed_out(
    open_work: Any, tmp_path: Path, home: Path, path: str, told: str
) -> None:
    (home / ".ssh/sub").mkdir()
    credentials = {"files": CredentialSettings(files=(path,))}
    async with open_work(tmp_path, "true", credentials, credentials=("files",)) as work:
        assert told in str((await work.run()).error_message)


async def test_a_credential_is_kept_from_other_agent_types(open_work: Any, tmp_path: Path) -> None:
    credentials = {"app": CredentialSettings(git="fetch", agent_types=("gemini",))}
    async with open_work(tmp_path, "true", credentials, task={"credentials": ["app"]}) as work:
        told = str((await work.run()).error_message)
        (used,) = work.used()
    assert "add 'sh' to agent_types of [credentials.app]" in told
    assert (used["allowed"], used["reason"]) == (False, "not for the agent type sh")


async def test_an_agent_cannot_name_credentials(open_work: Any, tmp_path: Path) -> None:
    agent = Principal("a", "agent", "a", frozenset({"*"}))
    async with open_work(tmp_path, "true", {"app": FETCH}) as work:
        with pytest.raises(Forbidden):
            await work.house.tasks.update(agent, TaskUpdate(task_id=work.task.id, credentials=["app"]))
        with pytest.raises(ValidationFailed) as caught:
            await work.house.tasks.update(work.house.me, TaskUpdate(task_id=work.task.id, credentials=["ap"]))
    assert caught.value.details["known"] == ["app"]


async def test_an_agent_cannot_lead_a_credential_to_another_repository(open_work: Any, tmp_path: Path) -> None:
    agent, url = Principal("a", "agent", "a", frozenset({"*"})), "https://git.example.org/team/other.git"
    async with open_work(tmp_path, "true", {"own": FETCH}, credentials=("own",)) as work:
        with pytest.raises(Forbidden):
            await work.house.tasks.update(agent, TaskUpdate(task_id=work.task.id, repository_url=url))
        request = TaskCreate(board_id=work.task.board_id, title="t", description="", repository_url=url)
        with pytest.raises(Forbidden):
            await work.house.tasks.create(agent, request)
        await work.house.tasks.update(work.house.me, TaskUpdate(task_id=work.task.id, repository_url=url))


def test_the_ports_of_the_forwarders_are_known_to_end_with_the_host() -> None:
    agent = AgentInstance(task_id="t", agent_type="a", runtime="r")
    task = Task(board_id="b", title="t", description="", created_by="u")
    kind = AgentType(name="a", command=("a",), allow=("127.0.0.1:1",))
    spec = process_spec(kind, agent, task, handed=Handed(allow=("127.0.0.1:2",)))
    assert (spec.allow, spec.passing) == (("127.0.0.1:1", "127.0.0.1:2"), {"127.0.0.1:2"})
