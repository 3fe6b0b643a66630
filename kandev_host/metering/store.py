"""How long the store takes, and what it was given to keep."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from kandev_host.errors import KandevError
from kandev_host.interfaces import Commit, Store, Telemetry
from kandev_host.metering.actions import code_of
from kandev_host.metering.recorder import Recorder

OPERATIONS = (
    "commit", "count", "events", "expired", "find", "get", "journal_state", "search", "trim", "usage_sums"
)  # fmt: skip
WRITTEN, REFUSED = {"outcome": "written"}, {"outcome": "refused"}
Operation = Callable[..., Awaitable[Any]]


class StoreTap:
    """A store whose operations are measured; what is committed goes to the recorder."""

    def __init__(self, store: Store, telemetry: Telemetry, recorder: Recorder) -> None:
        self._store = store
        self._telemetry = telemetry
        self._recorder = recorder
        for outcome in (WRITTEN, REFUSED):
            telemetry.count("kandev_store_commits_total", 0, outcome)
        for code in ("BUSY", "STORAGE_FULL"):
            telemetry.count("kandev_store_errors_total", 0, {"operation": "commit", "code": code})
        self._timed = {name: self._measured(name, getattr(store, name)) for name in OPERATIONS}

    def __getattr__(self, name: str) -> Any:
        return self._timed.get(name) or getattr(self._store, name)

    async def commit(self, commits: Sequence[Commit]) -> Sequence[Sequence[int] | KandevError]:
        outcomes: Sequence[Sequence[int] | KandevError] = await self._timed["commit"](commits)
        written = [
            commit for commit, outcome in zip(commits, outcomes, strict=False) if not isinstance(outcome, Exception)
        ]
        if written:
            self._telemetry.count("kandev_store_commits_total", len(written), WRITTEN)
        if refused := len(commits) - len(written):
            self._telemetry.count("kandev_store_commits_total", refused, REFUSED)
        self._recorder.record(written)
        return outcomes

    def _measured(self, name: str, operation: Operation) -> Operation:
        labels = {"operation": name}

        async def measured(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return await operation(*arguments, **options)
            except BaseException as error:
                self._telemetry.count("kandev_store_errors_total", 1, {**labels, "code": code_of(error)})
                raise
            finally:
                self._telemetry.observe("kandev_store_duration_seconds", time.perf_counter() - began, labels)

        return measured
