"""docs/network.md and the presets say the same."""

from __future__ import annotations

import re
from pathlib import Path

from kandev_sandbox import PRESETS

PAGE = (Path(__file__).resolve().parents[1] / "docs/network.md").read_text()


def test_the_page_has_every_preset_and_every_name() -> None:
    rows = dict(re.findall(r"^\| `@(\w+)` \| (.*) \|$", PAGE, re.M))
    assert {word: tuple(re.findall(r"`([^`]+)`", names)) for word, names in rows.items()} == dict(PRESETS)
