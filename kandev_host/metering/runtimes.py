"""What is started in jails and containers, and how long that takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any

from kandev_host.interfaces import ProcessSpec, Result, Runtime, Telemetry

Told = Callable[[float, BaseException | None], None]


class Start:
    """A process that is about to be started, timed up to the moment when it is there."""

    def __init__(self, started: AbstractAsyncContextManager[Any], told: Told) -> None:
        self._started = started
        self._told = told

    async def __aenter__(self) -> Any:
        began = time.perf_counter()
        try:
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
        return Start(self._runtime.spawn(spec), self._telling("process"))

    def open_shell(self, spec: ProcessSpec) -> Start:
        return Start(self._runtime.open_shell(spec), self._telling("shell"))

    def open_terminal(self, spec: ProcessSpec, columns: int, rows: int) -> Start:
        return Start(self._runtime.open_terminal(spec, columns, rows), self._telling("terminal"))

    async def run(self, *arguments: Any, **options: Any) -> Result:
        began = time.perf_counter()
        try:
            result = await self._runtime.run(*arguments, **options)
        except BaseException as error:
            self._count("command", error)
            raise
        self._count("command", None)
        took = time.perf_counter() - began
        self._telemetry.observe("kandev_command_duration_seconds", took, {"runtime": self._name})
        return result

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
