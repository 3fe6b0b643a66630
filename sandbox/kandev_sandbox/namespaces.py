"""Calling a function in another mount namespace."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from kandev_sandbox import libc

T = TypeVar("T")


def within(namespace: int | None, call: Callable[..., T], *arguments: Any) -> T:
    """Call it in a thread that enters this namespace (a descriptor) and ends in there; here, if it is None. Blocks.

    What it opens stays open, and stays what it is, in this process.
    """
    if namespace is None:
        return call(*arguments)
    outcome: list[T] = []
    errors: list[BaseException] = []

    def enter() -> None:
        try:
            libc.unshare(libc.CLONE_FS)  # a thread that shares its root and cwd may not move
            libc.setns(namespace, libc.CLONE_NEWNS)
            outcome.append(call(*arguments))
        except BaseException as error:  # handed to the thread that waits for it
            errors.append(error)

    thread = threading.Thread(target=enter, name="kandev-namespace")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return outcome[0]
