"""`kandev-host image` where there is no engine, and before one is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from kandev_host.cli.app import run
from kandev_host.cli.recipes import recipes


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("KANDEV_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/engine")
    return f"{tmp_path}/engine"


@pytest.mark.parametrize("words", [["list"], ["build", "base"], ["lean"], ["pull", "base"]], ids=" ".join)
def test_without_an_engine_it_says_how_to_have_one(
    words: list[str],
    nowhere: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert run(["image", *words]) == 1
    shown, told = capsys.readouterr()
    assert ("gemini" in shown) == (words == ["list"])
    assert not (tmp_path / "cache").exists()
    assert f"There is no Docker engine at {nowhere}" in told
    assert "Fix: " in told


def test_a_name_that_there_is_not_is_answered_with_those_that_are(
    nowhere: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["image", "build", "gemni"]) == 1
    told = capsys.readouterr().err
    assert "'gemni'" in told
    assert "gemini" in told


def test_what_to_build_must_be_said(nowhere: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["image", "build"]) == 2
    assert ", ".join(recipes()) in capsys.readouterr().err


def test_without_a_scanner_it_says_which_to_install(
    nowhere: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert run(["image", "scan", "base"]) == 1
    told = capsys.readouterr().err
    assert "trivy" in told
    assert "grype" in told


def test_an_option_is_no_image(nowhere: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["image", "pull", "--", "--privileged"]) == 2
    assert "no name of an image" in capsys.readouterr().err
