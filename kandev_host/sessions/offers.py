"""What the host offers to an agent beside the protocol's own: files and terminals, where its type says so."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any

from kandev_host.interfaces import Process, ProcessSpec, Runtime
from kandev_host.sessions.audit import CommandAudit
from kandev_host.sessions.files import AgentFiles
from kandev_host.sessions.stage import SessionState, Stage
from kandev_host.sessions.terminals import Terminals


class Offers:
    """`serve` holds what is offered, as soon as the place is known where the agent runs; without a jail, nothing is."""

    def __init__(self, stage: Stage, state: SessionState) -> None:
        self._stage = stage
        self._state = state
        self.serve: Mapping[str, Any] = {}

    def process(
        self, runtime: Runtime, spec: ProcessSpec, left: Process | None = None
    ) -> AbstractAsyncContextManager[Process]:
        """The agent's process, one that is `left` or a new one, with what is offered to it for as long as it lives."""
        started = runtime.spawn(spec) if left is None else nullcontext(left)
        wanted = self._stage.agent_type.offers
        offered = wanted if wanted and runtime.confines else ()
        self._state.offers = frozenset(offered)
        serve: dict[str, Any] = {}
        if "files" in offered:

            def may_write() -> bool:
                return self._may_change() and not spec.read_only

            serve |= AgentFiles(runtime, spec, self._session_id, may_write).serve
        if "terminal" not in offered:
            self.serve = serve
            return started
        stage = self._stage
        audit = CommandAudit(stage.journal, stage.agent, self._turn_id, stage.looks)
        terminals = Terminals(runtime, spec, self._session_id, self._may_change, audit)
        self.serve = serve | dict(terminals.serve)
        return _with(started, terminals)

    def _session_id(self) -> str | None:
        return self._state.acp_session_id

    def _turn_id(self) -> str | None:
        return self._state.watch.turn.id if self._state.watch is not None else None

    def _may_change(self) -> bool:
        return self._stage.situation.at(time.monotonic()).preset != "read-only"


@asynccontextmanager
async def _with(spawned: AbstractAsyncContextManager[Process], terminals: Terminals) -> AsyncIterator[Process]:
    async with spawned as process, terminals.open():
        yield process
