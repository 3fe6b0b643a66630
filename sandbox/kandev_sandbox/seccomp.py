"""The filter of system calls that every jail has, assembled here: no library, no compiler (seccomp(2), classic BPF).

What is closed is a list (`syscalls`), since an allow list would break programs with every new C library. A jail that
is made of namespaces leaves three kinds of doors, and these are shut: calls that reach what no namespace holds (vsock,
keyrings, io_uring, the kernel's own clock and modules), calls that widen what a hole in the kernel would give
(user namespaces, netlink, bpf), and what outlives the jail (set-uid files).
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

from kandev_sandbox.errors import JailUnavailable
from kandev_sandbox.syscalls import ABSENT, LAST, MACHINES, NESTING, NEVER, STRICT, Machine

Seccomp = Literal["default", "strict"]

# linux/bpf_common.h, linux/seccomp.h
_LOAD, _RETURN = 0x20, 0x06
_EQUAL, _ABOVE, _ANY_BIT = 0x15, 0x25, 0x45
_ALLOW, _KILL, _ERRNO = 0x7FFF_0000, 0x8000_0000, 0x0005_0000
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16

# CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}: clone(2). CLONE_NEWTIME is of unshare and clone3 only.
_NEW_NAMESPACE = 0x7E02_0000
# Typing into a terminal (TIOCSTI, TIOCLINUX), and another line discipline (TIOCSETD): ioctl_tty(2).
_TERMINAL_REQUESTS = (0x5412, 0x541C, 0x5423)
_AF_NETLINK = 16
_FAMILIES = (1, 2, 10)  # AF_UNIX, AF_INET, AF_INET6
# NETLINK_ROUTE, NETLINK_SOCK_DIAG, NETLINK_KOBJECT_UEVENT: what ip, ss and libudev need. Packet filters and IPsec, the
# doors of many exploits once there is a network namespace of one's own, are among the others.
_NETLINK_PROTOCOLS = (0, 4, 15)
_PERSONALITIES = (
    0,
    0x0008,
    0x0002_0000,
    0x0002_0008,
    0xFFFF_FFFF,
)  # 32 bit and 2.6 names, and asking: as Docker has it
_SET_ID = 0o6000
_CREATES = 0o100 | 0o20000000  # O_CREAT, __O_TMPFILE: only with one of them open(2) looks at the mode
_MODE_ARGUMENT = {"chmod": 1, "fchmod": 1, "fchmodat": 2, "fchmodat2": 2, "creat": 1, "mknod": 1, "mknodat": 2}
_FLAGS_ARGUMENT = {"open": 1, "openat": 2}  # the mode comes after it
_NEXT = ""


@cache
def assemble(seccomp: Seccomp, nested: bool, machine: str | None = None) -> bytes:
    """The program as bwrap's `--seccomp` reads it. Raises `JailUnavailable` on a machine without a table.

    `nested` leaves open what a jail inside of the jail is made with, and nothing else.
    """
    name = machine or os.uname().machine
    known = MACHINES.get(name)
    if known is None:
        raise JailUnavailable(
            f"There is no system call filter for {name}, and no jail is made without one.",
            f"use a machine of {' or '.join(MACHINES)}",
        )
    refused = [*NEVER, *(STRICT if seccomp == "strict" else ()), *(() if nested else NESTING)]
    program = _Program()
    program.load(_ARCH)
    program.jump(_EQUAL, known.audit_arch, no="kill")
    program.load(_NUMBER)
    # Also the calls of x32, whose numbers have bit 30.
    program.jump(_ABOVE, LAST, yes="enosys")
    program.any_of(_numbers(known, refused), "eperm")
    program.any_of(_numbers(known, ABSENT), "enosys")
    _arguments(program, known, nested)
    return program.assembled()


def _numbers(machine: Machine, names: Iterable[str]) -> list[int]:
    return [machine.numbers[name] for name in names if name in machine.numbers]


def _arguments(program: _Program, machine: Machine, nested: bool) -> None:
    """What depends on the arguments of a call. Only their low 32 bits count: the kernel takes them for an int."""
    looked_at = [*([] if nested else ["clone"]), "ioctl", "socket", "socketpair", "personality"]
    looked_at += [*_MODE_ARGUMENT, *_FLAGS_ARGUMENT]
    for name in looked_at:
        if name in machine.numbers:
            program.jump(_EQUAL, machine.numbers[name], yes=_label(name))
    program.answer(_ALLOW)
    if not nested:
        program.label("clone")
        program.load_argument(0)
        program.jump(_ANY_BIT, _NEW_NAMESPACE, yes="eperm", no="allow")
    program.label("ioctl")
    program.load_argument(1)
    program.any_of(_TERMINAL_REQUESTS, "eperm")
    program.answer(_ALLOW)
    program.label("socket")
    program.load_argument(0)
    program.any_of(_FAMILIES, "allow")
    program.jump(_EQUAL, _AF_NETLINK, no="eafnosupport")
    program.load_argument(2)
    program.any_of(_NETLINK_PROTOCOLS, "allow")
    program.answer(_ERRNO | errno.EPROTONOSUPPORT)
    program.label("personality")
    program.load_argument(0)
    program.any_of(_PERSONALITIES, "allow")
    program.answer(_ERRNO | errno.EPERM)
    for flags in (1, 2):
        program.label(f"flags {flags}")
        program.load_argument(flags)
        program.jump(_ANY_BIT, _CREATES, yes=f"mode {flags + 1}", no="allow")
    for mode in (1, 2, 3):
        program.label(f"mode {mode}")
        program.load_argument(mode)
        program.jump(_ANY_BIT, _SET_ID, yes="eperm", no="allow")


def _label(name: str) -> str:
    """Where the arguments of this call are looked at."""
    if name in _MODE_ARGUMENT:
        return f"mode {_MODE_ARGUMENT[name]}"
    if name in _FLAGS_ARGUMENT:
        return f"flags {_FLAGS_ARGUMENT[name]}"
    return "socket" if name == "socketpair" else name


@dataclass(slots=True)
class _Program:
    """Instructions with names for the places that are jumped to; a jump leads forward, over at most 255."""

    steps: list[tuple[int, int, str, str]] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)

    def label(self, name: str) -> None:
        self.labels[name] = len(self.steps)

    def load(self, offset: int) -> None:
        self.steps.append((_LOAD, offset, _NEXT, _NEXT))

    def load_argument(self, index: int) -> None:
        self.load(_ARGUMENTS + 8 * index)

    def jump(self, test: int, value: int, *, yes: str = _NEXT, no: str = _NEXT) -> None:
        self.steps.append((test, value, yes, no))

    def any_of(self, values: Iterable[int], target: str) -> None:
        for value in values:
            self.jump(_EQUAL, value, yes=target)

    def answer(self, value: int) -> None:
        self.steps.append((_RETURN, value, _NEXT, _NEXT))

    def assembled(self) -> bytes:
        """struct sock_filter, one after the other, after adding the ends that all share."""
        ends = {
            "allow": _ALLOW,
            "kill": _KILL,
            "eperm": _ERRNO | errno.EPERM,
            "enosys": _ERRNO | errno.ENOSYS,
            "eafnosupport": _ERRNO | errno.EAFNOSUPPORT,
        }
        for name, value in ends.items():
            self.label(name)
            self.answer(value)
        return b"".join(
            struct.pack("=HBBI", code, self._distance(at, yes), self._distance(at, no), value)
            for at, (code, value, yes, no) in enumerate(self.steps)
        )

    def _distance(self, at: int, label: str) -> int:
        return 0 if label == _NEXT else self.labels[label] - at - 1
