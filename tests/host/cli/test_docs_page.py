"""docs/cli.md says what the commands say, and the README shows what they print."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]


def test_the_page_of_commands_is_that_of_the_code() -> None:
    spec = importlib.util.spec_from_file_location("generate_cli", ROOT / "docs/generate_cli.py")
    assert spec is not None
    assert spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    page = generator.PAGE.read_text()
    assert generator.generated(page) == page, "run: python docs/generate_cli.py"


def test_the_readme_shows_what_run_prints(kandev: Any, repository: Path) -> None:
    """But for ids, the port, and the question, which nobody is asked here."""
    shown = (ROOT / "README.md").read_text().partition('$ kandev-host run "write NOTES.md')[2].partition("```")[0]
    arguments = ("--agent", "demo", "--repo", str(repository), "--yes", "--policy", "contained")
    done = kandev("run", "write NOTES.md: ship on Friday", *arguments)
    assert done.status == 0, done.err
    printed = [settled(line) for line in done.out.splitlines()]
    assert [line for line in printed if line not in {settled(line) for line in shown.splitlines()}] == []


def settled(line: str) -> str:
    return re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|:\d{5}\b", "…", line)
