"""The script that makes an image without a registry: what it puts in, and what it says to an engine."""

from __future__ import annotations

import hashlib
import json
import os
import socketserver
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, urlsplit

import pytest

Lean = Callable[..., subprocess.CompletedProcess[str]]
IMAGE = "sha256:" + "0" * 64


@pytest.fixture(scope="session")
def made(lean: Lean, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tar of the usual packages."""
    path = tmp_path_factory.mktemp("lean") / "layer.tar"
    done = lean("--output", path)
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="session")
def members(made: Path) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(made) as tar:
        return {member.name: member for member in tar}


def test_what_an_agent_needs_is_there(members: dict[str, tarfile.TarInfo]) -> None:
    wanted = {"usr/bin/python3", "usr/bin/git", "usr/bin/sh", "usr/bin/busybox", "etc/ssl/certs/ca-certificates.crt"}
    assert wanted <= set(members)


def test_it_is_run_as_somebody_without_rights(members: dict[str, tarfile.TarInfo]) -> None:
    assert [name for name, member in members.items() if member.mode & 0o6000] == []
    assert {name for name, member in members.items() if member.uid != 0} == {"home/agent", "workspace"}


def test_nothing_stands_twice_and_parents_come_first(made: Path) -> None:
    seen: set[str] = set()
    with tarfile.open(made) as tar:
        for member in tar:
            assert member.name not in seen
            parent = str(PurePosixPath(member.name).parent)
            assert parent == "." or parent in seen
            seen.add(member.name)


def test_every_link_leads_to_something(members: dict[str, tarfile.TarInfo]) -> None:
    links = [member for member in members.values() if member.name.startswith("usr/bin/") and member.issym()]
    for link in links:
        found = os.path.normpath(os.path.join("/usr/bin", link.linkname)).lstrip("/")
        assert found in members, f"{link.name} -> {link.linkname}"


def test_the_same_packages_make_the_same_image(lean: Lean, lean_cache: Path, made: Path, tmp_path: Path) -> None:
    again = tmp_path / "cache"
    again.mkdir()
    (again / "debs").symlink_to(lean_cache / "debs")
    assert lean("--cache", again, "--output", tmp_path / "again.tar").returncode == 0
    assert digest(tmp_path / "again.tar") == digest(made)


def test_a_second_time_no_package_is_touched(lean: Lean, made: Path, tmp_path: Path) -> None:
    done = lean("--output", tmp_path / "again.tar", PATH="/nonexistent")
    assert done.returncode == 0, done.stderr
    assert digest(tmp_path / "again.tar") == digest(made)


def test_files_of_the_machine_can_be_added(lean: Lean, tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    program = tmp_path / "tools" / "hello"
    program.write_text("#!/bin/sh\necho hello\n")
    program.chmod(0o700)
    assert lean("--add", f"{tmp_path / 'tools'}:/opt/tools", "--output", tmp_path / "out.tar").returncode == 0
    with tarfile.open(tmp_path / "out.tar") as tar:
        found = tar.getmember("opt/tools/hello")
        assert (found.mode, found.uid) == (0o755, 0)
        content = tar.extractfile(found)
        assert content is not None
        assert content.read() == program.read_bytes()


def test_a_package_that_there_is_not_is_named(lean: Lean, tmp_path: Path) -> None:
    done = lean("--package", "no-such-package-here", "--output", tmp_path / "out.tar")
    assert done.returncode == 1
    assert "no-such-package-here" in done.stderr
    assert not (tmp_path / "out.tar").exists()


def test_an_engine_that_is_not_there_is_named_before_anything_is_fetched(lean: Lean, tmp_path: Path) -> None:
    done = lean("--engine", f"unix://{tmp_path}/none", "--cache", tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    assert done.returncode == 1
    assert done.stderr == f"lean: no engine answers at {tmp_path}/none: No such file or directory\n"


class Engine(BaseHTTPRequestHandler):
    """Takes an image as Docker does, and knows it afterwards."""

    server: Listening

    def do_GET(self) -> None:
        labels = self.server.labels
        if self.path == "/_ping":
            self._answer(200, "OK")
        elif labels is None:
            self._answer(404, {"message": "No such image"})
        else:
            self._answer(200, {"Id": IMAGE, "Config": {"Labels": labels}})

    def do_POST(self) -> None:
        received = hashlib.sha256(self.rfile.read(int(self.headers["Content-Length"]))).hexdigest()
        self.server.taken.append((parse_qs(urlsplit(self.path).query), received))
        if self.server.refusal:
            self._answer(200, {"errorDetail": {}, "error": self.server.refusal})
            return
        labels = [change.removeprefix("LABEL ").partition("=") for change in self.server.taken[-1][0]["changes"]]
        self.server.labels = {name: value for name, _, value in labels if name.startswith("kandev.")}
        self._answer(200, {"status": IMAGE})

    def log_message(self, *_: object) -> None:
        return

    def address_string(self) -> str:
        return "unix"

    def _answer(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Listening(socketserver.ThreadingUnixStreamServer):
    labels: dict[str, str] | None = None
    refusal: str | None = None

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), Engine)
        self.taken: list[tuple[dict[str, list[str]], str]] = []


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Listening]:
    with Listening(tmp_path / "engine") as server:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        yield server
        server.shutdown()
        serving.join()


def loaded(lean: Lean, engine: Listening, tag: str) -> subprocess.CompletedProcess[str]:
    return lean("--engine", f"unix://{engine.server_address}", "--tag", tag)


def test_an_engine_gets_the_layer_and_how_to_run_it(lean: Lean, engine: Listening, made: Path) -> None:
    done = loaded(lean, engine, "example.org:5000/kandev-base:lean")
    assert done.stdout == f"{IMAGE}\n"
    [(asked, received)] = engine.taken
    assert received == digest(made)
    assert (asked["repo"], asked["tag"]) == (["example.org:5000/kandev-base"], ["lean"])
    assert "USER agent" in asked["changes"]


def test_an_engine_that_has_the_image_is_not_sent_it_again(lean: Lean, engine: Listening, made: Path) -> None:
    loaded(lean, engine, "kandev-base:lean")
    assert loaded(lean, engine, "kandev-base:lean").stdout == f"{IMAGE}\n"
    assert len(engine.taken) == 1


def test_what_an_engine_says_against_it_is_told(lean: Lean, engine: Listening, made: Path) -> None:
    engine.refusal = "no space left on device"
    done = loaded(lean, engine, "kandev-base:lean")
    assert done.returncode == 1
    assert "no space left on device" in done.stderr


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
