"""docs/reliability.md names tests: they exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_every_promise_names_a_test_that_exists() -> None:
    page = (ROOT / "docs/reliability.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", page))
    sources = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert named
    assert {name for name in named if not re.search(rf"def {name}\(", sources)} == set()


def test_every_promise_in_a_tests_name_is_on_the_page() -> None:
    page = (ROOT / "docs/reliability.md").read_text()
    sources = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__)]
    promises = {name for text in sources for name in re.findall(r"def (test_p\d+_\w+)\(", text)}
    assert {name for name in promises if name not in page} == set()
