"""What is mounted where for a process, and whether what bwrap mounted is where it was to be."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path

import anyio

from kandev_sandbox.errors import SpawnFailed
from kandev_sandbox.policy import WORKSPACE

_LOOK_AGAIN_S = 0.001
# There is no such process, or it has begun to end and has no namespace any more.
_ENDED = (errno.ENOENT, errno.ESRCH, errno.EINVAL)


def places(process: int | str) -> dict[str, bool]:
    """Mount point as the process sees it → read-only? (proc(5): mountinfo.) Empty for one that has ended."""
    try:
        lines = Path(f"/proc/{process}/mountinfo").read_bytes().splitlines()
    except OSError as error:
        if error.errno in _ENDED:
            return {}
        raise
    fields = (line.split(b" ", 6) for line in lines)
    return {_plain(field[4]): b"ro" in field[5].split(b",") for field in fields}


async def check(init: int, wanted: Mapping[str, bool]) -> None:
    """Wait until bwrap has built the jail of this first process, and see that each of `wanted` is mounted there.

    bwrap follows links on the way to a mount point. What another jail of the same place swaps at that moment, it mounts
    somewhere else: then nothing is to run. Raises `SpawnFailed`. Returns as well when the process ends.
    """
    while wanted:
        found = places(init)
        # Until bwrap changes its root for the last time, the workspace is at another path.
        if found and WORKSPACE not in found:
            await anyio.sleep(_LOOK_AGAIN_S)
            continue
        for place, read_only in wanted.items() if found else ():
            if place not in found or (read_only and not found[place]):
                raise SpawnFailed(
                    f"{place} was replaced while the jail was built.",
                    "end the other processes of this workspace; try again",
                )
        return


def _plain(field: bytes) -> str:
    """Blanks and backslashes are written in octal."""
    return field.decode("unicode_escape").encode("latin-1").decode(errors="surrogateescape")
