"""A call in a thread of its own, which ends with it: so do the namespaces and the ids that it gives itself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def apart(call: Callable[..., T], *arguments: Any) -> T:
    """What it returns or raises. Blocks. A thread of a pool would carry what it took on to other work."""
    outcome: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(call(*arguments))
        except BaseException as error:  # handed to the thread that waits for it
            errors.append(error)

    thread = threading.Thread(target=run, name="kandev-apart")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return outcome[0]
