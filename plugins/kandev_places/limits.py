"""From a runtime's settings and the limits of one run to what a process and its place may use."""

from __future__ import annotations

import os
from decimal import Decimal
from typing import Protocol, TypeVar

from kandev_host import errors
from kandev_host.models import Limits as Wanted
from kandev_places.watch import Quota
from kandev_sandbox import Limits
from kandev_sandbox.policy import MIN_CPUS, MIN_MEMORY_BYTES

MACHINE_SHARE = 0.75
MIN_DISK_BYTES = 1 << 20
Number = TypeVar("Number", int, float)
_UNITS = {"k": 10, "m": 20, "g": 30, "t": 40}


class ProcessBounds(Protocol):
    """The settings of a runtime that bound each process, and all that it starts."""

    @property
    def max_open_files(self) -> int: ...
    @property
    def max_processes(self) -> int: ...
    @property
    def max_file_bytes(self) -> int: ...
    @property
    def memory_limit_bytes(self) -> int: ...
    @property
    def swap_limit_bytes(self) -> int: ...
    @property
    def cpu_limit(self) -> float | None: ...
    @property
    def time_limit_s(self) -> float | None: ...


class DiskBounds(Protocol):
    """The settings of a runtime that bound each place."""

    @property
    def disk_limit_bytes(self) -> int: ...
    @property
    def inodes_limit(self) -> int: ...


def limits_of(settings: ProcessBounds, wanted: Wanted) -> Limits:
    """What was asked for of this run beats the settings. Raises `ValidationFailed` for what is too little."""
    memory_bytes = min(settings.memory_limit_bytes, int(machine_bytes() * MACHINE_SHARE))
    if wanted.memory_limit is not None:
        memory_bytes = _at_least("memory_limit", size_bytes(wanted.memory_limit), MIN_MEMORY_BYTES)
    cpus = settings.cpu_limit
    if wanted.cpu_limit is not None:
        cpus = _at_least("cpu_limit", float(wanted.cpu_limit), MIN_CPUS)
    return Limits(
        open_files=settings.max_open_files,
        processes=settings.max_processes,
        file_bytes=settings.max_file_bytes,
        memory_bytes=memory_bytes,
        swap_bytes=settings.swap_limit_bytes,
        tree_processes=settings.max_processes,
        cpus=cpus,
        wall_s=settings.time_limit_s,
    )


def quota_of(settings: DiskBounds, disk_limit: str | None) -> Quota:
    """What a place may take of the disk; `disk_limit` is the run's. Raises `ValidationFailed`."""
    size = settings.disk_limit_bytes
    if disk_limit is not None:
        size = _at_least("disk_limit", size_bytes(disk_limit), MIN_DISK_BYTES)
    return Quota(size, settings.inodes_limit)


def size_bytes(text: str) -> int:
    """ "1.5g" and "512m" in bytes; the units are powers of 1024, and a number without one is bytes already."""
    number, unit = text.lower().removesuffix("b"), 0
    if number[-1:] in _UNITS:
        number, unit = number[:-1], _UNITS[number[-1]]
    return int(Decimal(number) * (1 << unit))


def machine_bytes() -> int:
    """The memory of this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _at_least(name: str, value: Number, least: Number) -> Number:
    if value < least:
        raise errors.ValidationFailed(f"resources.{name}", f"It must be at least {least}")
    return value
