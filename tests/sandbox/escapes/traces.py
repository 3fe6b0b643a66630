"""How the host sees that an attack got through, when its answer does not tell; what is found is removed."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from .attacks.kernel import LIBC, umount
from .attacks.leftovers import IMMUTABLE, SETFLAGS
from .attacks.table import Case, World
from .surroundings import UNTOUCHED

GETFLAGS = 0x80086601
IPC_RMID = 0


def changed(case: Case, world: World) -> bool:
    path = Path(world.targets[case.name])
    return path.read_text() != UNTOUCHED or bool(path.stat().st_mode & stat.S_ISUID)


def dead(case: Case, world: World) -> bool:
    """Its parent, this process, has not reaped it, so that the pid is still its own."""
    return os.waitid(os.P_PID, world.victims[case.name], os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def left(case: Case, world: World, workspace: Path) -> bool:
    return LEFT[case.name.partition(".")[2]](world, workspace)


def _processes(word: str) -> bool:
    found = False
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            arguments = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if word.encode() in arguments:
            found = True
            os.kill(int(name), signal.SIGKILL)
    return found


def _lock(world: World, workspace: Path) -> bool:
    with (workspace / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            number = str(os.fstat(file.fileno()).st_ino)
            lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
            for pid in {int(line[4]) for line in lines if line[1] != "->" and line[5].rpartition(":")[2] == number}:
                _kill_holders(pid, file.name)
            return True
    return False


def _kill_holders(pid: int, path: str) -> None:
    """The lock's taker has executed another program, or has handed it to a child and ended."""
    for name in {str(pid), *filter(str.isdigit, os.listdir("/proc"))}:
        try:
            if os.readlink(f"/proc/{name}/fd/0") == path:
                os.kill(int(name), signal.SIGKILL)
        except OSError:
            continue


def _segment(world: World, workspace: Path) -> bool:
    number = LIBC.shmget(_key(world), 0, 0)
    return number != -1 and LIBC.shmctl(number, IPC_RMID, None) == 0


def _semaphore(world: World, workspace: Path) -> bool:
    number = LIBC.semget(_key(world), 0, 0)
    return number != -1 and LIBC.semctl(number, 0, IPC_RMID) == 0


def _key(world: World) -> int:
    return zlib.crc32(world.word.encode()) & 0x7FFF_FFFF


def _file(path: str) -> bool:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def _mounted(world: World, workspace: Path) -> bool:
    if not os.path.ismount(workspace / "mounted"):
        return False
    umount(str(workspace / "mounted"))
    return True


def _immutable(world: World, workspace: Path) -> bool:
    with (workspace / "immutable").open() as file:
        flags = struct.unpack("l", fcntl.ioctl(file, GETFLAGS, bytes(8)))[0]
        fcntl.ioctl(file, SETFLAGS, struct.pack("l", flags & ~IMMUTABLE))
    return bool(flags & IMMUTABLE)


def _set_uid(world: World, workspace: Path) -> bool:
    """One of the workspace's own uid is nobody's."""
    found = [path.lstat() for path in workspace.glob("set-uid*")]
    return any(file.st_mode & stat.S_ISUID and file.st_uid == os.geteuid() for file in found)


LEFT: dict[str, Callable[[World, Path], bool]] = {
    "a_daemon": lambda world, _: _processes(f"{world.word}-a_daemon"),
    "a_daemon_that_is_stopped": lambda world, _: _processes(f"{world.word}-a_daemon_that_is_stopped"),
    "a_daemon_with_a_new_name": _lock,
    "a_holder_of_the_output": lambda world, _: _processes(f"{world.word}-a_holder_of_the_output"),
    "a_shared_memory_segment": _segment,
    "a_semaphore": _semaphore,
    "a_shared_memory_file": lambda world, _: _file(f"/dev/shm/{world.word}"),
    "a_message_queue": lambda world, _: LIBC.mq_unlink(f"/{world.word}".encode()) == 0,
    "a_file_in_tmp": lambda world, _: _file(f"/tmp/{world.word}"),
    "a_mount": _mounted,
    "a_file_that_cannot_be_removed": _immutable,
    "a_set_uid_file_of_the_user": _set_uid,
}
