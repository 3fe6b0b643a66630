"""Does a series grow? Told by its slope (least squares), judged by medians of thirds: a slope believes outliers."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

HOUR_S = 3600.0
WARM_UP = 0.2  # caches fill, threads of pools start: the first part of a run says nothing
GROWTH = 0.05


@dataclass(frozen=True)
class Series:
    """What was seen at rest, as (second, value), and at most under load. `allowance` is None where growth is fine."""

    name: str
    unit: str
    points: Sequence[tuple[float, float]]
    most: float
    allowance: float | None

    @property
    def counted(self) -> Sequence[tuple[float, float]]:
        return self.points[int(len(self.points) * WARM_UP) :]

    @property
    def per_hour(self) -> float:
        times, values = zip(*self.counted, strict=True)
        return statistics.linear_regression(times, values).slope * HOUR_S if len(set(times)) > 1 else 0.0

    @property
    def thirds(self) -> tuple[float, float, float]:
        """The median of each; of fewer than three points the last one stands for all."""
        values = [value for _, value in self.counted]
        cut = max(1, len(values) // 3)
        first, last = values[:cut], values[-cut:]
        return statistics.median(first), statistics.median(values[cut:-cut] or last), statistics.median(last)

    @property
    def leaks(self) -> bool:
        """It rose from third to third, and by more than what comes and goes."""
        first, second, third = self.thirds
        if self.allowance is None:
            return False
        return first <= second <= third and third - first > max(self.allowance, first * GROWTH)

    def plain(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "unit": self.unit,
            "thirds": self.thirds,
            "per_hour": self.per_hour,
            "most_under_load": self.most,
            "judged": self.allowance is not None,
            "leaks": self.leaks,
            "points": self.points,
        }
