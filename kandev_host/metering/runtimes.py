"""What is started in jails and containers, and how long that takes; with a span, where one is current."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import PurePosixPath
from types import TracebackType
from typing import Any

from kandev_host import tracing
from kandev_host.interfaces import ProcessSpec, Result, Runtime, Telemetry

Told = Callable[[float, BaseException | None], None]


class Start:
    """A process that is about to be started, timed up to the moment when it is there."""

    def __init__(self, started: AbstractAsyncContextManager[Any], told: Told, span: tracing.Attributes) -> None:
        self._started = started
        self._told = told
        self._span = span

    async def __aenter__(self) -> Any:
        began = time.perf_counter()
        try:
            with tracing.child("spawn", self._span):
                process = await self._started.__aenter__()
        except BaseException as error:
            self._told(began, error)
            raise
        self._told(began, None)
        return process

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._started.__aexit__(kind, error, trace)


class RuntimeTap:
    """A runtime whose starts are measured; the rest of it is as it was."""

    def __init__(self, runtime: Runtime, name: str, telemetry: Telemetry) -> None:
        self._runtime = runtime
        self._name = name
        self._telemetry = telemetry

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)

    def spawn(self, spec: ProcessSpec) -> Start:
        return self._start(self._runtime.spawn(spec), "process", spec)

    def open_shell(self, spec: ProcessSpec) -> Start:
        return self._start(self._runtime.open_shell(spec), "shell", spec)

    def open_terminal(self, spec: ProcessSpec, columns: int, rows: int) -> Start:
        return self._start(self._runtime.open_terminal(spec, columns, rows), "terminal", spec)

    async def run(self, spec: ProcessSpec, **options: Any) -> Result:
        began = time.perf_counter()
        try:
            with tracing.child("run", self._described("command", spec)):
                result = await self._runtime.run(spec, **options)
        except BaseException as error:
            self._count("command", error)
            raise
        self._count("command", None)
        took = time.perf_counter() - began
        self._telemetry.observe("kandev_command_duration_seconds", took, {"runtime": self._name})
        return result

    def _start(self, started: AbstractAsyncContextManager[Any], kind: str, spec: ProcessSpec) -> Start:
        return Start(started, self._telling(kind), self._described(kind, spec))

    def _described(self, kind: str, spec: ProcessSpec) -> tracing.Attributes:
        """Of the command only its name: arguments are anybody's."""
        return {
            "kandev.runtime": self._name,
            "kandev.spawn.kind": kind,
            "kandev.task.id": spec.workspace_id,
            "process.executable.name": PurePosixPath(spec.command[0]).name if spec.command else "",
        }

    def _telling(self, kind: str) -> Told:
        def told(began: float, error: BaseException | None) -> None:
            self._count(kind, error)
            if error is None:
                labels = {"runtime": self._name, "kind": kind}
                self._telemetry.observe("kandev_spawn_duration_seconds", time.perf_counter() - began, labels)

        return told

    def _count(self, kind: str, error: BaseException | None) -> None:
        outcome = "started" if error is None else "failed" if isinstance(error, Exception) else "cancelled"
        labels = {"runtime": self._name, "kind": kind, "outcome": outcome}
        self._telemetry.count("kandev_spawns_total", 1, labels)
