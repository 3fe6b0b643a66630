"""Calling a function in another mount namespace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from kandev_sandbox import libc
from kandev_sandbox.apart import apart

T = TypeVar("T")


def within(namespace: int | None, call: Callable[..., T], *arguments: Any) -> T:
    """Call it in a thread that enters this namespace (a descriptor) and ends in there; here, if it is None. Blocks.

    What it opens stays open, and stays what it is, in this process.
    """
    if namespace is None:
        return call(*arguments)

    def enter() -> T:
        libc.unshare(libc.CLONE_FS)  # a thread that shares its root and cwd may not move
        libc.setns(namespace, libc.CLONE_NEWNS)
        return call(*arguments)

    return apart(enter)
