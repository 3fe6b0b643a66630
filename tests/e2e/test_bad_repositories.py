"""Hostile repositories, and what a hostile agent makes of its own: nothing of them runs or writes on the host."""

from __future__ import annotations

import base64
import os
import shlex
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from kandev_host.client import Client, ClientError
from kandev_sandbox import Policy, Streams, examine, open_jail

pytestmark = pytest.mark.anyio

DEADLINE_S = 60
# Not in volumes: what is left in the folders of a workspace is seen from outside.
HOST_ENV = {"KANDEV_RUNTIME__BWRAP__DISK": "watch"}
Git = Callable[..., str]


@pytest.fixture
async def client(one_host: Any) -> AsyncIterator[Client]:
    """And afterwards the host is well and has had no surprise."""
    said = len(one_host.log())
    async with Client.connect(one_host.url, one_host.token) as client:
        yield client
        assert (await client.call("health.check"))["status"] == "ok"
    assert "Traceback" not in one_host.log()[said:]


@pytest.fixture
def canary() -> Iterator[Path]:
    """A file that only code outside of a jail could make: in a folder that everybody may enter and write to."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        os.chmod(folder, 0o777)
        yield Path(folder) / "ran-on-the-host"


@pytest.fixture
def git(repository: Path) -> Git:
    def run(*arguments: str) -> str:
        env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"}
        return subprocess.run(
            ["git", *arguments], cwd=repository, env=env, check=True, capture_output=True, text=True
        ).stdout

    return run


async def new_task(client: Client, repository: object) -> str:
    board = (await client.call("board.create", {"name": "Work"}))["board"]
    payload = {"board_id": board["id"], "title": "Work", "description": "", "agent_type": "demo"}
    return str((await client.call("task.create", {**payload, "repository_url": str(repository)}))["task"]["id"])


async def run(client: Client, task_id: str, *commands: str) -> str:
    """Let an agent run these commands in its workspace; its id, once its turn is over."""
    prompt = "\n".join(f"run: {command}" for command in commands) or "say: nothing"
    payload = {"task_id": task_id, "prompt": prompt, "preset": "unattended"}
    agent = (await client.call("agent.launch", payload))["agent"]
    with anyio.fail_after(DEADLINE_S):
        async for message in client.notifications():
            if message.action in {"acp.result", "acp.error"} and message.payload["agent_id"] == agent["id"]:
                assert message.action == "acp.result", message.payload
                break
    return str(agent["id"])


async def leave(one_host: Any, task_id: str, *commands: str) -> None:
    """Run these in the workspace with git's configuration open, as it was for agents of a host before the pins."""
    place = one_host.home / "workspaces" / task_id
    owner = place.joinpath("workspace").stat().st_uid
    folders = {name: place / name for name in ("workspace", "home", "tmp")}
    policy = Policy(**folders, uid=owner or None, pin_git=False)
    bwrap = (await examine()).chosen()
    script = ["/bin/sh", "-c", "\n".join(commands)]
    with anyio.fail_after(DEADLINE_S):
        async with open_jail(policy, script, bwrap=bwrap, streams=Streams("null", "null", "null")) as jail:
            await jail.wait()


async def failed(client: Client, task_id: str) -> str:
    """Why an agent of this task could not be started."""
    agent = (await client.call("agent.launch", {"task_id": task_id}))["agent"]
    with anyio.fail_after(DEADLINE_S):
        async for message in client.notifications():
            if message.action == "agent.updated" and message.payload["agent"]["status"] == "FAILED":
                break
    status = await client.call("agent.status", {"agent_id": agent["id"]})
    return str(status["error_message"])


async def answered(client: Client, action: str, payload: object) -> str:
    """OK, or the code of the refusal."""
    try:
        await client.call(action, payload)
    except ClientError as error:
        return error.code
    return "OK"


def ran(canary: Path) -> bool:
    return canary.exists()


def places(host: Any) -> set[str]:
    """What there is of workspaces, and of uids claimed for them."""
    folders = [host.home / "workspaces", host.home / "uids"]
    return {str(path) for folder in folders if folder.is_dir() for path in folder.iterdir()}


def snapshot(folder: Path) -> dict[str, tuple[object, ...]]:
    found = {}
    for path in sorted(folder.rglob("*")):
        info = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path)] = (info.st_uid, info.st_gid, info.st_mode, info.st_nlink, info.st_mtime_ns, content)
    return found


def not_existing(folder: Path) -> object:
    return folder / "nothing"


def not_git(folder: Path) -> object:
    (folder / "plain").mkdir()
    return folder / "plain"


def a_file(folder: Path) -> object:
    (folder / "file").write_text("")
    return folder / "file"


def a_loop(folder: Path) -> object:
    (folder / "loop").symlink_to("loop")
    return folder / "loop"


def git_is_a_loop(folder: Path) -> object:
    (folder / ".git").symlink_to(".git")
    return folder


def git_is_a_fifo(folder: Path) -> object:
    os.mkfifo(folder / ".git")
    return folder


def git_file(content: bytes) -> Callable[[Path], object]:
    def make(folder: Path) -> object:
        (folder / ".git").write_bytes(content)
        return folder

    return make


def skeleton(folder: Path, name: str, content: bytes) -> object:
    """What looks like a git folder, with one file in it."""
    for inner in ("objects/info", "refs/heads", "info"):
        (folder / ".git" / inner).mkdir(parents=True)
    (folder / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    (folder / ".git" / name).write_bytes(content)
    return folder


@pytest.mark.parametrize(
    "url",
    ["-x", "--upload-pack=touch /tmp/x", "ext::sh -c id", "fd::17", "https://user:secret@host/x", "relative/path",
     "file://elsewhere/x", "ssh://-oProxyCommand=id/x", "/a\0b", "/a\nb", "C:\\x\\..\\y:z", "C:\\x\\y:z", "~root/x"],
)  # fmt: skip
async def test_a_repository_that_cannot_be_one_is_refused_with_the_task(
    one_host: Any, client: Client, url: str
) -> None:
    before = places(one_host)
    if url == "C:\\x\\y:z":  # a host called C, for git
        task_id = await new_task(client, url)
        assert await failed(client, task_id)
    else:
        with pytest.raises(ClientError) as caught:
            await new_task(client, url)
        assert (caught.value.code, caught.value.details["field"]) == ("VALIDATION_ERROR", "repository_url")
        assert "secret" not in caught.value.message
    assert places(one_host) == before


NO_REPOSITORIES = [
    not_existing, not_git, a_file, a_loop, git_is_a_loop, git_is_a_fifo,
    git_file(b"gitdir: /nowhere"), git_file(b"gitdir: a\0b"), git_file(b"gitdir: \xff"), git_file(b"no"),
    git_file(b"x" * 1_000_000), git_file(b"gitdir: /proc/self/fd/0"),
    lambda folder: skeleton(folder, "commondir", b"a\0b"),
    lambda folder: skeleton(folder, "commondir", b"\xff\xfe"),
    lambda folder: skeleton(folder, "objects/info/alternates", b"a\0b\n"),
    lambda folder: skeleton(folder, "HEAD", b"\0\xff"),
]  # fmt: skip


@pytest.mark.parametrize("make", NO_REPOSITORIES)
async def test_a_folder_that_is_no_repository_is_refused_with_the_task(
    one_host: Any, client: Client, tmp_path: Path, make: Callable[[Path], object]
) -> None:
    before = places(one_host)
    with pytest.raises(ClientError) as caught:
        await new_task(client, make(tmp_path))
    assert (caught.value.code, caught.value.details["field"]) == ("VALIDATION_ERROR", "repository_url")
    assert places(one_host) == before


@pytest.mark.parametrize("make", NO_REPOSITORIES)
async def test_a_folder_that_is_no_repository_any_more_is_refused_at_launch(
    one_host: Any, client: Client, tmp_path: Path, make: Callable[[Path], object]
) -> None:
    before = places(one_host)
    (tmp_path / "then").mkdir()
    (tmp_path / "now").mkdir()
    link = tmp_path / "link"
    link.symlink_to(str(skeleton(tmp_path / "then", "config", b"")))
    task_id = await new_task(client, link)
    link.unlink()
    link.symlink_to(str(make(tmp_path / "now")))
    with pytest.raises(ClientError) as caught:
        await client.call("agent.launch", {"task_id": task_id})
    assert (caught.value.code, caught.value.details["field"]) == ("VALIDATION_ERROR", "repository_url")
    assert places(one_host) == before
    assert (await client.call("task.get", {"task_id": task_id}))["task"]["state"] == "TODO"


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: skeleton(folder, "config", b"[core\n"),
        lambda folder: skeleton(folder, "packed-refs", b"0" * 40 + b" refs/heads/main\n"),
        lambda folder: "http://127.0.0.1:1/x.git",
        lambda folder: "ssh://127.0.0.1:1/x.git",
    ],
)
async def test_a_clone_that_fails_leaves_nothing(
    one_host: Any, client: Client, tmp_path: Path, make: Callable[[Path], object]
) -> None:
    before = places(one_host)
    reason = await failed(client, await new_task(client, make(tmp_path)))
    assert reason
    assert "host failed" not in reason
    assert places(one_host) == before


def trap(repository: Path, git: Git, canary: Path) -> None:
    """Everything by which a repository can name a program."""
    program = repository / ".git" / "trap"
    program.write_text(f"#!/bin/sh\necho ran >> {canary}\ncat\n")
    program.chmod(0o755)
    for hook in ("post-checkout", "post-merge", "pre-commit", "reference-transaction", "post-index-change",
                 "pre-auto-gc", "fsmonitor-watchman", "pre-receive", "update", "proc-receive"):  # fmt: skip
        (repository / ".git" / "hooks").mkdir(exist_ok=True)
        (repository / ".git" / "hooks" / hook).write_text(program.read_text())
        (repository / ".git" / "hooks" / hook).chmod(0o755)
    (repository / ".gitattributes").write_text("* filter=trap diff=trap merge=trap\n")
    (repository / ".gitmodules").write_text(
        f'[submodule "s"]\n\tpath = s\n\turl = ext::{program}\n\tupdate = !{program}\n'
    )
    (repository / ".envrc").write_text(f"touch {canary}\n")
    git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},s")
    git("add", ".gitattributes", ".gitmodules", ".envrc")
    env = {**os.environ, "GIT_AUTHOR_NAME": "x", "GIT_AUTHOR_EMAIL": "x@x", "GIT_COMMITTER_NAME": "x",
           "GIT_COMMITTER_EMAIL": "x@x"}  # fmt: skip
    subprocess.run(["git", "commit", "-qm", "trap", "--no-verify"], cwd=repository, env=env, check=True)
    canary.unlink(missing_ok=True)
    for key in ("core.fsmonitor", "core.sshCommand", "core.gitProxy", "core.askPass", "core.editor", "core.pager",
                "filter.trap.clean", "filter.trap.smudge", "filter.trap.process", "diff.trap.textconv",
                "diff.trap.command", "diff.external", "merge.trap.driver", "credential.helper", "gpg.program",
                "uploadpack.packObjectsHook", "core.alternateRefsCommand", "alias.upload-pack"):  # fmt: skip
        git("config", key, f"!{program}" if key.startswith("alias") else str(program))


async def test_nothing_that_a_repository_names_runs(client: Client, repository: Path, git: Git, canary: Path) -> None:
    trap(repository, git, canary)
    before = snapshot(repository)
    task_id = await new_task(client, repository)
    await run(client, task_id, "echo changed >> hello.py")
    diff = await client.call("workspace.diff", {"task_id": task_id})
    assert [file["path"] for file in diff["files"]] == ["hello.py"]
    assert not ran(canary)
    assert snapshot(repository) == before


async def test_a_repository_that_borrows_from_root_shows_nothing_of_it(
    client: Client, repository: Path, git: Git, tmp_path: Path
) -> None:
    """`alternates` may name any folder; only one called objects is shown, and to git alone."""
    secret = tmp_path / "secrets" / "objects" / "secret-key.pem"
    secret.parent.mkdir(parents=True)
    secret.write_text("s3cret")
    alternates = repository / ".git" / "objects" / "info" / "alternates"
    alternates.write_text(f"/root\n/\n../../../../../../root\n{secret.parent}\n")
    before = snapshot(repository)
    task_id = await new_task(client, repository)
    await run(client, task_id, "find / -name secret-key.pem > found.txt 2>/dev/null; echo looked >> found.txt")
    diff = (await client.call("workspace.diff", {"task_id": task_id}))["diff"]
    assert "+looked" in diff
    assert "secret-key.pem" not in diff
    assert snapshot(repository) == before


RUIN = {
    "hooks and programs": "P=/workspace/.git/p; printf '#!/bin/sh\\ntouch {canary}\\ncat\\n' > $P; chmod +x $P; "
    "for k in core.fsmonitor filter.x.clean filter.x.process diff.x.textconv diff.x.command diff.external core.pager "
    "core.alternateRefsCommand; do git config $k $P; done; echo '* filter=x diff=x' > .gitattributes; "
    "cp $P .git/hooks/post-index-change; echo x >> hello.py",
    "commondir": "mkdir c; cp -r .git/* c/; printf '[core]\\n\\tfsmonitor = touch {canary}\\n' >> c/config; "
    "echo ../c > .git/commondir; echo x >> hello.py",
    "nested repository": "git init -q nested; cd nested; git config core.fsmonitor 'touch {canary}'; git -c "
    "user.name=x -c user.email=x commit -q --allow-empty -m x; cd ..; git add nested; echo x >> hello.py",
    "bare repository": "git init -q --bare bare; git -C bare config core.fsmonitor 'touch {canary}'",
    "gitlink": "git update-index --add --cacheinfo 160000,1111111111111111111111111111111111111111,link",
    "worktree outside": "git config core.worktree /root; git config core.bare false",
    "bare": "git config core.bare true",
    "alternates": "echo /root > .git/objects/info/alternates",
    "git folder is a link": "mv .git /tmp/g; ln -s /tmp/g .git",
    "git folder is the host's": "rm -rf .git; ln -s {project}/.git .git",
    "git folder is a file": "rm -rf .git; echo 'gitdir: /root/.git' > .git",
    "git folder is a fifo": "rm -rf .git; mkfifo .git",
    "no git folder": "rm -rf .git",
    "head is a loop": "rm .git/HEAD; ln -s HEAD .git/HEAD",
    "config includes": "git config include.path /root/.gitconfig; git config includeIf.gitdir:/.path {canary}",
    "config is ruined": "echo '[[[' > .git/config",
    "future format": "git config core.repositoryformatversion 99",
    "links, fifos, sockets": "ln -s /root a; ln -s / b; mkfifo c; ln -s loop loop; python3 -c "
    "\"import socket; socket.socket(socket.AF_UNIX).bind('d')\"",
    "odd names": "touch -- '-rf' \"$(printf 'a\\tb')\" \"$(printf 'a\\nb')\" \"$(printf '\\377')\" ':x' ':(top)'; "
    "mkdir -- '--'; touch -- '--/x'",
    "promisor": "git config extensions.partialClone origin; git config remote.origin.promisor true; "
    "git config remote.origin.url 'ext::touch {canary}'; rm -rf .git/objects/pack",
    "ignore and attributes are fifos": "mkdir a b; mkfifo .gitignore a/.gitignore b/.gitattributes .gitattributes "
    ".gitmodules .mailmap; echo x > a/x; echo x > b/x",
    "split": "git config core.splitIndex true; git config index.sparse true; git config core.sparseCheckout true",
}


@pytest.mark.parametrize("ruin", RUIN.values(), ids=RUIN.keys())
async def test_a_diff_of_a_workspace_that_its_agent_ruined_runs_nothing_on_the_host(
    one_host: Any, client: Client, repository: Path, canary: Path, ruin: str
) -> None:
    before = snapshot(repository)
    task_id = await new_task(client, repository)
    script = ruin.replace("{canary}", str(canary)).replace("{project}", str(repository))
    await run(client, task_id, script)
    await leave(one_host, task_id, script)
    answer = await answered(client, "workspace.diff", {"task_id": task_id})
    assert answer in {"OK", "UNAVAILABLE"}
    assert not ran(canary)
    assert snapshot(repository) == before


# The output of a filter is a pipe to git; git's own is had with pidfd_getfd(2), system call 438.
FORGER = """#!/usr/bin/python3
import ctypes, os, sys
out = ctypes.CDLL(None, use_errno=True).syscall(438, os.pidfd_open(os.getppid()), 1, 0)
os.write(out, b"nonsense\\tnumbers\\tpath\\0\\0")
sys.stdout.buffer.write(b"print('hello, world')\\n")
"""


async def test_an_agent_cannot_forge_the_diff_of_its_workspace(one_host: Any, client: Client, repository: Path) -> None:
    """Neither by a filter that shows the old content and writes to git's output, nor by a private exclude."""
    task_id = await new_task(client, repository)
    coded = base64.b64encode(FORGER.encode()).decode()
    await run(client, task_id)
    await leave(
        one_host,
        task_id,
        f"echo {coded} | base64 -d > .git/forger; chmod +x .git/forger; git config filter.forged.clean .git/forger",
        "echo '* filter=forged' > .git/info/attributes; echo '*.sh' > .git/info/exclude",
        "echo evil > hello.py; echo evil > evil.sh; git update-index --assume-unchanged hello.py",
    )
    diffs = [await client.call("workspace.diff", {"task_id": task_id}) for _ in range(2)]
    assert [file["path"] for file in diffs[0]["files"]] == ["evil.sh", "hello.py"]
    assert diffs[0] == diffs[1]
    left = one_host.home / "workspaces" / task_id / "tmp"
    assert not [name for name in os.listdir(left) if name.startswith("diff.")]


@pytest.mark.parametrize("depth", [600, 5000])
async def test_a_workspace_of_any_depth_can_be_deleted(
    one_host: Any, client: Client, repository: Path, depth: int
) -> None:
    before = places(one_host)
    task_id = await new_task(client, repository)
    dig = f"import os\nfor _ in range({depth}): os.mkdir('d'*100); os.chdir('d'*100)\nos.chmod('.', 0)"
    await run(client, task_id, f"python3 -c {shlex.quote('exec(' + repr(dig) + ')')}", "mkdir -p ro/x; chmod 0500 ro")
    await client.call("task.delete", {"task_id": task_id, "force": True})
    assert places(one_host) == before
