"""Processes of the host: signals to them, and their memory and descriptors."""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import signal
import stat
import struct
import subprocess
from contextlib import suppress

from .kernel import ARM, LIBC, call, check, read
from .table import World, case

PIDFD_OPEN, PIDFD_SEND, PIDFD_GETFD = 434, 424, 438
READV = 270 if ARM else 310
SEIZE = 0x4206


@case(trace="death")
def kill_a_process(w: World) -> object:
    os.kill(w.victims["processes.kill_a_process"], signal.SIGKILL)
    return True


@case(trace="death")
def kill_a_group(w: World) -> object:
    os.killpg(w.victims["processes.kill_a_group"], signal.SIGTERM)
    return True


@case(trace="death")
def kill_through_a_pidfd(w: World) -> object:
    descriptor = call(PIDFD_OPEN, w.victims["processes.kill_through_a_pidfd"], 0)
    call(PIDFD_SEND, descriptor, int(signal.SIGKILL), 0, 0)
    return True


@case(trace="death")
def queue_a_signal(w: World) -> object:
    info = ctypes.create_string_buffer(struct.pack("<iii", signal.SIGUSR1, 0, -1), 128)
    call(138 if ARM else 129, w.victims["processes.queue_a_signal"], int(signal.SIGUSR1), info)
    return True


@case(trace="death")
def signal_by_input(w: World) -> object:
    """The owner of a descriptor is sent SIGIO, whoever it is."""
    reader, writer = os.pipe()
    fcntl.fcntl(reader, fcntl.F_SETOWN, w.victims["processes.signal_by_input"])
    fcntl.fcntl(reader, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    os.write(writer, b"x")
    return True


@case(trace="death")
def signal_by_a_timer(w: World) -> object:
    """A terminal's foreground group is signalled by its interrupt character."""
    target = w.victims["processes.signal_by_a_timer"]
    for thread in os.listdir(f"/proc/{target}/task"):
        call(131 if ARM else 234, target, int(thread), int(signal.SIGALRM))
    return True


@case()
def read_memory(w: World) -> object:
    text = ctypes.create_string_buffer(64)
    local = struct.pack("<QQ", ctypes.addressof(text), 64)
    remote = struct.pack("<QQ", w.address, 64)
    here, there = ctypes.create_string_buffer(local), ctypes.create_string_buffer(remote)
    call(READV, w.victim, here, 1, there, 1, 0)
    return text.raw.decode(errors="replace")


@case()
def read_memory_through_proc(w: World) -> object:
    with open(f"/proc/{w.victim}/mem", "rb") as memory:
        memory.seek(w.address)
        return memory.read(64).decode(errors="replace")


@case()
def trace_a_process(w: World) -> object:
    LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
    check(LIBC.ptrace(SEIZE, w.victim, None, None))
    return True


@case()
def take_a_descriptor(w: World) -> object:
    process = call(PIDFD_OPEN, w.victim, 0)
    for number in range(3, 12):
        try:
            return os.pread(call(PIDFD_GETFD, process, number, 0), 64, 0).decode()
        except OSError:
            continue
    return False


@case()
def open_a_descriptor_of_a_process(w: World) -> object:
    found = ""
    for name in os.listdir(f"/proc/{w.victim}/fd"):
        path = f"/proc/{w.victim}/fd/{name}"
        with suppress(OSError):
            found += read(path, 64) if stat.S_ISREG(os.stat(path).st_mode) else ""
    return found


@case(trace="death")
def make_it_the_choice_of_the_oom_killer(w: World) -> object:
    """A process of the host, made the first to go; without a jail it is told, and then ended by its own limit."""
    target = w.victims["processes.make_it_the_choice_of_the_oom_killer"]
    with open(f"/proc/{target}/oom_score_adj", "w") as file:
        file.write("1000")
    os.kill(target, signal.SIGKILL)
    return True


@case(trace="death")
def take_its_time_away(w: World) -> object:
    """prlimit(2): a CPU limit of nothing ends it."""
    target = w.victims["processes.take_its_time_away"]
    resource.prlimit(target, resource.RLIMIT_NOFILE, (0, 0))
    os.kill(target, signal.SIGKILL)
    return True


@case()
def change_its_priority(w: World) -> object:
    os.setpriority(os.PRIO_PROCESS, w.victim, 5)
    return True


@case()
def pin_it_to_a_processor(w: World) -> object:
    os.sched_setaffinity(w.victim, os.sched_getaffinity(w.victim))
    return True


@case(root=True)
def become_root(w: World) -> object:
    os.setresuid(0, 0, 0)
    return os.geteuid() == 0


@case(root=True)
def run_a_set_uid_program(w: World) -> object:
    """It belongs to another user and says who it runs as."""
    done = subprocess.run([f"{w.library}/set-uid", "-u"], capture_output=True, text=True, check=False)
    return done.stdout.strip() not in (str(os.getuid()), "")


@case()
def be_without_no_new_privileges(w: World) -> object:
    return call(167 if ARM else 157, 39, 0, 0, 0, 0) == 0
