"""Attacks on the jail, one table of them: each is refused in every kind of jail, and gets through without one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .attacks.table import Case
from .runs import Outcome, Setup, cases, run, setups

pytestmark = pytest.mark.timeout(400)  # the first test of each kind of jail runs all of its attacks
FREE = Setup()
JAILED = [(setup, case) for setup in setups() for case in cases(setup)]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Setup], dict[str, Outcome]]:
    """Of a kind of jail: what became of each attack. They are run when the first is asked for."""
    known: dict[Setup, dict[str, Outcome] | Exception] = {}

    def of(setup: Setup) -> dict[str, Outcome]:
        if setup not in known:
            try:
                known[setup] = run(setup, tmp_path_factory.mktemp(str(setup)))
            except Exception as error:  # told by every test of this kind
                known[setup] = error
        found = known[setup]
        if isinstance(found, Exception):
            raise found
        return found

    return of


@pytest.mark.parametrize(("setup", "case"), JAILED, ids=[f"{setup}-{case.name}" for setup, case in JAILED])
def test_the_jail_holds(setup: Setup, case: Case, outcomes: Callable[[Setup], dict[str, Outcome]]) -> None:
    outcome = outcomes(setup)[case.name]
    assert "broken" not in outcome.answer, outcome.answer["broken"]
    assert not outcome.through, outcome.answer


@pytest.mark.parametrize("case", cases(FREE), ids=lambda case: case.name)
def test_without_a_jail_it_gets_through(case: Case, outcomes: Callable[[Setup], dict[str, Outcome]]) -> None:
    outcome = outcomes(FREE)[case.name]
    assert "broken" not in outcome.answer, outcome.answer["broken"]
    assert outcome.through, outcome.answer


def test_there_are_enough_attacks() -> None:
    assert len(cases(FREE)) >= 80
