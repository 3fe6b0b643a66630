"""Run as a script: enter the network namespace of a process, listen there, hand the sockets over (SCM_RIGHTS).

Arguments: PID DESCRIPTOR PORT... where DESCRIPTOR is a unix socket. It imports nothing of its package, so that it
starts in a few milliseconds (`python -I -S`).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import sys

CLONE_NEWUSER = 0x1000_0000
CLONE_NEWNET = 0x4000_0000
NS_GET_USERNS = 0xB701  # ioctl_ns(2): the user namespace that owns a namespace
IP_FREEBIND = 15  # ip(7): the loopback device may not be up yet


def enter(descriptor: int, kind: int) -> None:
    """setns(2). Raises `OSError`."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, kind) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


def main(arguments: list[str]) -> None:
    pid, descriptor, *ports = map(int, arguments)
    network = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    enter(fcntl.ioctl(network, NS_GET_USERNS), CLONE_NEWUSER)
    enter(network, CLONE_NEWNET)
    listeners = []
    for port in ports:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(128)
        listeners.append(listener)
    with socket.socket(fileno=descriptor) as channel:
        socket.send_fds(channel, [b"x"], [listener.fileno() for listener in listeners])


if __name__ == "__main__":
    main(sys.argv[1:])
