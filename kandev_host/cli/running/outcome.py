"""How a run ended, for the last lines, the summary object and the exit status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec.structs import asdict

Result = Literal["completed", "failed", "blocked", "cancelled"]
EXIT_STATUS: Mapping[Result, int] = {"completed": 0, "failed": 1, "blocked": 3, "cancelled": 130}
_RESULTS: Mapping[str, Result] = {
    "COMPLETED": "completed", "FAILED": "failed", "BLOCKED": "blocked", "CANCELLED": "cancelled",
}  # fmt: skip
_DEFAULT = "the default is to ask"
_KINDS = (
    ("input", "input_tokens"),
    ("output", "output_tokens"),
    ("thought", "thought_tokens"),
    ("cache read", "cached_read_tokens"),
    ("cache write", "cached_write_tokens"),
)


class Outcome(msgspec.Struct):
    """Unknown is None: a count that no agent reported is not 0.

    `unasked` requests for permission were rejected since there was nobody to ask; `asked_because` is why the host did
    not decide the last of them by itself. `unread`: nobody read the output any more, so the agent was stopped.
    """

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
    usage: dict[str, Any] = msgspec.field(default_factory=dict)
    workspace_hint: str | None = None
    attempts: int = 1
    permissions: dict[str, int] = msgspec.field(default_factory=dict)
    withheld_because: list[str] = msgspec.field(default_factory=list)
    unasked: int = 0
    asked_because: str | None = None
    unread: bool = False

    @property
    def exit_status(self) -> int:
        return EXIT_STATUS[self.result]

    def summary(self) -> dict[str, Any]:
        """For `--json`."""
        return {**asdict(self), "exit_status": self.exit_status}

    def settled(self, permission: Mapping[str, Any]) -> None:
        """A request of the agent was answered, by whomever, or came to nothing."""
        state, reason = str(permission.get("state")), permission.get("reason")
        self.permissions[state] = self.permissions.get(state, 0) + 1
        if state != "allowed" and reason and reason not in self.withheld_because:
            self.withheld_because.append(reason)

    def judge(self, preset: str | None = None, *, networked: bool = False) -> None:
        """A run that was given nothing, for want of somebody to ask, and changed nothing, is not done: it is blocked.

        Its agent may call that a success, and its task be COMPLETED; but whoever started it wanted the work.
        """
        if self.result == "completed" and self.unasked and not self.permissions.get("allowed") and not self.files:
            self.result = "blocked"
            remedy = self.remedy(preset, networked=networked)
            self.reason = f"the agent needed permission, and nobody can be asked here; {remedy}"

    def remedy(self, preset: str | None, *, networked: bool) -> str:
        """What helps with this `preset` of the command line, never what was done already, and why it was asked for.

        `networked`: the command line names what the agent may reach.
        """
        why = self.asked_because or _DEFAULT
        if preset is None and why == _DEFAULT:
            return "run it at a terminal, or with --yes --policy contained"
        ways = ["run it at a terminal"]
        if why.startswith("preset "):  # such a request a rule may allow, unlike one that is always asked for
            ways.append("let a rule of the settings allow it")
            if networked and "network" in why:
                ways.append("leave --allow out")
        return f"{', '.join(ways[:-1])}{' or ' if ways[1:] else ''}{ways[-1]} ({why})"

    def withheld(self) -> str | None:
        """What the agent had to do without; None if it was given all that it asked for.

        Not an error by itself: an agent may find another way, and says with its turn's end how that went.
        """
        counts = [f"{count} {state}" for state, count in self.permissions.items() if state != "allowed"]
        why = f" ({'; '.join(self.withheld_because)})" if self.withheld_because else ""
        return f"permissions not given: {', '.join(counts)}{why}" if counts else None

    def verdict(self) -> str:
        """The result and why, in one line."""
        tried = f" after {self.attempts} attempts" if self.attempts > 1 else ""
        return self.result + tried + (f": {self.reason}" if self.reason else "")

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
