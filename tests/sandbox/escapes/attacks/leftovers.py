"""What stays when the jail has ended."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import struct
import zlib

from .kernel import LIBC, attempt, check, mount, write
from .table import World, case

IPC_CREAT = 0o1000
SETFLAGS, IMMUTABLE = 0x40086602, 0x10


def _daemon(word: str, prepare: str = "true") -> None:
    """Fork twice; the grandchild becomes a shell that has the word among its arguments."""
    if os.fork() == 0:
        os.setsid()
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        if os.fork() == 0:
            os.execve("/bin/sh", ["sh", "-c", f"{prepare}; sleep 60; :", word], {"PATH": "/usr/bin:/bin"})
        os._exit(0)
    os.wait()


@case(trace="left")
def a_daemon(w: World) -> object:
    return _daemon(f"{w.word}-a_daemon", "exec </dev/null >/dev/null 2>&1")


@case(trace="left")
def a_daemon_that_is_stopped(w: World) -> object:
    return _daemon(f"{w.word}-a_daemon_that_is_stopped", "exec </dev/null >/dev/null 2>&1; kill -STOP $$")


@case(trace="left")
def a_daemon_with_a_new_name(w: World) -> object:
    """Nothing of its environment or arguments tells where it comes from; only a lock on a file shows it."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            lock = os.open(f"{w.workspace}/lock", os.O_RDWR | os.O_CREAT, 0o666)
            fcntl.flock(lock, fcntl.LOCK_EX)
            for descriptor in (0, 1, 2):
                os.dup2(lock, descriptor)
            os.execve("/bin/sleep", ["sleep", "60"], {})
        os._exit(0)
    os.wait()
    return True


@case(trace="left", alone=True)
def a_holder_of_the_output(w: World) -> object:
    """Whoever reads the output to its end waits for it."""
    return _daemon(f"{w.word}-a_holder_of_the_output")


@case(trace="left")
def a_shared_memory_segment(w: World) -> object:
    return check(LIBC.shmget(zlib.crc32(w.word.encode()) & 0x7FFF_FFFF, 4096, IPC_CREAT | 0o600))


@case(trace="left")
def a_semaphore(w: World) -> object:
    return check(LIBC.semget(zlib.crc32(w.word.encode()) & 0x7FFF_FFFF, 1, IPC_CREAT | 0o600))


@case(trace="left")
def a_shared_memory_file(w: World) -> object:
    return write(f"/dev/shm/{w.word}")


@case(trace="left")
def a_message_queue(w: World) -> object:
    return check(LIBC.mq_open(os.fsencode(f"/{w.word}"), os.O_CREAT | os.O_RDWR, 0o600, None))


@case(trace="left")
def a_file_in_tmp(w: World) -> object:
    return write(f"/tmp/{w.word}")


@case(trace="left", root=True)
def a_mount(w: World) -> object:
    os.mkdir(f"{w.workspace}/mounted")
    return mount("tmpfs", f"{w.workspace}/mounted", "tmpfs")


@case(trace="left", root=True)
def a_file_that_cannot_be_removed(w: World) -> object:
    path = f"{w.workspace}/immutable"
    write(path)
    descriptor = os.open(path, os.O_RDONLY)
    fcntl.ioctl(descriptor, SETFLAGS, struct.pack("l", IMMUTABLE))
    return True


@case(trace="left", needs="set-id")
def a_set_uid_file_of_the_user(w: World) -> object:
    """Whoever else runs it becomes the user. It is made in every way there is."""
    path = f"{w.workspace}/set-uid"
    write(path)
    attempt(lambda: os.chmod(path, 0o6755))
    descriptor = os.open(path, os.O_RDONLY)
    attempt(lambda: os.fchmod(descriptor, 0o6755))
    folder = os.open(w.workspace, os.O_PATH)
    attempt(lambda: os.chmod("set-uid", 0o6755, dir_fd=folder))
    empty = ctypes.c_char_p(b"")
    attempt(lambda: check(LIBC.syscall(ctypes.c_long(452), descriptor, empty, 0o6755, 0x1000)))
    os.umask(0)
    attempt(lambda: os.close(os.open(path + "-opened", os.O_CREAT | os.O_WRONLY, 0o6755)))
    attempt(lambda: os.mknod(path + "-made", 0o106755))
    how = ctypes.create_string_buffer(struct.pack("<QQQ", os.O_CREAT | os.O_WRONLY, 0o6755, 0))
    name = ctypes.c_char_p(os.fsencode(path + "-openat2"))
    attempt(lambda: check(LIBC.syscall(ctypes.c_long(437), -100, name, how, 24)))
    return True
