"""Ending the jails that a SIGKILL of the host catches while they are being built.

bwrap binds a jail to its parent's life in two steps (`--die-with-parent`), and between them, for some milliseconds
of every start, nothing does (bubblewrap #633). So each host process keeps one idle shell, in a session of its own,
which waits for the end of a pipe that only the host holds. At the host's death it ends whatever carries its mark or is
in the cgroup of one of its jails, and deletes those groups.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from kandev_sandbox.records import VARIABLE, Owner

# Several passes: what a process forks while one pass looks at the others is seen by the next.
_SCRIPT = """
read -r _
mark=$1
shift
for pause in 0.05 0.1 0.2 0.4 0.8 0; do
  for found in $(grep -lzaF -- "$mark" /proc/[0-9]*/environ 2>/dev/null); do
    found=${found#/proc/}
    kill -9 "${found%/environ}" 2>/dev/null
  done
  for prefix in "$@"; do
    for group in "$prefix"*; do
      for pid in $(find "$group" -name cgroup.procs -exec cat {} + 2>/dev/null); do
        [ "$pid" = 0 ] || kill -9 "$pid" 2>/dev/null
      done
      find "$group" -depth -type d -exec rmdir {} + 2>/dev/null
    done
    rmdir "${prefix%/*}" 2>/dev/null && rmdir "${prefix%/*/*}" 2>/dev/null
  done
  sleep "$pause"
done
"""


@dataclass(frozen=True, slots=True)
class _Guardian:
    pid: int
    lifeline: int


_guardians: dict[tuple[Owner, tuple[str, ...]], _Guardian] = {}


def ensure(owner: Owner, groups: tuple[str, ...] = ()) -> None:
    """Have a living guardian for the jails of this owner, which must be this very process. Takes a millisecond once.

    `groups` is how the paths of the cgroups of its jails begin.
    """
    guardian = _guardians.get((owner, groups))
    if guardian is not None:
        if _alive(guardian.pid):
            return
        os.close(guardian.lifeline)
    reader, lifeline = os.pipe()
    try:
        _guardians[owner, groups] = _Guardian(_spawn(owner, groups, reader), lifeline)
    except OSError:
        os.close(lifeline)
        raise
    finally:
        os.close(reader)


def _spawn(owner: Owner, groups: tuple[str, ...], reader: int) -> int:
    actions = [
        (os.POSIX_SPAWN_DUP2, reader, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
    ]
    mark = f"{VARIABLE}={owner.mark('')}"
    arguments = ["/bin/sh", "-c", _SCRIPT, "kandev-guardian", mark, *groups]
    return os.posix_spawn("/bin/sh", arguments, {"PATH": "/usr/bin:/bin"}, file_actions=actions, setsid=True)


def _alive(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG) == (0, 0)
    except ChildProcessError:
        return False
