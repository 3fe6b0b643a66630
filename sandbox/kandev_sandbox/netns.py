"""Making listening sockets inside another process's network namespace."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from kandev_sandbox import libc
from kandev_sandbox.apart import apart

BACKLOG = 128
_IP_FREEBIND = 15  # ip(7): bwrap tells of its child before the child has brought the loopback device up
_HELPER_TIMEOUT_S = 10.0


def listen(pid: int, ports: list[int]) -> list[socket.socket]:
    """Sockets listening on 127.0.0.1 in the network namespace of `pid`. Blocks; raises `OSError`.

    As root, a thread enters the namespace. Otherwise a small helper process first enters the user namespace that
    owns it (which a thread of a multi-threaded process may not) and hands the sockets over.
    """
    return apart(_in_there, pid, ports) if os.geteuid() == 0 else _in_helper(pid, ports)


def bind(port: int) -> socket.socket:
    """A listening socket in the calling thread's network namespace."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _in_there(pid: int, ports: list[int]) -> list[socket.socket]:
    descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc.setns(descriptor, libc.CLONE_NEWNET)
    finally:
        os.close(descriptor)
    with ExitStack() as made:
        listeners = [made.enter_context(bind(port)) for port in ports]
        made.pop_all()
    return listeners


def _in_helper(pid: int, ports: list[int]) -> list[socket.socket]:
    ours, theirs = socket.socketpair()
    script = Path(__file__).with_name("netns_helper.py")
    with ours, theirs:
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(script), str(pid), str(theirs.fileno()), *map(str, ports)],
            env={},
            stdin=subprocess.DEVNULL,
            check=False,
            capture_output=True,
            pass_fds=(theirs.fileno(),),
            timeout=_HELPER_TIMEOUT_S,
        )
        if done.returncode != 0:
            words = done.stderr.decode(errors="replace").strip().splitlines()
            raise OSError(words[-1] if words else f"helper ended with {done.returncode}")
        _, descriptors, _, _ = socket.recv_fds(ours, 1, len(ports))
    listeners = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    for listener in listeners:
        listener.setblocking(False)
    return listeners
