"""docs/security.md says who may do what, as the code does."""

from __future__ import annotations

import re
from pathlib import Path

from kandev_host.gateway.access import AGENTS_MAY
from kandev_host.interfaces import SCOPES

PAGE = (Path(__file__).resolve().parents[1] / "docs/security.md").read_text()
SECTION = PAGE.partition("## Who may do what\n")[2].partition("\n## ")[0]


def scopes_in(row: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", row.split("|")[2]))


def test_the_roles_hold_what_the_page_says() -> None:
    viewer, member, admin = (
        scopes_in(next(line for line in SECTION.splitlines() if line.startswith(f"| {role}")))
        for role in ("viewer", "member", "admin")
    )
    assert viewer == SCOPES["viewer"]
    assert viewer | member == SCOPES["member"]
    assert admin == SCOPES["admin"]


def test_agents_may_do_what_the_page_says() -> None:
    paragraph = SECTION.partition("**Tokens of agents.**")[2].partition("Nothing else")[0]
    named = set(re.findall(r"`([a-z]+\.[a-z_]+)`", paragraph))
    assert named == AGENTS_MAY.keys()
