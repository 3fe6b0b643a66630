"""docs/docker.md says what config/ holds."""

from __future__ import annotations

import re
from pathlib import Path

from kandev_host.cli.image import lean as command
from kandev_host.cli.recipes import recipes

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/docker.md").read_text()


def test_the_page_has_every_image() -> None:
    rows = [
        f"| `{made.name}` | `{made.repository}` | {made.version} | {made.description} |" for made in recipes().values()
    ]
    assert [row for row in rows if row not in PAGE] == []


def test_the_page_has_every_variable_of_the_compose_file_with_its_default() -> None:
    told = dict(re.findall(r"^\| `([A-Z_]+)` \| `([^`]+)` \|", PAGE, re.MULTILINE))
    used = dict(re.findall(r"\$\{([A-Z_]+):-([^}]+)\}", (ROOT / "config/compose.yaml").read_text()))
    assert told == used


def test_every_option_of_the_lean_image_on_the_page_is_one(lean) -> None:  # type: ignore[no-untyped-def]
    of_command = {option for parameter in command.params for option in parameter.opts}
    of_script = set(re.findall(r"--[a-z]+", lean("--help").stdout))
    lines = [line for line in PAGE.splitlines() if line.startswith("$ kandev-host image lean")]
    assert lines
    assert {option for line in lines for option in re.findall(r"--[a-z]+", line)} <= of_command & of_script
