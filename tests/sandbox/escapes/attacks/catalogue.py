"""All attacks: importing a module enters its attacks into the table."""

from __future__ import annotations

from . import (  # noqa: F401
    calls,
    devices,
    environment,
    files,
    git,
    leftovers,
    mounts,
    namespaces,
    processes,
    resources,
    sockets,
)
from .table import CASES

__all__ = ["CASES"]
