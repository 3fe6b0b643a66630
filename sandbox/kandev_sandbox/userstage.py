"""The mounts of an ordinary user's jail in folders that another jail may write to: made before bwrap, by descriptor.

bwrap walks to a mount point by its path and through links, while the host's root is in reach. Root therefore makes
those mounts in a private namespace (staging.py). An ordinary user may do so only as the owner of a user namespace,
which no thread of this process can enter: so what is started is a small program that takes both namespaces, makes the
mounts, and becomes bwrap (userstage_helper.py). It has bwrap's pid, descriptors, mark and owner from the first moment.

Where user namespaces are for bwrap alone (AppArmor, on Ubuntu from 24.04), bwrap makes the mounts, and a jail in which
one is elsewhere is ended (mountinfo.check).
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path, PurePosixPath

from kandev_sandbox import pins
from kandev_sandbox.errors import StagingFailed
from kandev_sandbox.mountpoints import located, needed
from kandev_sandbox.policy import Policy

SCRIPT = Path(__file__).with_name("userstage_helper.py")
_PROBE_TIMEOUT_S = 10.0
# Imported, not run as a file: to compile it anew takes longer than all that it does. Nothing else is found there first.
_RUN = "import sys; sys.path.append(sys.argv[1]); sys.exit(__import__(sys.argv[2]).main(sys.argv[3:]))"


def prepare(policy: Policy) -> None:
    """If something may have to be mounted so, find out whether this user may: the answer is kept. Blocks."""
    if policy.protected or (policy.pin_git and os.path.lexists(policy.workspace / pins.GIT)) or needed(policy):
        refusal()


@cache
def refusal() -> str | None:
    """Why this user may take no namespaces but by bwrap; None if it may. Blocks, the first time, for some 20 ms.

    Raises `StagingFailed`. Whatever else is wrong is told when a jail is started.
    """
    try:
        done = subprocess.run(
            [*_script(), "probe"],
            env={},
            stdin=subprocess.DEVNULL,
            check=False,
            capture_output=True,
            timeout=_PROBE_TIMEOUT_S,
            text=True,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StagingFailed(f"The jail's folders cannot be staged: {error}.") from error
    number, _, words = done.stdout.strip().partition(" ")
    return words if number in (str(errno.EPERM), str(errno.EACCES)) else None


def placed(policy: Policy, pinned: Sequence[pins.Pin]) -> list[pins.Pin]:
    """The pins that are seen: not what a bind covers."""
    binds = {PurePosixPath(bind.inside) for _, _, bind in needed(policy)}
    places = ((pin, PurePosixPath(pin.inside)) for pin in pinned)
    return [pin for pin, place in places if binds.isdisjoint((place, *place.parents))]


def plan(policy: Policy, pinned: Sequence[pins.Pin], env: Mapping[str, str]) -> bytes:
    """The environment of bwrap, and what the script mounts: `pinned` are the pins that are seen, outer ones first."""
    fields = [str(len(env)), *(f"{name}={value}" for name, value in env.items())]
    for folder, below, bind in needed(policy):
        path = "/".join(below.parts)
        fields += [
            str(located(policy, folder)),
            path,
            str(bind.source),
            "ro" if bind.read_only else "rw",
            "",
            bind.inside,
        ]
    # From the inside out: an outer folder is bound with the mounts that are in it.
    for pin in reversed(pinned):
        found = os.fstat(pin.descriptor)
        identity = f"{found.st_dev}:{found.st_ino}"
        kind = "ro" if pin.read_only else "rw"
        fields += [str(policy.workspace), str(pin.path), "", kind, identity, pin.inside]
    return b"".join(os.fsencode(field) + b"\0" for field in fields)


def command(status: int, written: int, program: str) -> list[str]:
    """What goes before bwrap's arguments: `written` is the descriptor of a plan, `program` a path or a descriptor."""
    return [*_script(), str(os.getpid()), str(status), str(written), program]


def refused(line: bytes) -> StagingFailed | None:
    """What the script says in place of bwrap's first line, if it does."""
    if not line.startswith(b"!"):
        return None
    words = line[1:].decode(errors="replace").strip()
    swapped = words.endswith("was replaced while the jail was built.")
    return StagingFailed(words, "end the other processes of this workspace; try again" if swapped else None)


def _script() -> list[str]:
    return [sys.executable, "-I", "-S", "-c", _RUN, str(SCRIPT.parent), SCRIPT.stem]
