"""The runtime "bwrap": agents, shells and git in a jail of Linux namespaces (kandev_sandbox)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import msgspec

from kandev_host import Environment, Provider, Runtime, hookimpl


class BwrapSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table `[runtime.bwrap]`.

    `bwrap` is the binary to use, and then no other (by default the system's, else the bundled one, whichever first
    makes a real jail). `path` are folders searched for programs before the host's own PATH. As root, every
    workspace gets a uid of its own from `uid_first` on. `max_open_files` and `max_file_bytes` hold for each process,
    `max_processes` for a workspace (as root only).
    """

    bwrap: str | None = None
    path: tuple[str, ...] = ()
    uid_first: Annotated[int, msgspec.Meta(ge=65_536, le=4_000_000_000)] = 0x7000_0000
    uid_count: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 65_536
    max_open_files: Annotated[int, msgspec.Meta(ge=64)] = 4096
    max_processes: Annotated[int, msgspec.Meta(ge=16)] = 2048
    max_file_bytes: Annotated[int, msgspec.Meta(ge=1 << 20)] = 8 << 30


@asynccontextmanager
async def open_runtime(settings: BwrapSettings, environment: Environment) -> AsyncIterator[Runtime]:
    """End what a dead host with this data folder left behind, then serve."""
    from kandev_bwrap.runtime import BwrapRuntime

    runtime = BwrapRuntime(settings, Path(environment.data_dir).resolve())  # noqa: ASYNC240 - once, at the start
    await runtime.sweep()
    yield runtime


@hookimpl
def kandev_runtimes() -> list[Provider[BwrapSettings, Runtime]]:
    return [Provider("bwrap", open_runtime, BwrapSettings)]
