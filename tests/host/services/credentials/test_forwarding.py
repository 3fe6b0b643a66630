"""A real git asks a forwarder of the host, which asks a real git server over TLS."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest

from kandev_host.errors import StorageFull
from kandev_host.protocol.notifications import CredentialNotice
from kandev_host.services.credentials.grants import grant_of
from kandev_host.services.credentials.uses import USES_AT_ONCE

pytestmark = pytest.mark.anyio


async def test_git_fetches_the_granted_repository_and_nobody_tells_it_a_secret(
    open_asker: Any, server: Any, tmp_path: Path
) -> None:
    url = f"{server.base}/team/app.git"
    async with open_asker(tmp_path / "a", grant_of("app", url, push=False)) as asker:
        code, said = await asker.git("clone", url, "clone", GIT_TRACE_CURL="1", GIT_TRACE_CURL_NO_DATA="0")
    assert code == 0, said
    assert (tmp_path / "a/clone/read.me").read_text() == "this is app\n"
    assert server.token not in said
    assert [notice.reason for notice in asker.notices][:1] == ["asked for the refs"]
    assert asker.notices[-1].received_bytes > 0
    assert {(notice.name, notice.verb, notice.allowed) for notice in asker.notices} == {("app", "fetch", True)}


async def test_a_request_that_git_compresses_arrives_as_it_was_sent(
    open_asker: Any, server: Any, tmp_path: Path, repositories: Path
) -> None:
    bare, url = repositories / "team/app.git", f"{server.base}/team/app.git"
    async with open_asker(tmp_path / "a", grant_of("app", url, push=False)) as asker:
        for number in range(40):  # it asks for each: more than the 1024 bytes that git sends as they are
            code, commit = await asker.git("-C", str(bare), "commit-tree", "main^{tree}", "-m", f"commit {number}")
            assert code == 0, commit
            await asker.git("-C", str(bare), "update-ref", f"refs/heads/b{number}", commit.strip())
        code, said = await asker.git("clone", url, "clone", GIT_TRACE_CURL="1", GIT_TRACE_CURL_NO_DATA="1")
        assert code == 0, said
        assert "content-encoding: gzip" in said.lower()
        _, refs = await asker.git("-C", "clone", "branch", "--remotes")
    assert len(refs.splitlines()) >= 40


async def test_a_push_is_refused_where_only_fetch_is_granted(open_asker: Any, server: Any, tmp_path: Path) -> None:
    url = f"{server.base}/team/app"
    async with open_asker(tmp_path / "a", grant_of("app", url, push=False)) as asker:
        assert (await asker.git("clone", url, "clone"))[0] == 0
        await asker.commit()
        code, said = await asker.git("-C", "clone", "push", "origin", "HEAD:main")
    assert code != 0
    assert 'git = "push" in [credentials.app] would allow it' in said
    assert ("push", False) in [(notice.verb, notice.allowed) for notice in asker.notices]
    assert not [path for _, path, _ in server.asked if "receive-pack" in path]


async def test_a_push_goes_through_where_it_is_granted(
    open_asker: Any, server: Any, tmp_path: Path, repositories: Path
) -> None:
    url = f"{server.base}/team/app.git"
    async with open_asker(tmp_path / "a", grant_of("app", url, push=True)) as asker:
        assert (await asker.git("clone", url, "clone"))[0] == 0
        await asker.commit()
        big = os.urandom(3 << 20)  # more than git sends in one piece
        (tmp_path / "a/clone/big").write_bytes(big)
        await asker.git("-C", "clone", "add", ".")
        await asker.git("-C", "clone", "commit", "--quiet", "-m", "big")
        code, said = await asker.git("-C", "clone", "push", "origin", "HEAD:main")
        assert code == 0, said
        code, log = await asker.git("-C", str(repositories / "team/app.git"), "log", "--format=%s", "main")
    assert log.split() == ["big", "second", "first"]
    assert max(notice.sent_bytes for notice in asker.notices if notice.verb == "push") > 3 << 20


@pytest.mark.parametrize(
    "asked",
    [
        "/info/refs?service=git-upload-archive", "/info/refs", "/HEAD", "/objects/info/packs",
        "/info/lfs/objects/batch",
        "/../other.git/info/refs?service=git-upload-pack", "/%2e%2e/other.git/info/refs?service=git-upload-pack",
        "/info/refs?service=git-upload-pack&x=1", "/.git/info/refs?service=git-upload-pack", "//info/refs",
        ".git/../other.git/info/refs?service=git-upload-pack",
    ],
)  # fmt: skip
async def test_only_the_requests_of_git_are_passed_on(open_asker: Any, server: Any, tmp_path: Path, asked: str) -> None:
    async with open_asker(tmp_path / "a", grant_of("app", f"{server.base}/team/app.git", push=True)) as asker:
        assert await raw(asker, f"GET {{path}}{asked} HTTP/1.1") == 403
    assert server.asked == []
    assert [notice.allowed for notice in asker.notices] == [False]


async def raw(asker: Any, request: str, headers: str = "") -> int:
    """The status of an answer to exactly this request line; `{path}` is the way to the repository."""
    host, _, path = asker.base.removeprefix("http://").partition("/")
    text = f"{request.format(path='/' + path)}\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n"
    async with await anyio.connect_tcp(*_split(host)) as stream:
        await stream.send(text.encode())
        with anyio.fail_after(30):
            return int((await stream.receive()).split()[1])


def _split(host: str) -> tuple[str, int]:
    name, _, port = host.partition(":")
    return name, int(port)


async def test_another_repository_whose_url_begins_alike_is_asked_for_without_a_log_in(
    open_asker: Any, server: Any, tmp_path: Path
) -> None:
    url = f"{server.base}/team/app"
    async with open_asker(tmp_path / "a", grant_of("app", url, push=False)) as asker:
        code, said = await asker.git("-c", f"http.sslCAInfo={server.authorities}", "clone", f"{url}-lib", "clone")
    assert code != 0
    assert "could not read Username" in said
    assert [(path.partition("?")[0], logged_in) for _, path, logged_in in server.asked] == [
        ("/team/app-lib/info/refs", False)
    ]


async def test_another_repository_cannot_be_asked_for(open_asker: Any, server: Any, tmp_path: Path) -> None:
    async with open_asker(tmp_path / "a", grant_of("app", f"{server.base}/team/app.git", push=True)) as asker:
        for wrong in ("/../other.git", "/other.git", ".git/../../other.git"):
            code, _ = await asker.git("clone", asker.base + wrong, "clone")
            assert code != 0
    assert not [path for _, path, logged_in in server.asked if "other" in path and logged_in]


async def test_who_does_not_know_the_path_is_answered_nothing(open_asker: Any, server: Any, tmp_path: Path) -> None:
    async with open_asker(tmp_path / "a", grant_of("app", f"{server.base}/team/app.git", push=True)) as asker:
        for path in (
            "/",
            "/repo/info/refs?service=git-upload-pack",
            f"/{'A' * 43}/repo/info/refs?service=git-upload-pack",
        ):
            assert await raw(asker, f"GET {path} HTTP/1.1") == 404
    assert (server.asked, asker.notices) == ([], [])


async def test_what_the_agent_sends_of_its_own_log_in_is_not_passed_on(
    open_asker: Any, server: Any, tmp_path: Path
) -> None:
    url = f"{server.base}/team/app.git"
    async with open_asker(tmp_path / "a", grant_of("app", url, push=False)) as asker:
        code, _ = await asker.git("-c", "http.extraHeader=Authorization: Basic eDp5", "ls-remote", url)
    assert code == 0
    assert all(logged_in for _, _, logged_in in server.asked)


async def test_a_repository_that_only_gained_its_git_suffix_is_found(
    open_asker: Any, server: Any, tmp_path: Path
) -> None:
    server.moved["/team/app/info/refs"] = f"{server.base}/team/app.git/info/refs?service=git-upload-pack"
    url = f"{server.base}/team/app"
    async with open_asker(tmp_path / "a", grant_of("app", url, push=False)) as asker:
        code, said = await asker.git("clone", url, "clone")
    assert code == 0, said


@pytest.mark.parametrize("to", ["/team/other.git/info/refs", "https://elsewhere.invalid/team/app.git/info/refs"])
async def test_no_other_move_is_followed(open_asker: Any, server: Any, tmp_path: Path, to: str) -> None:
    server.moved["/team/app.git/info/refs"] = to if "://" in to else server.base + to
    async with open_asker(tmp_path / "a", grant_of("app", f"{server.base}/team/app.git", push=False)) as asker:
        code, said = await asker.git("ls-remote", f"{server.base}/team/app.git")
    assert code != 0
    assert "has moved" in said
    assert len(server.asked) == 1


async def test_a_certificate_of_nobody_known_is_refused(
    open_asker: Any, server: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    store = f"store --file={tmp_path / 'server/store'}"
    (tmp_path / "plain").write_text(f"[credential]\n\thelper = {store}\n[http]\n\tsslVerify = false\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "plain"))
    async with open_asker(tmp_path / "a", grant_of("app", f"{server.base}/team/app.git", push=False)) as asker:
        code, said = await asker.git("ls-remote", f"{server.base}/team/app.git")
    assert code != 0
    assert "is not to be trusted" in said
    assert server.asked == []


async def test_a_log_in_that_the_host_does_not_have_is_said(
    open_asker: Any, server: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    (tmp_path / "none").write_text(f"[http]\n\tsslCAInfo = {server.authorities}\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "none"))
    async with open_asker(tmp_path / "a", grant_of("app", f"{server.base}/team/app.git", push=False)) as asker:
        code, said = await asker.git("ls-remote", f"{server.base}/team/app.git")
    assert code != 0
    assert "knows none for it" in said


async def test_a_log_in_that_changed_is_asked_for_again(open_asker: Any, server: Any, tmp_path: Path) -> None:
    url = f"{server.base}/team/app.git"
    async with open_asker(tmp_path / "a", grant_of("app", url, push=False)) as asker:
        assert (await asker.git("ls-remote", url))[0] == 0
        server.token += "new"
        server.configure(tmp_path / "user.gitconfig")
        assert (await asker.git("ls-remote", url))[0] == 0


async def test_nothing_is_used_that_cannot_be_written_down(open_asker: Any, server: Any, tmp_path: Path) -> None:
    async def full(_: CredentialNotice) -> None:
        raise StorageFull("The disk is full")

    url = f"{server.base}/team/app.git"
    async with open_asker(tmp_path / "a", grant_of("app", url, push=False), full) as asker:
        code, said = await asker.git("ls-remote", url)
    assert code != 0
    assert "could not write down" in said
    assert server.asked == []


async def test_an_agent_that_asks_for_ever_is_held_back(open_asker: Any, server: Any, tmp_path: Path) -> None:
    grant = grant_of("app", f"{server.base}/team/app.git", push=False)
    async with open_asker(tmp_path / "a", grant) as asker, aiohttp.ClientSession() as client:
        statuses = []
        for _ in range(USES_AT_ONCE * 2):
            async with client.get(f"{asker.base}/HEAD") as answer:
                statuses.append(answer.status)
    assert statuses[0] == 403
    assert 429 in statuses
    assert len(asker.notices) < len(statuses)


async def test_nobody_listens_once_the_agent_has_ended(open_asker: Any, server: Any, tmp_path: Path) -> None:
    grant = grant_of("app", f"{server.base}/team/app.git", push=False)
    async with open_asker(tmp_path / "a", grant) as asker:
        port = int(asker.brokered.allow[0].partition(":")[2])
        assert _listens(port)
        asker.brokerage.close("a")
        with anyio.fail_after(30):
            while _listens(port):
                await anyio.lowlevel.checkpoint()


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
