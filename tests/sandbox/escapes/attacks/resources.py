"""More of everything than a jail may have."""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import struct

from .kernel import LIBC, attempt, check
from .table import World, case

HELD_S = 3.0
LONGEST_S = 60  # of a child whose parent was killed


@case(small=True)
def open_too_many_files(w: World) -> object:
    wanted = 2 * w.limits["open_files"]
    return len([os.dup(1) for _ in range(wanted)]) == wanted


@case(small=True)
def write_too_large_a_file(w: World) -> object:
    size = 2 * w.limits["file_bytes"]
    os.truncate(os.open(f"{w.workspace}/large", os.O_CREAT | os.O_RDWR), size)
    return True


@case(small=True)
def queue_too_many_signals(w: World) -> object:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN])
    for _ in range(2 * w.limits["pending_signals"]):
        check(LIBC.sigqueue(os.getpid(), int(signal.SIGRTMIN), None))
    return True


@case(small=True, root=True)
def lock_too_much_memory(w: World) -> object:
    size = 2 * w.limits["locked_bytes"]
    LIBC.mmap.restype = ctypes.c_void_p
    place = ctypes.c_void_p(check(LIBC.mmap(None, ctypes.c_size_t(size), 3, 0x22, -1, ctypes.c_long(0))))
    check(LIBC.mlock(place, ctypes.c_size_t(size)))
    return True


@case(small=True)
def raise_the_limits(w: World) -> object:
    for kind, name in ((resource.RLIMIT_NOFILE, "open_files"), (resource.RLIMIT_SIGPENDING, "pending_signals")):
        _limit(kind, 2 * w.limits[name])
    return True


@case(small=True)
def dump_core(w: World) -> object:
    _limit(resource.RLIMIT_CORE, 4096)
    return True


def _limit(kind: int, value: int) -> None:
    try:
        resource.setrlimit(kind, (value, value))
    except ValueError as error:  # what Python makes of EPERM and EINVAL
        raise OSError(1, str(error)) from error


@case(small=True, dropped=True)
def have_too_many_processes_of_its_uid(w: World) -> object:
    return _processes(2 * w.limits["processes"])


@case(small=True, needs="cgroup")
def have_too_many_processes(w: World) -> object:
    return _processes(2 * w.limits["processes"])


@case(alone=True, needs="cgroup")
def have_too_much_memory(w: World) -> object:
    """Not one process, but several together, for as long as it takes to notice them."""
    size = w.limits["memory_bytes"] // 2
    ready, done = os.pipe()
    for _ in range(4):
        if os.fork() == 0:
            held = bytearray(size)
            held[::4096] = b"x" * len(held[::4096])
            os.write(done, b"x")
            signal.alarm(LONGEST_S)
            signal.pause()
    os.close(done)
    got = 0
    while got < 4 and (text := os.read(ready, 4)):
        got += len(text)
    return got == 4 and not select.select([ready], [], [], HELD_S)[0]


def _processes(wanted: int) -> bool:
    started: list[int] = []
    try:
        for _ in range(wanted):
            pid = os.fork()
            if pid == 0:
                signal.alarm(LONGEST_S)
                signal.pause()
            started.append(pid)
    finally:
        for pid in started:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return True


@case(root=True)
def run_in_real_time(w: World) -> object:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    return True


@case(root=True)
def be_more_important(w: World) -> object:
    os.setpriority(os.PRIO_PROCESS, 0, -5)
    return True


@case(root=True)
def fill_a_file_system_in_memory(w: World) -> object:
    """More than the 64 MiB of /dev/shm in places that belong to nobody's quota."""
    size = 80 << 20
    places = ("/", "/dev", "/dev/shm", "/run", "/var", "/etc", "/home", "/var/run")
    return attempt(*(lambda place=place: _fill(f"{place}/kandev-fill", size) for place in places))


def _fill(path: str, size: int) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR)
    try:
        os.posix_fallocate(descriptor, 0, size)
    finally:
        os.close(descriptor)
        os.unlink(path)


@case(alone=True, needs="disk")
def fill_the_disk(w: World) -> object:
    for number in range(4):
        _keep(f"{w.workspace}/fill-{number}", w.limits["disk_bytes"] // 2)
    return True


@case(alone=True, needs="disk")
def use_up_the_inodes(w: World) -> object:
    for number in range(2 * w.limits["inodes"]):
        os.close(os.open(f"{w.workspace}/inode-{number}", os.O_CREAT | os.O_WRONLY))
    return True


def _keep(path: str, size: int) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR)
    try:
        os.posix_fallocate(descriptor, 0, size)
    finally:
        os.close(descriptor)


@case(root=True)
def stop_the_clock(w: World) -> object:
    """A clock is set to what it says."""
    text = ctypes.create_string_buffer(struct.pack("<qq", 0, 0), 16)
    check(LIBC.clock_gettime(0, text))
    check(LIBC.clock_settime(0, text))
    return True
