"""What a .gitignore leaves out, compared with what git itself says."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kandev_host.services.jailed.ignores import Rules

PATTERNS = st.lists(
    st.text(alphabet="ab*?/[]!^-\\# .\r", min_size=1, max_size=9)
    | st.sampled_from(["**/a", "a/**", "a/**/b", "/a", "b/", "!a", "*.b", "[!a]b", "a\\ ", "[[:alpha:]]", "**", "/"]),
    min_size=1,
    max_size=5,
)
PATHS = ["a", "b", "ab", "a.b", "b/a", "a/b", "a/b/a", "a/ab/b", "b/b/b/a", "ba/a b", "#", "a ", "]", "-", "a/a/b.b"]


def by_git(folder: Path, content: bytes, paths: list[str]) -> dict[str, bool]:
    """What `git check-ignore` says; of the paths, folders end with a slash."""
    (folder / ".gitignore").write_bytes(content)
    done = subprocess.run(
        ["git", "-C", str(folder), "check-ignore", "--no-index", "-z", "--stdin"],
        input="\0".join(paths).encode(),
        capture_output=True,
        check=False,
    )
    ignored = set(done.stdout.decode().split("\0"))
    return {path: path in ignored for path in paths}


def by_us(content: bytes, paths: list[str]) -> dict[str, bool]:
    rules = Rules(content)
    return {path: _ignored(rules, path) for path in paths}


def _ignored(rules: Rules, path: str) -> bool:
    parts = path.encode().split(b"/")
    for depth in range(1, len(parts) + 1):
        inner = b"/".join(parts[:depth])
        if rules.ignored(parts[depth - 1], inner, depth < len(parts)):
            return True
    return False


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with all the paths, so that git knows what is a folder."""
    made = tmp_path_factory.mktemp("ignores")
    subprocess.run(["git", "init", "--quiet", str(made)], check=True)
    subprocess.run(["git", "-C", str(made), "config", "core.excludesFile", "/dev/null"], check=True)
    for path in PATHS:
        # A name cannot be a file and a folder: those that are both are folders.
        if not any(other.startswith(path + "/") for other in PATHS):
            os.makedirs((made / path).parent, exist_ok=True)
            (made / path).touch()
    return made


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(patterns=PATTERNS)
def test_what_is_ignored_is_what_git_ignores(folder: Path, patterns: list[str]) -> None:
    content = "\n".join(patterns).encode()
    files = [path for path in PATHS if not any(other.startswith(path + "/") for other in PATHS)]
    assert by_us(content, files) == by_git(folder, content, files)


@pytest.mark.parametrize(
    "line", ["*.o", "build/", "/dist", "!keep", "doc/**/*.txt", "**/node_modules", "a/*", "[", "a\\", "\\#x", "x\\ "]
)
def test_common_patterns_mean_what_git_says(folder: Path, line: str) -> None:
    files = [path for path in PATHS if not any(other.startswith(path + "/") for other in PATHS)]
    content = f"a*\n{line}\n".encode()
    assert by_us(content, files) == by_git(folder, content, files)


def test_a_pattern_made_to_take_for_ever_takes_no_time() -> None:
    rules = Rules(b"*a" * 40 + b"b\n" + b"**/a/" * 30 + b"b")
    assert not rules.ignored(b"a" * 255, b"a/" * 100 + b"a" * 255, False)
