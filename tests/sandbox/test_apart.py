from __future__ import annotations

import os
from pathlib import Path

import pytest

from kandev_sandbox import libc
from kandev_sandbox.apart import apart

UID = 1_999_999_998


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take another's real ids")
def test_the_real_ids_of_one_thread_are_nobody_elses() -> None:
    def taken() -> list[str]:
        libc.set_real_ids(UID)
        return [
            line for line in Path("/proc/thread-self/status").read_text().splitlines() if line[:4] in ("Uid:", "Gid:")
        ]

    before = os.getresuid(), os.getresgid()
    # Real, effective, saved, and of the file system: what it may do is what it could before.
    assert apart(taken) == [f"Uid:\t{UID}\t0\t0\t0", f"Gid:\t{UID}\t0\t0\t0"]
    assert (os.getresuid(), os.getresgid()) == before


def test_what_is_raised_apart_is_raised_here() -> None:
    with pytest.raises(ZeroDivisionError):
        apart(lambda: 1 // 0)
