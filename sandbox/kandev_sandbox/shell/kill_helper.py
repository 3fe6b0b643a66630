"""Run as a script: enter the pid namespace of a process and SIGKILL everything in it but its first process.

Arguments: PID START, the first process and its start time. `kill(-1)` is one step of the kernel: a process that is
just forking gets it as well, which no walk through /proc can promise. It imports nothing of its package
(`python -I -S`).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import sys

CLONE_NEWUSER = 0x1000_0000
CLONE_NEWPID = 0x2000_0000
NS_GET_USERNS = 0xB701  # ioctl_ns(2): the user namespace that owns a namespace


def enter(descriptor: int, kind: int) -> None:
    """setns(2). Raises `OSError`."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, kind) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


def started(pid: str) -> str:
    """When, in clock ticks since boot: with the pid it names a process for good."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        text = file.read()
    return text[text.rindex(b")") + 2 :].split()[19].decode()


def main(arguments: list[str]) -> int:
    pid, expected = arguments
    namespace = os.open(f"/proc/{pid}/ns/pid", os.O_RDONLY)
    # After opening: whoever has the pid now had it then. And never, whatever was asked, in our own namespace.
    if started(pid) != expected or os.fstat(namespace).st_ino == os.stat("/proc/self/ns/pid").st_ino:
        return 1
    if os.geteuid() != 0:
        enter(fcntl.ioctl(namespace, NS_GET_USERNS), CLONE_NEWUSER)
    enter(namespace, CLONE_NEWPID)
    child = os.fork()  # only children are in the namespace entered
    if child == 0:
        try:
            os.kill(-1, signal.SIGKILL)
        except ProcessLookupError:
            pass  # nobody else is there
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
