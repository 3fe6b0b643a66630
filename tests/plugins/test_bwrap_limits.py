"""What bounds the processes of the runtime "bwrap", and how it is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kandev_bwrap import BwrapSettings, open_runtime
from kandev_host import Environment, ProcessSpec, errors
from kandev_host.models import Limits
from kandev_places.limits import limits_of, machine_bytes, size_bytes
from kandev_sandbox import cgroups

pytestmark = pytest.mark.anyio
HOARD = "x = [bytearray(b'x') * (1 << 20) for _ in range(200)]"
FORKS = "import os, time\ntry:\n    while os.fork(): pass\nexcept BlockingIOError: pass\ntime.sleep(600)"


@pytest.fixture
async def bwrap(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Any]:
    async with open_runtime(BwrapSettings(max_processes=32), Environment(str(tmp_path / "data"), "0")) as made:
        await made.prepare("w1")
        yield made


def python(script: str, **fields: Any) -> ProcessSpec:
    return ProcessSpec(workspace_id="w1", command=("/usr/bin/python3", "-c", script), **fields)


@pytest.mark.parametrize(
    ("text", "size"),
    [("2g", 2 << 30), ("1.5G", 3 << 29), ("512m", 512 << 20), ("64kb", 64 << 10), ("100", 100), ("7b", 7)],
)
def test_an_amount_of_memory_is_read(text: str, size: int) -> None:
    assert size_bytes(text) == size


def test_what_a_run_wants_goes_before_the_settings() -> None:
    settings = BwrapSettings(cpu_limit=2.0)
    limits = limits_of(settings, Limits(memory_limit="96m", cpu_limit="0.5"))
    assert (limits.memory_bytes, limits.cpus) == (96 << 20, 0.5)
    assert limits_of(settings, Limits()).cpus == 2.0


def test_the_default_leaves_the_machine_a_quarter_of_its_memory() -> None:
    limits = limits_of(BwrapSettings(memory_limit_bytes=1 << 60), Limits())
    assert limits.memory_bytes == int(machine_bytes() * 0.75)


@pytest.mark.parametrize(("field", "value"), [("memory_limit", "1k"), ("cpu_limit", "0")])
def test_an_amount_that_no_jail_can_live_with_is_refused(field: str, value: str) -> None:
    with pytest.raises(errors.ValidationFailed) as caught:
        limits_of(BwrapSettings(), Limits(**{field: value}))
    assert caught.value.details["field"] == f"resources.{field}"


async def test_a_short_command_that_meets_its_memory_limit_says_so(bwrap: Any) -> None:
    result = await bwrap.run(python(HOARD, limits=Limits(memory_limit="64m")))
    assert result.exit_code != 0
    if cgroups.here().full:
        assert "memory limit of 64.0 MiB" in result.ending


async def test_of_a_short_command_all_that_it_wrote_is_counted(bwrap: Any) -> None:
    script = "import sys; sys.stdout.write('x' * 100_000); sys.stderr.write('y' * 7)"
    result = await bwrap.run(python(script), max_output_bytes=10)
    assert (result.ending, result.truncated, len(result.stdout)) == (None, True, 10)
    assert (result.stdout_bytes, result.stderr_bytes) == (100_000, 7)


async def test_a_fork_bomb_ends_at_the_limit_and_leaves_the_others_alone(bwrap: Any) -> None:
    async with bwrap.spawn(python("input(); print('still here')")) as other:
        with pytest.raises(errors.TimedOut):
            await bwrap.run(python(FORKS), timeout_s=2)
        await other.send(b"\n")
        assert await other.receive() == b"still here\n"


async def test_stats_are_of_all_processes(bwrap: Any) -> None:
    script = "import os\nheld = bytearray(b'x') * (20 << 20)\nos.fork()\nprint('up', flush=True)\ninput()"
    async with bwrap.spawn(python(script)) as process:
        await process.receive()
        stats = await process.stats()
        assert stats.rss_bytes > 20 << 20
        assert stats.pids >= 3


async def test_the_probe_says_what_limits_hold(bwrap: Any) -> None:
    details = (await bwrap.probe()).details
    full = cgroups.here().full
    assert (details["limits"], details["limits_reason"] is None) == ("full" if full else "partial", full)
