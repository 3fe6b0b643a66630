"""Pairs of measurements, ours and the floor in turn (A B A B), so that a drifting machine moves both."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

Measure = Callable[[], float]
Setup = Callable[[], AbstractContextManager[tuple[Measure, Measure]]]


@dataclass(frozen=True)
class Row:
    """One figure. `setup` opens what both sides need and yields (ours, floor): each call is one measurement.

    `target` is a bound of the ratio ours to floor: "≤ 1.5" or "≥ 2". `missing` says what of another project's this
    machine lacks, so that the row cannot be measured; None when nothing does.
    """

    name: str
    what: str
    unit: str
    target: str
    setup: Setup
    missing: Callable[[], str | None] = lambda: None

    def run(self, pairs: int) -> Outcome:
        with self.setup() as (ours, floor):
            ours(), floor()  # warm up; not counted
            measured = [(ours(), floor()) for _ in range(pairs)]
        ratios = [a / b for a, b in measured]
        return Outcome(
            row=self,
            ours=statistics.median(a for a, _ in measured),
            floor=statistics.median(b for _, b in measured),
            ratio=statistics.median(ratios),
            low=min(ratios),
            high=max(ratios),
        )


@dataclass(frozen=True)
class Outcome:
    """Medians over the pairs; the ratio is the median of the pairs' own ratios."""

    row: Row
    ours: float
    floor: float
    ratio: float
    low: float
    high: float

    @property
    def met(self) -> bool:
        sign, bound = self.row.target.split()
        return self.ratio <= float(bound) if sign == "≤" else self.ratio >= float(bound)

    def plain(self) -> dict[str, Any]:
        return {
            "row": self.row.name,
            "unit": self.row.unit,
            "ours": self.ours,
            "floor": self.floor,
            "ratio": self.ratio,
            "ratio_min": self.low,
            "ratio_max": self.high,
            "target": self.row.target,
            "met": self.met,
        }


def both(ours: Measure, floor: Measure) -> Setup:
    """A setup with nothing to open."""

    @contextmanager
    def opened() -> Iterator[tuple[Measure, Measure]]:
        yield ours, floor

    return opened
