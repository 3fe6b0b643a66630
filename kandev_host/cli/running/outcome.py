"""How a run ended, for the last lines, the summary object and the exit status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Result = Literal["completed", "failed", "blocked", "cancelled"]
EXIT_STATUS: Mapping[Result, int] = {"completed": 0, "failed": 1, "blocked": 3, "cancelled": 130}
_RESULTS: Mapping[str, Result] = {
    "COMPLETED": "completed", "FAILED": "failed", "BLOCKED": "blocked", "CANCELLED": "cancelled",
}  # fmt: skip
_KINDS = (
    ("input", "input_tokens"),
    ("output", "output_tokens"),
    ("thought", "thought_tokens"),
    ("cache read", "cached_read_tokens"),
    ("cache write", "cached_write_tokens"),
)


@dataclass(slots=True)
class Outcome:
    """Unknown is None: a count that no agent reported is not 0."""

    result: Result = "failed"
    reason: str | None = None
    task_id: str | None = None
    agent_id: str | None = None
    stop_reason: str | None = None
    diff: str | None = None
    truncated: bool = False
    files: int = 0
    additions: int = 0
    deletions: int = 0
    usage: dict[str, Any] = field(default_factory=dict)
    workspace_hint: str | None = None

    @property
    def exit_status(self) -> int:
        return EXIT_STATUS[self.result]

    def summary(self) -> dict[str, Any]:
        """For `--json`."""
        return {**asdict(self), "exit_status": self.exit_status}

    def usage_line(self) -> str:
        """Tokens by kind and cost by currency, as far as the agent reported them."""
        counts = [f"{self.usage[key]:,} {name}" for name, key in _KINDS if self.usage.get(key) is not None]
        if not counts and self.usage.get("total_tokens") is not None:
            counts = [f"{self.usage['total_tokens']:,} in all"]
        costs = [f"{amount} {currency}" for currency, amount in (self.usage.get("cost") or {}).items()]
        tokens = ", ".join(counts) or "not reported"
        return f"tokens: {tokens}; cost: {' + '.join(costs) or 'unknown'}"


def result_of(state: str | None) -> Result | None:
    """What a task's state means for the run; None while it goes on."""
    return _RESULTS.get(state or "")
