"""The runtime "docker": agents and git in hardened containers of a Docker Engine (extra `kandev-host[docker]`)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from kandev_host import Environment, Images, Provider, Runtime, hookimpl

EXTRA = "kandev-host[docker]"
SOCKET = "/var/run/docker.sock"


class DockerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table `[runtime.docker]`.

    `socket` is the engine's, on this machine (else DOCKER_HOST's, else /var/run/docker.sock); `engine_timeout_s` bounds
    one question to it and `pull_timeout_s` the pull of an image,
    of which the engine may say nothing for `pull_stall_s`. `image` is for agent types that name none, and for git
    and shells; `pull` says when images are pulled. With `after_host_death = "adopt"` the containers of agents that
    speak ACP go on while the host is dead, with `log_limit_bytes` of their output kept, and the next host goes on with
    them; with "stop" they are told the end of their input, and are removed at the next start.

    As root, every workspace gets a uid of its own from `uid_first` on. `max_open_files` and `max_file_bytes` hold for
    each process; `max_processes` (threads count), `memory_limit_bytes` (at most three quarters of the machine's),
    `swap_limit_bytes` on top of it, `cpu_limit` (1.5 is one and a half CPUs) and `time_limit_s` for a container. What
    an agent type or a run sets goes before memory_limit_bytes and cpu_limit. An engine that cannot bound memory or
    processes is refused; with `require_limits = false` it is used, without those bounds. `scratch_limit_bytes` (of RAM)
    bounds each tmpfs. With `disk = "watch"` a workspace is looked at every `disk_watch_interval_s` while something runs
    there, and whatever runs is ended when workspace, home and tmp hold more than `disk_limit_bytes` or `inodes_limit`.
    """

    socket: str | None = None
    engine_timeout_s: Annotated[float, msgspec.Meta(ge=1.0, le=600.0)] = 30.0
    pull_timeout_s: Annotated[float, msgspec.Meta(ge=1.0)] = 1800.0
    pull_stall_s: Annotated[float, msgspec.Meta(ge=1.0)] = 120.0
    image: Annotated[str, msgspec.Meta(min_length=1)] = "kandev-base"
    pull: Literal["missing", "never", "always"] = "missing"
    after_host_death: Literal["adopt", "stop"] = "adopt"
    log_limit_bytes: Annotated[int, msgspec.Meta(ge=1 << 20)] = 64 << 20
    uid_first: Annotated[int, msgspec.Meta(ge=65_536, le=4_000_000_000)] = 0x7000_0000
    uid_count: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 65_536
    max_open_files: Annotated[int, msgspec.Meta(ge=64)] = 4096
    max_processes: Annotated[int, msgspec.Meta(ge=16)] = 2048
    max_file_bytes: Annotated[int, msgspec.Meta(ge=1 << 20)] = 8 << 30
    memory_limit_bytes: Annotated[int, msgspec.Meta(ge=64 << 20)] = 8 << 30
    swap_limit_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0
    cpu_limit: Annotated[float, msgspec.Meta(ge=0.01)] | None = None
    time_limit_s: Annotated[float, msgspec.Meta(gt=0)] | None = None
    require_limits: bool = True
    scratch_limit_bytes: Annotated[int, msgspec.Meta(ge=1 << 20)] = 64 << 20
    disk: Literal["watch", "none"] = "watch"
    disk_limit_bytes: Annotated[int, msgspec.Meta(ge=4 << 20)] = 16 << 30
    inodes_limit: Annotated[int, msgspec.Meta(ge=64)] = 2_000_000
    disk_watch_interval_s: Annotated[float, msgspec.Meta(ge=0.05)] = 5.0


@asynccontextmanager
async def open_runtime(settings: DockerSettings, environment: Environment) -> AsyncIterator[Runtime]:
    """Serve, and look after containers that could not be removed while the engine was away."""
    from kandev_docker.runtime import DockerRuntime

    data_dir = Path(environment.data_dir).resolve()  # noqa: ASYNC240 - once, at the start
    async with DockerRuntime(settings, data_dir) as runtime:
        yield runtime


@asynccontextmanager
async def open_images(settings: DockerSettings) -> AsyncIterator[Images]:
    """Make and fetch images, without a runtime."""
    from kandev_docker import making

    async with making.open_images(settings) as images:
        yield images


@hookimpl
def kandev_runtimes() -> list[Provider[DockerSettings, Runtime]]:
    found = find_spec("docker")
    # Any folder called docker, where the host was started, is found as well: one without a file of its own.
    missing = None if found is not None and found.origin is not None else EXTRA
    return [Provider("docker", open_runtime, DockerSettings, missing, open_images)]
