"""Namespaces: what the host's hold must not be seen, and nobody enters them."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from contextlib import suppress

from .kernel import (
    LIBC,
    NEWNS,
    NEWUSER,
    attempt,
    call,
    check,
    mount,
    namespaces,
    pids,
    read,
    setns,
    unshare,
    write,
)
from .table import World, case

NS_GET_USERNS, NS_GET_PARENT = 0xB701, 0xB702
SHM_RDONLY = 0o10000
CLONE_SIGCHLD = 17


@case(nested=False)
def make_a_user_namespace(w: World) -> object:
    if os.getuid() == 0:
        unshare(NEWUSER)
    else:
        namespaces(0)
    return True


@case(nested=False)
def make_a_user_namespace_by_clone(w: World) -> object:
    flags = NEWUSER | CLONE_SIGCHLD
    number = 220 if os.uname().machine == "aarch64" else 56
    pid = call(number, flags, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return True


@case()
def see_a_process_of_the_host(w: World) -> object:
    os.kill(w.victim, 0)
    return True


@case()
def find_a_process_of_the_host_in_proc(w: World) -> object:
    found = ""
    for pid in pids():
        with suppress(OSError):
            found += read(f"/proc/{pid}/cmdline")
    return w.secret in found


@case(root=True)
def enter_the_mounts_of_a_process(w: World) -> object:
    for pid in (w.victim, 1, os.getppid()):
        attempt(lambda pid=pid: setns(os.open(f"/proc/{pid}/ns/user", os.O_RDONLY), NEWUSER))
        if attempt(lambda pid=pid: setns(os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY), NEWNS)):
            return read(w.secret)
    return False


@case(root=True)
def enter_the_namespace_that_owns_ours(w: World) -> object:
    """Of every namespace in sight its owner and its parent, as deep as the kernel tells."""
    found = [os.open(f"/proc/self/ns/{name}", os.O_RDONLY) for name in ("user", "mnt", "net", "pid", "uts", "ipc")]
    for descriptor in found:
        for request in (NS_GET_USERNS, NS_GET_PARENT):
            attempt(lambda at=descriptor, what=request: found.append(fcntl.ioctl(at, what)))
        if len(found) > 60:
            break
    for descriptor in found:
        attempt(lambda at=descriptor: setns(at))
    attempt(lambda: mount("none", "/proc/sys", None, 32 | 4096))
    return write("/proc/sys/kernel/core_pattern", read("/proc/sys/kernel/core_pattern"))


@case(root=True)
def be_privileged_in_the_first_namespace(w: World) -> object:
    """Whatever namespaces are made: a capability over the host's must not come with them."""
    attempt(lambda: namespaces(NEWNS))
    return write("/proc/sys/kernel/core_pattern", read("/proc/sys/kernel/core_pattern"))


@case(root=True)
def map_more_than_oneself(w: World) -> object:
    """A uid map of the host's uids makes root of the host out of a namespace's."""
    attempt(lambda: unshare(NEWUSER))
    return attempt(
        *(lambda text=text: write("/proc/self/uid_map", text) for text in ("0 0 4294967295", "0 0 1", "1 1 9"))
    )


@case()
def know_the_name_of_the_host(w: World) -> object:
    return os.uname().nodename == w.node


@case()
def read_a_shared_memory_segment(w: World) -> object:
    place = check(LIBC.shmat(w.shm_id, None, SHM_RDONLY))
    return ctypes.string_at(place, 64).decode(errors="replace")


@case()
def read_a_shared_memory_file(w: World) -> object:
    return read(w.shm_file)


@case()
def read_a_message_queue(w: World) -> object:
    queue = check(LIBC.mq_open(os.fsencode(w.queue), os.O_RDWR | os.O_NONBLOCK))
    text = ctypes.create_string_buffer(8192)
    size = check(LIBC.mq_receive(queue, text, 8192, None))
    check(LIBC.mq_send(queue, text.raw[:size], size, 0))
    return text.raw[:size].decode()


@case()
def list_the_shared_memory_of_the_host(w: World) -> object:
    return any(line.split()[1] == str(w.shm_id) for line in read("/proc/sysvipc/shm").splitlines()[1:])


@case(nested=False)
def take_namespaces_by_clone3(w: World) -> object:
    """The flags of clone3 lie in memory, where no filter sees them."""
    arguments = struct.pack("<11Q", NEWUSER, 0, 0, 0, CLONE_SIGCHLD, 0, 0, 0, 0, 0, 0)
    pid = call(435, ctypes.create_string_buffer(arguments, 88), 88)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return True
