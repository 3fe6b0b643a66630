"""The pure rules: repositories, prompts, limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kandev_host.errors import PayloadTooLarge, ValidationFailed
from kandev_host.models import Limits
from kandev_host.services.launches import login_mounts, merge_limits
from kandev_host.services.prompts import DATA_BYTES, TEXT_CHARS, to_blocks
from kandev_host.services.repositories import Repository, parse_repository


@pytest.mark.parametrize(
    ("url", "kind", "port"),
    [
        ("/home/me/x", "local", None),
        ("~/x", "local", None),
        ("file:///home/me/x%20y", "local", None),
        ("https://github.com/a/b.git", "remote", None),
        ("http://127.0.0.1:3000/a.git", "remote", 3000),
        ("http://localhost/a.git", "remote", 80),
        ("ssh://git@example.com:2222/a.git", "remote", None),
        ("git@example.com:a/b.git", "remote", None),
        ("git://example.com/a.git", "remote", None),
    ],
)
def test_what_a_repository_url_stands_for(url: str, kind: str, port: int | None) -> None:
    found = parse_repository(url)
    assert (found.kind, found.loopback_port) == (kind, port)


def test_a_file_url_is_decoded() -> None:
    assert parse_repository("file:///a%20b") == Repository("local", "/a b")


@pytest.mark.parametrize(
    "url",
    [
        "-x", "--upload-pack=id", "ext::sh -c id", "EXT::x", "fd::17", "https://a:b@h/x", "https://token@h/x",
        "ssh://-oProxyCommand=id/x", "ssh://u:p@h/x", "ssh://-u@h/x", "git@-h:x", "h:-x", "javascript://x/y", "https://",
        "https:///x", "http://h:99999/x", "file://other/x", "file:relative", "x", "./x", "../x", "a\nb", "/a\nb",
        "/a\0b", "me:secret@h:x",
        "file:///a%0Ab", "C:\\x y\r", "https://h/a/../b", "https://h/a/%2e%2E/b", "https://h/a/..%2fb", "ssh://h/../b",
        "git@h:a/../b", "https://h/a/./b", "http://localhost/..",
    ],
)  # fmt: skip
def test_what_is_no_repository_url_is_refused(url: str) -> None:
    with pytest.raises(ValidationFailed) as caught:
        parse_repository(url)
    assert caught.value.details["field"] == "repository_url"


@pytest.mark.parametrize("url", ["https://me:hunter2@h/x", "https://hunter2@h/x", "ssh://me:hunter2@h/x"])
def test_a_secret_in_a_url_is_not_repeated(url: str) -> None:
    with pytest.raises(ValidationFailed) as caught:
        parse_repository(url)
    assert "hunter2" not in str(caught.value.details) + caught.value.message


def test_text_becomes_one_block() -> None:
    assert to_blocks("hello") == [{"type": "text", "text": "hello"}]


@pytest.mark.parametrize(
    ("blocks", "field"),
    [
        ([{}], "prompt[0].type"),
        ([{"type": ["text"]}], "prompt[0].type"),
        ([{"type": "image", "data": "x"}], "prompt[0].mimeType"),
        ([{"type": "image", "data": "x", "mimeType": "image/png"}], "prompt[0].data"),
        ([{"type": "image", "data": "eA==", "mimeType": "text/html"}], "prompt[0].mimeType"),
        ([{"type": "resource"}], "prompt[0].resource"),
        ([{"type": "resource", "resource": {"text": "x"}}], "prompt[0].resource.uri"),
        ([{"type": "resource", "resource": {"uri": "a:b"}}], "prompt[0].resource"),
        ([{"type": "resource", "resource": {"uri": "a:b", "blob": "ä"}}], "prompt[0].resource.blob"),
        ("  ", "prompt"),
    ],
)
def test_a_wrong_block_is_named_by_path(blocks: Any, field: str) -> None:
    with pytest.raises(ValidationFailed) as caught:
        to_blocks(blocks)
    assert caught.value.details["field"] == field


@pytest.mark.parametrize(
    ("block", "field"),
    [
        ({"type": "text", "text": "x" * (TEXT_CHARS + 1)}, "prompt[0].text"),
        ({"type": "resource_link", "uri": "u" * 9000, "name": "n"}, "prompt[0].uri"),
        ({"type": "audio", "data": "A" * (DATA_BYTES * 4 // 3 + 5), "mimeType": "audio/wav"}, "prompt[0].data"),
    ],
)
def test_what_a_block_holds_is_bounded(block: Any, field: str) -> None:
    with pytest.raises(PayloadTooLarge) as caught:
        to_blocks([block])
    assert caught.value.details["field"] == field


def test_limits_are_merged_one_by_one() -> None:
    merged = merge_limits(Limits(cpu_limit="1", memory_limit="1g"), Limits(memory_limit="2g"))
    assert merged == Limits(cpu_limit="1", memory_limit="2g")


@pytest.mark.parametrize("amount", ["1.5g", "0.5GB", "512m", "1024"])
def test_an_amount_of_memory_may_be_a_part_of_a_unit(amount: str) -> None:
    assert merge_limits(Limits(), Limits(memory_limit=amount)).memory_limit == amount


@pytest.mark.parametrize("amount", ["1.5", "1.g", ".5g", "-1g", "1.5.5g", "g", "1g\n2"])
def test_what_is_no_amount_of_memory_is_refused(amount: str) -> None:
    with pytest.raises(ValidationFailed):
        merge_limits(Limits(), Limits(memory_limit=amount))


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x"])
def test_a_login_file_outside_of_the_home_is_refused(path: str) -> None:
    with pytest.raises(ValidationFailed):
        login_mounts([path])


def test_login_files_that_exist_are_mounted_read_only_and_folders_never(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".claude").mkdir()
    (tmp_path / ".claude/key").touch()
    mounts = login_mounts([".claude", "~/.codex", "~/.claude/key"])
    assert [(mount.target, mount.read_only) for mount in mounts] == [("~/.claude/key", True)]
