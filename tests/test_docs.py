"""The documentation says what the code does."""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from kandev_host import errors
from kandev_host.protocol.notifications import NOTIFICATIONS

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_and_examples_of_the_protocol_are_those_of_types_and_story() -> None:
    page = (ROOT / "docs/protocol.md").read_text()
    assert generator().generated(page) == page, "run: python docs/generate.py"


def test_every_jump_within_the_protocol_leads_to_one_heading() -> None:
    page = (ROOT / "docs/protocol.md").read_text()
    headings = Counter(generator().slug(heading) for heading in re.findall(r"^#{1,3} (.+)$", page, re.MULTILINE))
    jumps = set(re.findall(r"\]\(#([^)]*)\)", page))
    assert {jump: headings[jump] for jump in jumps if headings[jump] != 1} == {}


def test_every_event_that_the_code_names_is_described() -> None:
    folders = [ROOT / "kandev_host" / name for name in ("services", "sessions", "gateway")]
    sources = [path.read_text() for folder in folders for path in folder.rglob("*.py")]
    named = {name for text in sources for name in re.findall(r"""event\(\s*"([a-z_]+\.[a-z_]+)\"""", text)}
    assert "task.created" in named
    assert named - NOTIFICATIONS.keys() == set()


def test_every_error_code_is_described() -> None:
    page = (ROOT / "docs/protocol.md").read_text()
    codes = {value.code for value in vars(errors).values() if isinstance(value, type) and hasattr(value, "code")}
    assert {code for code in codes if code not in page} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("command", ["make run", "make test"])
def test_the_readme_has_the_two_commands(command: str) -> None:
    assert f"$ {command}" in (ROOT / "README.md").read_text()
