"""git's own smart HTTP server behind TLS, with authorities made at run time. It notes what it is asked for."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import pwd
import secrets
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiohttp import web

from kandev_host import AgentType
from kandev_host.interfaces import ProcessSpec
from kandev_host.models import AgentInstance, Task, new_id
from kandev_host.protocol.actions.agents import AgentLaunch
from kandev_host.protocol.actions.boards import BoardCreate
from kandev_host.protocol.actions.tasks import TaskCreate
from kandev_host.protocol.notifications import CredentialNotice
from kandev_host.services.credentials.grants import Grant
from kandev_host.services.credentials.uses import Allowance, Uses
from kandev_host.services.forwarding.brokerage import Brokerage, Brokered
from kandev_host.services.git import config_environment
from kandev_host.settings import CredentialSettings, Settings

BACKEND = "/usr/lib/git-core/git-http-backend"
USER = "robot"


def canary() -> str:
    """A secret that is nowhere else."""
    return f"canary{secrets.token_hex(16)}"


class GitServer:
    """Serves the bare repositories below `root` to whoever has the token; `moved` answers with a redirect."""

    def __init__(self, root: Path, folder: Path, certificates: Path) -> None:
        self.root = root
        self.folder = folder
        self.authorities = certificates / "ca.pem"
        self.token = canary()
        self.asked: list[tuple[str, str, bool]] = []  # method, path with query, logged in?
        self.moved: dict[str, str] = {}
        self.port = 0

    @property
    def base(self) -> str:
        return f"https://localhost:{self.port}"

    def configure(self, path: Path) -> None:
        """The git configuration of a user who can log in here."""
        store = self.folder / "store"
        store.write_text(f"https://{USER}:{self.token}@localhost:{self.port}\n")
        store.chmod(0o600)
        path.write_text(
            f'[credential]\n\thelper = store --file={store}\n[http "{self.base}"]\n\tsslCAInfo = {self.authorities}\n'
        )

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        given = request.headers.get("Authorization", "")
        right = base64.b64encode(f"{USER}:{self.token}".encode()).decode()
        logged_in = given == f"Basic {right}"
        self.asked.append((request.method, request.raw_path, logged_in))
        if request.path in self.moved:
            return web.Response(status=301, headers={"Location": self.moved[request.path]})
        if not logged_in:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        env = {
            "PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(self.root), "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": request.path, "QUERY_STRING": request.query_string, "REQUEST_METHOD": request.method,
            "CONTENT_TYPE": request.headers.get("Content-Type", ""), "REMOTE_USER": USER, "REMOTE_ADDR": "127.0.0.1",
            "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""), "GIT_CONFIG_NOSYSTEM": "1", "HOME": "/",
            "GIT_CONFIG_GLOBAL": str(self.folder / "server.config"),
        }  # fmt: skip
        if "Content-Length" in request.headers:
            env["CONTENT_LENGTH"] = request.headers["Content-Length"]
        process = await asyncio.create_subprocess_exec(
            BACKEND, env=env, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        sent = b"".join([chunk async for chunk in request.content.iter_any()])
        out, _ = await process.communicate(sent)
        head, _, body = out.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        status = int(headers.pop("Status", "200").split()[0])
        return web.Response(status=status, headers=headers, body=body)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and the certificate of localhost by it."""
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(*new, "-x509", "-subj", "/CN=test", "-days", "2", "-keyout", "ca.key", "-out", "ca.pem")
    openssl(*new, "-subj", "/CN=localhost", "-keyout", "host.key", "-out", "host.csr")
    (folder / "ext").write_text("subjectAltName=DNS:localhost\n")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "ext")
    openssl("x509", "-req", "-in", "host.csr", *signed, "-out", "host.pem")
    return folder


@asynccontextmanager
async def git_server(root: Path, folder: Path, certificates: Path) -> AsyncIterator[GitServer]:
    os.mkdir(folder, mode=0o700)
    (folder / "server.config").write_text("[safe]\n\tdirectory = *\n[http]\n\treceivepack = true\n")
    made = GitServer(root, folder, certificates)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates / "host.pem", certificates / "host.key")
    server: Any = web.Server(made.handle, access_log=None, auto_decompress=False)
    listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0, ssl=context)
    made.port = listening.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        listening.close()
        await server.shutdown(0)


IDENTITY = {
    "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@a", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@a",
    "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "/bin/false",
}  # fmt: skip


@pytest.fixture
def repositories(tmp_path: Path) -> Path:
    """Two bare repositories, team/app.git and team/other.git, with a commit on main each."""
    root = tmp_path / "repositories"
    for name in ("app", "other", "app-lib"):
        bare = root / "team" / f"{name}.git"
        subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", str(bare)], check=True)
        work = tmp_path / f"work-{name}"
        subprocess.run(["git", "init", "--quiet", "--initial-branch=main", str(work)], check=True)
        (work / "read.me").write_text(f"this is {name}\n")
        env = {**os.environ, **IDENTITY, "GIT_CONFIG_GLOBAL": "/dev/null"}
        for command in (["add", "."], ["commit", "--quiet", "-m", "first"], ["push", "--quiet", str(bare), "main"]):
            subprocess.run(["git", "-C", str(work), *command], check=True, env=env)
    return root


@pytest.fixture
async def server(
    tmp_path: Path, repositories: Path, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[GitServer]:
    """A server of these repositories, at which the git of this host's user can log in."""
    async with git_server(repositories, tmp_path / "server", certificates) as made:
        made.configure(tmp_path / "user.gitconfig")
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "user.gitconfig"))
        monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        yield made


class Asker:
    """A git whose configuration is what an agent's would be, without anything of the user's."""

    def __init__(self, folder: Path, brokerage: Brokerage, brokered: Brokered) -> None:
        self.folder = folder
        self.brokerage = brokerage
        self.brokered = brokered
        self.notices: list[CredentialNotice] = []

    @property
    def base(self) -> str:
        """The address of the forwarder, with its secret path."""
        key = self.brokered.config[0][0]
        return key.removeprefix("url.").removesuffix(".insteadOf")

    async def git(self, *arguments: str, **env: str) -> tuple[int, str]:
        clean = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "GIT_CONFIG_NOSYSTEM": "1",
                 "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "/bin/false", "GIT_AUTHOR_NAME": "a",
                 "GIT_AUTHOR_EMAIL": "a@a", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@a", **env}  # fmt: skip
        settings = config_environment(dict(self.brokered.config)) if len(self.brokered.config) == 1 else {}
        for index, (key, value) in enumerate(self.brokered.config):
            settings |= {f"GIT_CONFIG_KEY_{index}": key, f"GIT_CONFIG_VALUE_{index}": value}
        settings["GIT_CONFIG_COUNT"] = str(len(self.brokered.config))
        with anyio.fail_after(60):
            done = await anyio.run_process(["git", *arguments], env=clean | settings, cwd=self.folder, check=False)
        return done.returncode, (done.stdout + done.stderr).decode()

    async def commit(self) -> None:
        """Clone what is granted, and commit a file to it."""
        (self.folder / "clone" / "new.txt").write_text("new\n")
        for command in (["add", "."], ["commit", "--quiet", "-m", "second"]):
            assert (await self.git("-C", "clone", *command))[0] == 0


@asynccontextmanager
async def _asking(folder: Path, grant: Grant, told: Any = None) -> AsyncIterator[Asker]:
    os.mkdir(folder)
    notices: list[CredentialNotice] = []

    async def tell(notice: CredentialNotice) -> None:
        notices.append(notice)

    async with Brokerage() as brokerage:
        uses = Uses(grant, new_id(), new_id(), told or tell, Allowance())
        asker = Asker(folder, brokerage, await brokerage.open("a", [uses]))
        asker.notices = notices
        yield asker


@pytest.fixture
def open_asker() -> Any:
    return _asking


class Work:
    """A house with one task, and an agent that is a script of the shell: its end is the end of the run."""

    def __init__(self, house: Any, task: Task) -> None:
        self.house = house
        self.task = task

    async def run(self) -> AgentInstance:
        """Launch it, and wait for its recorded end."""
        agent_id = (
            await self.house.agents.launch(self.house.me, AgentLaunch(task_id=self.task.id, agent_type="sh"))
        ).agent.id
        with anyio.fail_after(60):
            while True:
                arrived = self.house.arrived  # before the look: what arrives during it is news as well
                agent: AgentInstance = await self.house.store.get(AgentInstance, agent_id)
                if agent.stopped_at is not None:
                    return agent
                await arrived.wait()

    async def said(self) -> str:
        """What the script wrote to the file out of its workspace."""
        spec = ProcessSpec(workspace_id=self.task.id, command=("cat", "out"))
        result = await self.house.runtimes["bwrap"].run(spec)
        return str(result.stdout.decode("utf-8", "replace"))

    def used(self) -> list[dict[str, Any]]:
        """What the journal says of credentials."""
        found = [item for item in self.house.events if item.action == "credential.used"]
        return [json.loads(bytes(item.payload)) for item in found]


@asynccontextmanager
async def _working(
    open_house: Any, folder: Path, script: str, there: dict[str, CredentialSettings], *,
    task: dict[str, Any] | None = None, **kind: Any,
) -> AsyncIterator[Work]:  # fmt: skip
    agent = AgentType(name="sh", command=("/bin/sh", "-c", f"exec > /workspace/out 2>&1\n{script}"), **kind)
    async with open_house(folder / "data", [agent], Settings(credentials=there)) as house:
        board = (await house.boards.create(house.me, BoardCreate(name="Work"))).board
        request = TaskCreate(board_id=board.id, title="t", description="", **(task or {}))
        yield Work(house, (await house.tasks.create(house.me, request)).task)


@pytest.fixture
def open_work(open_house: Any) -> Any:
    return partial(_working, open_house)


@dataclass
class SshServer:
    port: int
    folder: Path
    log: Path

    def url(self, repository: Path) -> str:
        return f"ssh://{pwd.getpwuid(os.getuid()).pw_name}@127.0.0.1:{self.port}{repository}"

    def configuration(self) -> str:
        """GIT_SSH_COMMAND of a user who has the key and knows the server."""
        return f"ssh -F {self.folder / 'config'}"


@pytest.fixture
async def sshd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SshServer]:
    folder = tmp_path / "ssh"
    folder.mkdir(mode=0o700)
    for name in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(folder / name)]
        await anyio.run_process(command)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "authorized").write_text((folder / "user.pub").read_text())
    (folder / "known").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    (folder / "config").write_text(
        f"Host *\n IdentityFile {folder / 'user'}\n IdentitiesOnly yes\n UserKnownHostsFile {folder / 'known'}\n"
        " GlobalKnownHostsFile /dev/null\n"
    )
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder / 'host'}\nAuthorizedKeysFile {folder / 'authorized'}\n"
        "PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\nAcceptEnv GIT_PROTOCOL\nLogLevel VERBOSE\n"
        "PermitRootLogin prohibit-password\n"
    )
    made = SshServer(port, folder, folder / "log")
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program is not None, "install openssh-server (.ci/need sshd=openssh-server)"
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    command = [program, "-D", "-e", "-f", str(folder / "sshd_config")]
    with made.log.open("wb") as log:
        process = await anyio.open_process(command, stdin=None, stdout=None, stderr=log)
        try:
            with anyio.fail_after(30):
                while not _listens(port):
                    assert process.returncode is None, made.log.read_text()
                    await anyio.lowlevel.checkpoint()
            monkeypatch.setenv("GIT_SSH_COMMAND", made.configuration())
            monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
            yield made
        finally:
            with anyio.CancelScope(shield=True):
                if process.returncode is None:
                    process.kill()
                await process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
