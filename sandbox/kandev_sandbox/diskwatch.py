"""What a jail may take of the disk where no volume bounds it: its folders are measured while it runs."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import anyio

from kandev_sandbox.beside import beside
from kandev_sandbox.disk import Space, deleted, measure
from kandev_sandbox.endings import Ending, amount
from kandev_sandbox.errors import PolicyError
from kandev_sandbox.namespaces import within
from kandev_sandbox.policy import Policy
from kandev_sandbox.processes import tree
from kandev_sandbox.watchdog import Watched

_PAUSE_S = 1.0
_LOOKING_SHARE = 0.05  # of one CPU
# How often in a row folders may be moved away under the count.
_BLIND = 3
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
# More than were there may come; whoever makes them faster than they are counted is not counted for ever.
_MORE_INODES = 1 << 20


@asynccontextmanager
async def watching_disk(jail: Watched, policy: Policy, limit: int, namespace: int | None) -> AsyncIterator[None]:
    """Hold the policy's folders to this many bytes until the context is left. Files without a name that the jail holds
    open count as well.

    Raises `PolicyError` if the folders hold too much already. Between two looks a jail may go beyond by what it writes
    in that time.
    """
    with ExitStack() as held:
        roots = await anyio.to_thread.run_sync(within, namespace, _opened, policy, held)
        found = await anyio.to_thread.run_sync(measure, roots)
        if found.bytes > limit:
            raise PolicyError(
                f"The jail's folders hold {amount(found.bytes)}, above the disk limit of {amount(limit)}.",
                "allow more, or delete some of it",
            )
        async with beside() as tasks:
            tasks.start_soon(_watch, jail, roots, limit, found.inodes + _MORE_INODES)
            yield


def _opened(policy: Policy, held: ExitStack) -> list[int]:
    folders: list[Path] = [folder for folder in (policy.workspace, policy.home, policy.tmp) if folder is not None]
    roots = [os.open(folder, _FOLDER) for folder in folders]
    for root in roots:
        held.callback(os.close, root)
    return roots


async def _watch(jail: Watched, roots: Sequence[int], limit: int, most_inodes: int) -> None:
    blind = 0
    while jail.init.alive():
        started_s = anyio.current_time()
        found = await anyio.to_thread.run_sync(_used, roots, jail.init.pid, most_inodes)
        blind = 0 if found.complete else blind + 1
        if found.bytes > limit or found.cut or blind >= _BLIND:
            await jail.kill(Ending("disk", _told(found, limit)))
            return
        took_s = anyio.current_time() - started_s
        await anyio.sleep(max(_PAUSE_S, took_s / _LOOKING_SHARE))


def _used(roots: Sequence[int], pid: int, most_inodes: int) -> Space:
    try:
        found = measure(roots, most_inodes)
    except OSError:  # a folder was deleted, or there is no descriptor left
        return Space(complete=False)
    for device in {os.fstat(root).st_dev for root in roots}:
        found.bytes += deleted(tree(pid), device).bytes
    return found


def _told(found: Space, limit: int) -> str:
    if found.bytes > limit:
        return f"it was ended at its disk limit of {amount(limit)}: its folders hold {amount(found.bytes)}"
    if found.cut:
        return f"it was ended, for its disk limit could not be watched: it made more than {_MORE_INODES} files"
    return "it was ended, for its disk limit could not be watched: its folders are moved all the time, or gone"
