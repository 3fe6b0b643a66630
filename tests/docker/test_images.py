"""`kandev-host image` on a real engine: what it builds, finds, and says when it cannot."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from kandev_host.cli import recipes
from kandev_host.cli.app import run

from .dockerd import Dockerd

BASE = """FROM kandev-base
LABEL org.opencontainers.image.title="test-base" org.opencontainers.image.version="1"
LABEL org.opencontainers.image.description="a base"
"""
AGENT = """ARG BASE=none
FROM ${BASE}
LABEL org.opencontainers.image.title="test/agent" org.opencontainers.image.version="2.1"
LABEL org.opencontainers.image.description="an agent"
COPY hello /opt/hello
"""
FAILING = 'FROM kandev-base\nLABEL org.opencontainers.image.title="test/failing" org.opencontainers.image.version="1"\n'
FAILING += 'LABEL org.opencontainers.image.description="none"\nRUN echo it went wrong && exit 7\n'
SCANNER = '#!/bin/sh\necho "$DOCKER_HOST $*"\nexit 1\n'


@pytest.fixture
def images(
    dockerd: Dockerd, sdk: docker.APIClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[docker.APIClient]:
    """The engine is that of the tests, and so are the Dockerfiles."""
    for name, text in (("base", BASE), ("agent", AGENT), ("failing", FAILING)):
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / "Dockerfile").write_text(text)
    (tmp_path / "images/agent/hello").write_text("hello\n")
    monkeypatch.setattr(recipes, "shipped", lambda name: tmp_path / name)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{dockerd.socket}")
    monkeypatch.setenv("KANDEV_HOME", str(tmp_path / "home"))
    yield sdk
    for image in sdk.images():
        for name in image["RepoTags"] or ():
            if name.startswith("test"):
                sdk.remove_image(name)


def test_an_image_is_built_on_a_base_that_was_missing(
    images: docker.APIClient, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["image", "build", "agent", "--json"]) == 0
    told = capsys.readouterr()
    made = json.loads(told.out)["images"]
    assert [one["image"] for one in made] == ["test-base", "test/agent"]
    assert "agent: Step 1/" in told.err
    found = images.inspect_image("test/agent:2.1")
    assert found["Id"] == made[1]["id"] == images.inspect_image("test/agent:latest")["Id"]


def test_a_base_that_is_there_is_not_built_again(images: docker.APIClient, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["image", "build", "base"]) == 0
    capsys.readouterr()
    assert run(["image", "build", "agent", "--json"]) == 0
    assert [one["image"] for one in json.loads(capsys.readouterr().out)["images"]] == ["test/agent"]


def test_a_step_that_fails_is_told_with_what_it_said(
    images: docker.APIClient, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["image", "build", "failing"]) == 1
    told = capsys.readouterr().err
    assert "failing: it went wrong" in told
    assert "The image 'test/failing:latest' was not built: " in told
    assert "returned a non-zero code: 7" in told


def test_the_list_tells_what_is_built(images: docker.APIClient, capsys: pytest.CaptureFixture[str]) -> None:
    run(["image", "build", "base"])
    capsys.readouterr()
    assert run(["image", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["images"]}
    assert rows["base"]["size_bytes"] > 0
    assert rows["agent"]["id"] is None


def test_a_registry_that_is_not_reached_is_told_with_the_way_out(
    images: docker.APIClient, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["image", "pull", "127.0.0.1:9/nothing:1"]) == 1
    told = capsys.readouterr().err
    assert "'127.0.0.1:9/nothing:1' cannot be pulled" in told
    assert "docker load" in told


def test_a_scanner_is_run_on_the_engine_of_the_settings(
    images: docker.APIClient, dockerd: Dockerd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "bin").mkdir()
    scanner = tmp_path / "bin" / "grype"
    scanner.write_text(SCANNER)
    scanner.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin")
    assert run(["image", "scan", "kandev-base"]) == 1
    assert capfd.readouterr().out == f"unix://{dockerd.socket} --fail-on high kandev-base\n"
    assert run(["image", "scan", "not-there"]) == 1
    assert "The engine has no image not-there" in capfd.readouterr().err
