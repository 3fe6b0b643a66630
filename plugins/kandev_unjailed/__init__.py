"""The runtime "host": plain processes without any jail. It refuses to start one until the settings say so twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from kandev_host import Environment, Provider, Runtime, hookimpl


class HostSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table `[runtime.host]`.

    With `i_understand_there_is_no_jail = true`, agents run as this user, with all of this user's files, network and
    log-ins. Without it the runtime is listed, and refuses.
    """

    i_understand_there_is_no_jail: bool = False


@asynccontextmanager
async def open_runtime(settings: HostSettings, environment: Environment) -> AsyncIterator[Runtime]:
    """End what a dead host with this data folder left behind, then serve."""
    from kandev_unjailed.runtime import HostRuntime

    runtime = HostRuntime(settings, Path(environment.data_dir).resolve())  # noqa: ASYNC240 - once, at the start
    await runtime.sweep()
    yield runtime


@hookimpl
def kandev_runtimes() -> list[Provider[HostSettings, Runtime]]:
    return [Provider("host", open_runtime, HostSettings)]
