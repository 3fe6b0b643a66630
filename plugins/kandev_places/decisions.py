"""What the proxies of a runtime's processes decide, on its way to the host's journal."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import anyio

from kandev_host import NetworkDecision
from kandev_sandbox import Decision, Gate, Policy, PolicyError

log = logging.getLogger(__name__)

WAITING = 4096
REMEMBERED = 1024  # sets of labels: far more than jails are on their way up at once


class Decisions:
    """A queue for one reader. Without one, or with a slow one, the oldest go; whoever adds never waits."""

    def __init__(self) -> None:
        self._waiting: deque[NetworkDecision] = deque(maxlen=WAITING)
        self._arrived = anyio.Event()

    def adder(self, labels: Mapping[str, str]) -> Callable[[Decision], None]:
        """What takes the decisions about a process with these labels."""

        def add(decision: Decision) -> None:
            self._waiting.append(
                NetworkDecision(
                    allowed=decision.allowed,
                    host=decision.host,
                    port=decision.port,
                    protocol=decision.protocol,
                    reason=decision.reason,
                    rule=decision.rule,
                    address=decision.address,
                    how_to_allow=decision.how_to_allow,
                    ended=decision.ended,
                    sent_bytes=decision.sent_bytes,
                    received_bytes=decision.received_bytes,
                    labels=labels,
                )
            )
            self._arrived.set()

        return add

    async def read(self) -> AsyncIterator[NetworkDecision]:
        """From now on, without an end."""
        self._waiting.clear()
        while True:
            while self._waiting:
                yield self._waiting.popleft()
            self._arrived = anyio.Event()
            await self._arrived.wait()


class Unreached:
    """Keeps what was said of the last connection of one process that was refused or could not be made."""

    def __init__(self) -> None:
        self.words: str | None = None

    def onto(self, policy: Policy, argv: Sequence[str]) -> tuple[Policy, Sequence[str]]:
        """The policy whose decisions are heard here as well."""
        tell = policy.on_decision

        def hear(decision: Decision) -> None:
            if not decision.allowed or decision.address is None:
                self.words = decision.message
            if tell is not None:
                tell(decision)

        return replace(policy, on_decision=hear), argv


class Gates:
    """What decides for the processes that run. What was allowed last, by labels, also holds for the next with these
    labels: a jail on its way up, made from what was known before, gets it as well.
    """

    def __init__(self) -> None:
        self._running: list[tuple[Mapping[str, str], Gate]] = []
        self._allowed: dict[frozenset[tuple[str, str]], tuple[str, ...]] = {}

    @contextmanager
    def of(self, gate: Gate, labels: Mapping[str, str]) -> Iterator[None]:
        """It runs until the context is left."""
        for wanted, entries in self._allowed.items():
            if wanted <= labels.items():
                _allow(gate, entries)
        entry = (labels, gate)
        self._running.append(entry)
        try:
            yield
        finally:
            self._running.remove(entry)

    def allow(self, labels: Mapping[str, str], entries: Sequence[str]) -> None:
        """Those with all these labels let through to these entries as well. Raises `ValueError` without a label."""
        if not labels:
            raise ValueError("no labels are those of every process")
        wanted = frozenset(labels.items())
        self._allowed.pop(wanted, None)
        self._allowed[wanted] = tuple(entries)
        if len(self._allowed) > REMEMBERED:
            del self._allowed[next(iter(self._allowed))]
        for found, gate in self._running:
            if wanted <= found.items():
                _allow(gate, entries)


def _allow(gate: Gate, entries: Sequence[str]) -> None:
    try:
        gate.allow(entries)
    except PolicyError as error:  # too many by now: those hold from the next start on
        log.warning("What was allowed holds from the next start on: %s", error.reason)


def hint(labels: Mapping[str, str]) -> str:
    """How a person allows an `{entry}` to a process with these labels."""
    task_id = labels.get("task_id")
    if "shell_id" in labels and task_id is None:
        return "open a shell with --allow {entry}"
    if "purpose" in labels:
        return "add {entry} to allow of [repositories.NAME] in the settings"
    return "add {entry} to allow" if task_id is None else f"kandev-host task allow {task_id} {{entry}}"
