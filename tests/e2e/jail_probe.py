"""Run by a hostile agent in its jail: tries each way out, and writes what it got as JSON.

Arguments: OUTPUT GATEWAY_PORT DATA_FOLDER OTHER_WORKSPACE CANARY_FOLDER HOST_PID
"""

from __future__ import annotations

import ctypes
import glob
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

OUTPUT, PORT, DATA, OTHER, CANARY, HOST_PID = sys.argv[1:]
LIBC = ctypes.CDLL(None, use_errno=True)
found: dict[str, Any] = {}


def attempt(name: str, what: Callable[[], Any]) -> None:
    """What it gave; None if the system refused."""
    try:
        found[name] = what()
    except (OSError, subprocess.SubprocessError):
        found[name] = None


def read(path: str) -> str:
    with open(path, "rb") as file:
        return file.read(100_000).decode(errors="replace")


def write(path: str) -> str:
    with open(path, "wb") as file:
        file.write(b"#!/bin/sh\n")
    return path


def connect(family: int, address: Any) -> str:
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(1)
        sock.connect(address)
    return "connected"


def call(*arguments: Any) -> str:
    """A system call by its number on x86-64, or a function of libc."""
    function, *rest = arguments
    result = getattr(LIBC, function)(*rest) if isinstance(function, str) else LIBC.syscall(function, *rest)
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return "done"


def command(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, timeout=5).stdout.decode()


def ours(pid: str) -> bool:
    """Is this a process of the jail? Its pid namespace is then ours."""
    return os.readlink(f"/proc/{pid}/ns/pid") == os.readlink("/proc/self/ns/pid")


def descriptors(pid: str) -> list[str]:
    """What a process has open; the descriptor by which its list is read is gone by then."""
    targets = []
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            targets.append(os.readlink(f"/proc/{pid}/fd/{number}"))
        except FileNotFoundError:
            continue
    return targets


attempt("gateway", lambda: connect(socket.AF_INET, ("127.0.0.1", int(PORT))))
attempt("gateway over ipv6", lambda: connect(socket.AF_INET6, ("::1", int(PORT))))
attempt("any address", lambda: connect(socket.AF_INET, ("0.0.0.0", int(PORT))))
attempt("outside", lambda: connect(socket.AF_INET, ("1.1.1.1", 443)))
attempt("abstract sockets", lambda: [line for line in read("/proc/net/unix").splitlines()[1:] if "@" in line] or None)
attempt("vsock", lambda: connect(socket.AF_VSOCK, (2, 1)))
attempt("token", lambda: read(f"{DATA}/token"))
attempt("database", lambda: read(f"{DATA}/kandev.db"))
attempt("data folder", lambda: os.listdir(DATA))
attempt("other workspace", lambda: os.listdir(OTHER))
attempt("other workspace through /proc", lambda: os.listdir(f"/proc/1/root{OTHER}"))
attempt("secrets of root", lambda: os.listdir("/root/.ssh"))
attempt("shadow", lambda: read("/etc/shadow"))
attempt("environment of the first process", lambda: read("/proc/1/environ"))
attempt("own environment", lambda: "\n".join(f"{name}={value}" for name, value in os.environ.items()))
attempt("arguments of the first process", lambda: read("/proc/1/cmdline"))
attempt("foreign processes", lambda: [pid for pid in os.listdir("/proc") if pid.isdigit() and not ours(pid)] or None)
attempt("kill the host", lambda: os.kill(int(HOST_PID), 0) or read(f"/proc/{HOST_PID}/cmdline"))
attempt("descriptors", lambda: descriptors("self"))
attempt("descriptors of the first process", lambda: descriptors("1"))
attempt(
    "write in the system",
    lambda: [
        write(f"{place}/kandev-canary")
        for place in ("/usr/bin", "/etc", "/", "/root", "/dev", "/var", "/opt", "/sys", "/proc/sys/kernel")
    ],
)
for place in (
    "/usr/bin",
    "/etc",
    "/",
    "/root",
    "/dev",
    "/var/lib",
    "/opt",
    "/home",
    "/lib",
    DATA,
    CANARY,
    "/proc/1/root/usr",
):
    attempt(f"write in {place}", lambda place=place: write(f"{place}/kandev-canary"))
attempt("core pattern", lambda: write("/proc/sys/kernel/core_pattern"))
attempt("sysrq", lambda: write("/proc/sysrq-trigger"))
attempt("mount", lambda: call("mount", b"none", b"/tmp", b"tmpfs", 0, None))
attempt("remount", lambda: call("mount", b"none", b"/", None, 32 | 4096, None))
attempt("umount", lambda: call("umount2", b"/workspace", 2))
attempt("pivot", lambda: call(155, b"/tmp", b"/tmp"))
attempt("chroot", lambda: os.chroot("/proc/1/root"))
attempt("user namespace", lambda: call("unshare", 0x10000000))
attempt("network namespace", lambda: call("unshare", 0x40000000))
attempt("enter a namespace", lambda: call("setns", os.open("/proc/1/ns/mnt", os.O_RDONLY), 0))
attempt("become root", lambda: os.setuid(0))
attempt(
    "set-uid program",
    lambda: (
        [
            p
            for p in ("su", "sudo", "mount", "passwd")
            if b"uid=0"
            in subprocess.run(
                [p, "-c", "id"], capture_output=True, stdin=subprocess.DEVNULL, timeout=5, check=False
            ).stdout
        ]
        or None
    ),
)
attempt(
    "capabilities",
    lambda: next(line.split()[1] for line in read("/proc/self/status").splitlines() if line.startswith("CapEff")),
)
attempt(
    "no new privileges",
    lambda: next(line.split()[1] for line in read("/proc/self/status").splitlines() if line.startswith("NoNewPrivs")),
)
attempt("trace the first process", lambda: call("ptrace", 16, 1, None, None))
attempt("devices", lambda: [name for name in glob.glob("/dev/*") if not os.path.islink(name)])
attempt("disk", lambda: [read(name)[:1] for name in ("/dev/vda", "/dev/sda", "/dev/mem", "/dev/kmsg", "/dev/fuse")])
attempt("make a device", lambda: os.mknod("/tmp/disk", 0o060666, os.makedev(254, 0)))
attempt("open by handle", lambda: call(304, -100, b"x" * 64, 0))
attempt("kernel log", lambda: call(103, 3, ctypes.create_string_buffer(100), 100))
attempt("module", lambda: call(175, b"", 0, b""))
attempt("clock", lambda: call("settimeofday", ctypes.create_string_buffer(16), None))
attempt("host name", lambda: call("sethostname", b"x", 1) if socket.gethostname() != "jail" else None)
attempt("terminal", lambda: os.open("/dev/tty", os.O_RDWR))
with open(OUTPUT, "w") as file:
    json.dump(found, file)
