"""The runtime "bwrap": agents, shells and git in a jail of Linux namespaces (kandev_sandbox)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from kandev_host import Environment, Provider, Runtime, hookimpl


class BwrapSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table `[runtime.bwrap]`.

    `bwrap` is the binary to use, and then no other (by default the system's, else the bundled one, whichever first
    makes a real jail). `path` are folders searched for programs before the host's own PATH. As root, every
    workspace gets a uid of its own from `uid_first` on. `max_open_files` and `max_file_bytes` hold for each process.
    The others hold for all processes of a jail together: `max_processes` (threads count), `memory_limit_bytes` (at most
    three quarters of the machine's), `swap_limit_bytes` on top of it, `cpu_limit` (1.5 is one and a half CPUs) and
    `time_limit_s`, after which it is ended. What an agent type or a run sets goes before memory_limit_bytes and
    cpu_limit. `kandev-host doctor` says whether this machine can hold jails to all of them ("limits: full").

    `disk_limit_bytes` and `inodes_limit` bound the workspace, home and tmp of a task together. With `disk = "volume"`
    (as root only) a new task's folders are a file system of their own of that size, in a sparse file. With "watch"
    they are looked at every `disk_watch_interval_s` while something runs there, and whatever runs is ended when they
    hold too much. "auto" is "volume" where that works, else "watch"; "none" bounds nothing. A run's own disk limit is
    watched.
    """

    bwrap: str | None = None
    path: tuple[str, ...] = ()
    uid_first: Annotated[int, msgspec.Meta(ge=65_536, le=4_000_000_000)] = 0x7000_0000
    uid_count: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 65_536
    max_open_files: Annotated[int, msgspec.Meta(ge=64)] = 4096
    max_processes: Annotated[int, msgspec.Meta(ge=16)] = 2048
    max_file_bytes: Annotated[int, msgspec.Meta(ge=1 << 20)] = 8 << 30
    memory_limit_bytes: Annotated[int, msgspec.Meta(ge=64 << 20)] = 8 << 30
    swap_limit_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0
    cpu_limit: Annotated[float, msgspec.Meta(ge=0.01)] | None = None
    time_limit_s: Annotated[float, msgspec.Meta(gt=0)] | None = None
    disk: Literal["auto", "volume", "watch", "none"] = "auto"
    disk_limit_bytes: Annotated[int, msgspec.Meta(ge=4 << 20)] = 16 << 30
    inodes_limit: Annotated[int, msgspec.Meta(ge=64)] = 2_000_000
    disk_watch_interval_s: Annotated[float, msgspec.Meta(ge=0.05)] = 5.0


@asynccontextmanager
async def open_runtime(settings: BwrapSettings, environment: Environment) -> AsyncIterator[Runtime]:
    """End what a dead host with this data folder left behind, try the jail once, then serve."""
    import anyio

    from kandev_bwrap.runtime import BwrapRuntime

    runtime = BwrapRuntime(settings, Path(environment.data_dir).resolve())  # noqa: ASYNC240 - once, at the start
    await runtime.sweep()
    await runtime.preflight()
    try:
        yield runtime
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(runtime.close)


@hookimpl
def kandev_runtimes() -> list[Provider[BwrapSettings, Runtime]]:
    return [Provider("bwrap", open_runtime, BwrapSettings)]
