"""Hostile commands in the system's shell. After each: is the session still usable, and are its answers right?"""

from __future__ import annotations

from typing import Any

import pytest

from kandev_sandbox import Bwrap

from .hostile_commands import CASES, Case, judge

pytestmark = pytest.mark.anyio


@pytest.fixture
def bwrap(bwraps: list[Bwrap]) -> Bwrap:
    """One is enough: what is tried here are shells."""
    return bwraps[0]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_the_session_is_right_after(sandbox: Any, case: Case) -> None:
    await judge(sandbox, "/bin/sh", case)
