"""What the parts of `RuntimeContract` share: how the runtime is opened, and what a runtime may lack."""

from __future__ import annotations

import functools
import importlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, cast

import anyio
import msgspec
import pytest

from kandev_host import Environment, Process, ProcessSpec, Provider, Runtime, errors

DEADLINE_S = 60.0
MIB = 1 << 20
# What a shell says of a process that SIGKILL or SIGTERM ended, and what a parent of it hears.
KILLED, TERMINATED = {-9, 137}, {-15, 143}
Capability = Literal["read_only", "snapshots", "shells", "terminals", "allowlist", "adoption"]
Test = TypeVar("Test", bound=Callable[..., Coroutine[Any, Any, None]])


class RuntimeSuite:
    """What an author says of a runtime; `RuntimeContract` says what of it is meant how."""

    plugin: ClassVar[str]
    provider: ClassVar[str | None] = None
    confines: ClassVar[bool] = True
    lacks: ClassVar[frozenset[Capability]] = frozenset()
    processes_limit: ClassVar[int] = 2048

    @pytest.fixture
    def settings(self) -> Mapping[str, Any]:
        return {}

    @pytest.fixture
    def data_dir(self, tmp_path: Path) -> Path:
        folder = tmp_path / "data"
        folder.mkdir(mode=0o700)
        return folder

    @pytest.fixture
    async def runtime(self, anyio_backend: str, settings: Mapping[str, Any], data_dir: Path) -> AsyncIterator[Runtime]:
        """Open, with the workspaces "w1" and "w2" prepared."""
        async with self.opened(settings, data_dir) as runtime:
            await runtime.prepare("w1")
            await runtime.prepare("w2")
            yield runtime

    def opened(self, settings: Mapping[str, Any], data_dir: Path) -> AbstractAsyncContextManager[Runtime]:
        """The runtime as the host would open it."""
        return open_runtime(self.plugin, self.provider, settings, data_dir)


def open_runtime(
    plugin: str, name: str | None, settings: Mapping[str, Any], data_dir: Path
) -> AbstractAsyncContextManager[Runtime]:
    """The runtime of this name (None: the only one) of the plugin in this module."""
    told = importlib.import_module(plugin).kandev_runtimes()
    providers: list[Provider[Any, Runtime]] = [told] if isinstance(told, Provider) else list(told)
    (provider,) = [each for each in providers if name in {None, each.name}]
    decoded = msgspec.convert(settings, provider.settings) if provider.settings is not None else None
    return provider.open(decoded, Environment(str(data_dir), "0"))


def needs(capability: Capability) -> Callable[[Test], Test]:
    """A test of what a runtime may lack: one that `lacks` it is held to refuse, with `Unavailable`."""

    def decorate(test: Test) -> Test:
        @functools.wraps(test)
        async def run(self: RuntimeSuite, *arguments: Any, **fixtures: Any) -> None:
            if capability not in self.lacks:
                await test(self, *arguments, **fixtures)
                return
            with pytest.raises(errors.Unavailable):
                await test(self, *arguments, **fixtures)

        return cast("Test", run)

    return decorate


def confined(test: Test) -> Test:
    """A test of what only a confined process can be held to: a runtime that does not confine must say so."""

    @functools.wraps(test)
    async def run(self: RuntimeSuite, *arguments: Any, **fixtures: Any) -> None:
        if self.confines:
            await test(self, *arguments, **fixtures)
        else:
            assert fixtures["runtime"].confines is False

    return cast("Test", run)


def sh(script: str, *arguments: str, workspace: str = "w1", **fields: Any) -> ProcessSpec:
    """A script with its `$1`, `$2`…"""
    return ProcessSpec(workspace_id=workspace, command=("sh", "-c", script, "sh", *arguments), **fields)


def python(script: str, *arguments: str, workspace: str = "w1", **fields: Any) -> ProcessSpec:
    return ProcessSpec(workspace_id=workspace, command=("python3", "-c", script, *arguments), **fields)


async def everything(receive: Callable[[], Awaitable[bytes]]) -> bytes:
    """All that comes until the end."""
    read = bytearray()
    with anyio.fail_after(DEADLINE_S):
        while chunk := await receive():
            read += chunk
    return bytes(read)


async def line(process: Process) -> bytes:
    """What stdout says up to its next newline; nothing may have been written behind it yet."""
    read = b""
    with anyio.fail_after(DEADLINE_S):
        while not read.endswith(b"\n"):
            chunk = await process.receive()
            assert chunk, f"stdout ended after {read!r}"
            read += chunk
    return read


async def ended(process: Process) -> int:
    """The exit code."""
    with anyio.fail_after(DEADLINE_S):
        return await process.wait()


# A lock on descriptor 9 is held until whoever has it dies: so what runs is told from what is gone, wherever it went.
LOCK = 'python3 -c "import fcntl; fcntl.flock(9, 2)"'
HOLD = f'exec 9>"$1"; {LOCK}; echo up; while read -r said; do echo "got $said"; done'
# The same far away from whoever started it: in a session of its own, with no parent and none of our pipes.
_AWAY = f'exec 9>"$1"; {LOCK}; echo up; exec sleep 600 >/dev/null 2>&1 </dev/null'
DAEMON = f"(setsid sh -c '{_AWAY}' sh \"$1\" &) "
STAY = DAEMON + "; read -r said"
_TRY = """
import fcntl, sys
try:
    fcntl.flock(open(sys.argv[1], "w"), fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(3)
"""


async def is_held(runtime: Runtime, name: str = "lock", workspace: str = "w1") -> bool:
    code = (await runtime.run(python(_TRY, name, workspace=workspace))).exit_code
    assert code in {0, 3}
    return code == 3


async def until_free(runtime: Runtime, name: str = "lock", workspace: str = "w1") -> None:
    async def free() -> bool:
        return not await is_held(runtime, name, workspace)

    await until(free)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Until this holds; it is asked again and again."""
    with anyio.fail_after(DEADLINE_S):
        while not await holds():  # noqa: ASYNC110 - it is about what other processes do
            await anyio.sleep(0.02)
