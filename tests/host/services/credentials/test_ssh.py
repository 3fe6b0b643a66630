"""A real git speaks to a forwarder of the host, whose ssh logs in at a real sshd with a key that only the host has."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import anyio
import pytest

from kandev_host.services.credentials.grants import grant_of
from kandev_host.settings import CredentialSettings

pytestmark = pytest.mark.anyio


async def test_git_fetches_over_the_ssh_of_the_host(
    sshd: Any, repositories: Path, tmp_path: Path, open_asker: Any
) -> None:
    url = sshd.url(repositories / "team/app.git")
    async with open_asker(tmp_path / "a", grant_of("app", url, push=False)) as asker:
        code, said = await asker.git("clone", url, "clone")
        assert code == 0, said
        assert (tmp_path / "a/clone/read.me").read_text() == "this is app\n"
        await asker.commit()
        code, said = await asker.git("-C", "clone", "push", "origin", "HEAD:main")
    assert code != 0
    assert 'git = "push" in [credentials.app] would allow it' in said
    notices = [(notice.verb, notice.allowed, notice.reason) for notice in asker.notices]
    assert notices == [("fetch", True, "begun"), ("fetch", True, "ended"), ("push", False, "only fetch is granted")]
    assert asker.notices[1].received_bytes > 0


async def test_git_pushes_over_the_ssh_of_the_host(
    sshd: Any, repositories: Path, tmp_path: Path, open_asker: Any
) -> None:
    url = sshd.url(repositories / "team/app.git")
    async with open_asker(tmp_path / "a", grant_of("app", url, push=True)) as asker:
        assert (await asker.git("clone", url, "clone"))[0] == 0
        await asker.commit()
        (tmp_path / "a/clone/big").write_bytes(os.urandom(3 << 20))
        for command in (["add", "."], ["commit", "--quiet", "-m", "big"], ["push", "--quiet", "origin", "HEAD:main"]):
            code, said = await asker.git("-C", "clone", *command)
            assert code == 0, said
        _, log = await asker.git("-C", str(repositories / "team/app.git"), "log", "--format=%s", "main")
    assert log.split() == ["big", "second", "first"]
    assert asker.notices[-1].sent_bytes > 3 << 20


@pytest.mark.parametrize("rest", ["/../other.git", "2", ".git/x", "/%2e%2e/other.git", "';id;'"])
async def test_no_other_repository_is_reached(
    sshd: Any, repositories: Path, tmp_path: Path, open_asker: Any, rest: str
) -> None:
    url = sshd.url(repositories / "team/app.git")
    async with open_asker(tmp_path / "a", grant_of("app", url, push=True)) as asker:
        code, said = await asker.git("ls-remote", asker.base + rest)
    assert code != 0
    assert f"Only {url} is served here" in said
    assert "Accepted publickey" not in sshd.log.read_text()


async def test_a_server_that_the_user_does_not_know_is_refused(
    sshd: Any, repositories: Path, tmp_path: Path, open_asker: Any
) -> None:
    (sshd.folder / "known").write_text("")
    url = sshd.url(repositories / "team/app.git")
    async with open_asker(tmp_path / "a", grant_of("app", url, push=False)) as asker:
        code, said = await asker.git("ls-remote", url)
    assert code != 0
    assert "the log of kandev-host says why" in said


@pytest.mark.parametrize(
    "greeting",
    [b"", b"0000", b"zzzz", b"ffff", b"0004", b"0010git-upload-pack", b"GET / HTTP/1.1\r\n\r\n"],
)
async def test_who_does_not_know_the_path_is_answered_nothing(
    sshd: Any, repositories: Path, tmp_path: Path, open_asker: Any, greeting: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    url = sshd.url(repositories / "team/app.git")
    async with open_asker(tmp_path / "a", grant_of("app", url, push=False)) as asker:
        host, _, port = asker.base.removeprefix("git://").partition("/")[0].partition(":")
        async with await anyio.connect_tcp(host, int(port)) as stream:
            await stream.send(greeting)
            await stream.send_eof()
            with anyio.fail_after(30), pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await stream.receive()
    assert asker.notices == []
    assert caplog.text == ""


async def test_an_agent_in_a_jail_has_git_over_ssh_and_neither_key_nor_agent(
    sshd: Any, repositories: Path, tmp_path: Path, open_work: Any
) -> None:
    url = sshd.url(repositories / "team/app.git")
    script = f"git clone {url} /tmp/clone; cat /tmp/clone/read.me; env; find / -name 'agent.*' -type s 2>/dev/null"
    there = {"app": CredentialSettings(git="fetch", repository=url)}
    async with open_work(tmp_path, script, there, task={"credentials": ["app"]}) as work:
        await work.run()
        said = await work.said()
        used = work.used()
    assert "this is app" in said
    assert "SSH_AUTH_SOCK" not in said
    assert {(each["what"], each["verb"]) for each in used} == {(url, "fetch")}
