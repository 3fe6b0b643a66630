"""The documentation says what the code does."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from kandev_host import errors

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_actions_is_that_of_the_types() -> None:
    page = (ROOT / "docs/protocol.md").read_text()
    assert generator().generated(page) == page, "run: python docs/generate.py"


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
