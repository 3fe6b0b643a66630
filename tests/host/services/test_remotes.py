"""Clones of URLs: their jail reaches their host alone, and logs in only where the settings say so."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from kandev_host.errors import KandevError, ValidationFailed
from kandev_host.interfaces import Result
from kandev_host.services.clones import find_source, make_workspace
from kandev_host.services.credentials.logins import Login, login_at
from kandev_host.services.git import explain
from kandev_host.services.remotes import over_https, remote_of
from kandev_host.services.repositories import parse_repository

pytestmark = pytest.mark.anyio

ADDRESS = "127.0.0.2"  # no name of this machine that git's jail would forward a port of: it goes through the proxy
Serve = Callable[..., Any]


@pytest.fixture
def served(repository: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "served"
    command = ["git", "clone", "--quiet", "--bare", str(repository), str(folder / "app.git")]
    subprocess.run(command, check=True, capture_output=True)
    subprocess.run(["git", "-C", str(folder / "app.git"), "update-server-info"], check=True)
    return folder


@contextmanager
def server(folder: Path, moved_to: str | None = None) -> Iterator[tuple[str, list[str]]]:
    """Its URL, and the paths that it was asked for. With `moved_to`, everything is said to be there."""
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            asked.append(self.path)
            if moved_to is None:
                super().do_GET()
                return
            self.send_response(302)
            self.send_header("Location", moved_to + self.path)
            self.end_headers()

    with ThreadingHTTPServer((ADDRESS, 0), partial(Handler, directory=str(folder))) as http:
        thread = Thread(target=http.serve_forever)
        thread.start()
        try:
            yield f"http://{ADDRESS}:{http.server_port}", asked
        finally:
            http.shutdown()
            thread.join()


async def test_a_url_is_cloned_through_the_proxy(desk: Any, served: Path) -> None:
    with server(served) as (url, _):
        workspace = await desk.workspace(f"{url}/app.git")
    assert workspace.base_branch == "main"
    assert await desk.sh(workspace, "ls; git remote get-url origin") == f"a.txt\nb.txt\n{url}/app.git"


async def test_the_jail_of_a_clone_reaches_no_other_host(desk: Any, served: Path) -> None:
    with server(served) as (other, asked), server(served, moved_to=other) as (url, _):
        task = await desk.task(f"{url}/app.git")
        with pytest.raises(KandevError) as caught:
            await desk.house.workspaces.ensure(task, "bwrap")
        assert asked == []
    entry = other.removeprefix("http://")
    assert f"{entry} is not in the allowlist of this jail; to allow it: add {entry} to allow" in caught.value.message


async def test_a_clone_from_a_host_that_is_not_there_says_what_the_proxy_found(desk: Any) -> None:
    with socket.create_server((ADDRESS, 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(KandevError, match=f"the proxy of its jail: .*{ADDRESS} refuses the connection"):
        await desk.workspace(f"http://{ADDRESS}:{port}/app.git")


async def test_what_the_settings_allow_is_reached_too(desk: Any, served: Path) -> None:
    with server(served) as (other, asked), server(served, moved_to=other) as (url, _):
        task = await desk.task(f"{url}/app.git")
        place = desk.house.runtimes["bwrap"]
        await place.prepare(task.id)
        allow = (other.removeprefix("http://"),)
        workspace = await make_workspace(place, task, await find_source(task), 60.0, allow=allow)
        assert workspace.base_branch == "main"
        assert asked != []


@pytest.mark.parametrize(
    ("location", "url", "entry"),
    [
        ("https://example.org/a.git", "https://example.org/a.git", "example.org:443"),
        ("http://example.org/a.git", "http://example.org/a.git", "example.org:80"),
        ("https://example.org:8443/a.git", "https://example.org:8443/a.git", "example.org:8443"),
        ("ssh://git@example.org:2222/a/b.git", "https://example.org/a/b.git", "example.org:443"),
        ("git@example.org:a/b.git", "https://example.org/a/b.git", "example.org:443"),
        ("example.org:/a/b.git", "https://example.org/a/b.git", "example.org:443"),
        ("https://[2001:db8::1]/a.git", "https://[2001:db8::1]/a.git", "[2001:db8::1]:443"),
    ],
)
def test_a_url_needs_one_entry_of_the_allowlist(location: str, url: str, entry: str) -> None:
    remote = remote_of(parse_repository(location))
    assert (over_https(location), remote.url, remote.network, remote.allow) == (url, url, "allowlist", (entry,))


def test_of_what_the_setup_may_reach_a_clone_reaches_addresses_alone() -> None:
    more = ("@npm", "evil.example", "*.evil.example", "evil.example:443", "127.0.0.1:5432", "10.1.2.3", "[fd00::1]:443")
    remote = remote_of(parse_repository("https://git.example/a.git"), more)
    assert remote.allow == ("git.example:443", "10.1.2.3", "[fd00::1]:443")


def test_ssh_to_this_machine_is_refused_with_what_to_give_instead() -> None:
    with pytest.raises(ValidationFailed, match=r"http://127\.0\.0\.1:PORT"):
        remote_of(parse_repository("git@localhost:a/b.git"))


def test_a_service_of_this_machine_is_reached_at_its_port_without_a_proxy() -> None:
    remote = remote_of(parse_repository("http://localhost:8377/a.git"))
    assert (remote.network, remote.allow) == ("none", ("127.0.0.1:8377",))


def test_what_no_proxy_serves_is_refused_with_the_way_out() -> None:
    with pytest.raises(ValidationFailed, match="give the https:// URL"):
        remote_of(parse_repository("git://example.org/a.git"))


# --- log-ins ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A credential helper of the user's that notes what it is asked, and knows a password for example.org."""
    script = tmp_path / "helper"
    script.write_text(
        f'#!/bin/sh\n[ $1 = get ] || exit 0\nsaid=$(cat)\necho "$said" >> {tmp_path}/asked\n'
        "case $said in *host=example.org*) echo username=ada; echo password=very-secret ;; esac\n"
    )
    script.chmod(0o755)
    (tmp_path / "gitconfig").write_text(f"[credential]\n\thelper = {script}\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_DIR", "/nonexistent")
    return tmp_path / "asked"


def words(file: Path) -> list[str]:
    return file.read_text().split()


async def test_the_users_helper_is_asked_for_that_host(helper: Path) -> None:
    assert await login_at("example.org") == Login("ada", "very-secret")
    assert words(helper) == ["protocol=https", "host=example.org"]


async def test_where_the_user_has_no_login_nobody_is_asked(helper: Path) -> None:
    assert await login_at("example.com") is None


@pytest.mark.parametrize(
    ("stderr", "told"),
    [
        (b"Cloning into '.'...\nfatal: early EOF\n", "fatal: early EOF"),
        (b"", "git ended with status 128"),
    ],
)
def test_git_that_met_a_limit_is_told_with_it(stderr: bytes, told: str) -> None:
    met = "a process of it was killed at its memory limit of 64.0 MiB"
    assert explain(Result(128, b"", stderr, ending=met)) == f"{told} ({met})"
    assert explain(Result(128, b"", stderr)) == told
