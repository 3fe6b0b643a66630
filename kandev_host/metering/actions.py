"""How long the handlers of actions take, and what they refuse."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from inspect import isawaitable
from typing import Any

from msgspec.structs import replace

from kandev_host.errors import KandevError
from kandev_host.interfaces import Action, Call, Telemetry


def code_of(error: BaseException) -> str:
    """The wire code of an error; what the host gives up itself is CANCELLED."""
    if isinstance(error, KandevError):
        return error.code
    return "CANCELLED" if isinstance(error, asyncio.CancelledError) else KandevError.code


def timed(action: Action[Any], telemetry: Telemetry) -> Action[Any]:
    """The same action, measured."""
    handler = action.handler
    good = {"action": action.name, "outcome": "ok"}
    bad = {"action": action.name, "outcome": "error"}

    def told(began: float, error: BaseException | None = None) -> None:
        took = time.perf_counter() - began
        telemetry.observe("kandev_action_duration_seconds", took, good if error is None else bad)
        if error is not None:
            telemetry.count("kandev_action_errors_total", 1, {"code": code_of(error)})

    async def finished(result: Awaitable[Any], began: float) -> Any:
        try:
            value = await result
        except BaseException as error:
            told(began, error)
            raise
        told(began)
        return value

    def measured(call: Call, request: Any) -> Any:
        began = time.perf_counter()
        try:
            result = handler(call, request)
        except Exception as error:
            told(began, error)
            raise
        if isawaitable(result):
            return finished(result, began)
        told(began)
        return result

    return replace(action, handler=measured)
