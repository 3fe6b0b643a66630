"""The jail's filter of system calls (kandev_sandbox.seccomp), written as the profile that a container engine reads.

The names are the same; what depends on arguments is said in libseccomp's comparisons. One thing is stricter, since one
rule cannot hold a set of values: personality(2) is refused for all but 0.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from kandev_sandbox.syscalls import ABSENT, NESTING, NEVER

_LOW = 0xFFFF_FFFF  # what the kernel takes for an int
# CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}: clone(2)
_NAMESPACES = (0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000)
_TERMINAL_REQUESTS = (0x5412, 0x541C, 0x5423)  # TIOCSTI, TIOCLINUX, TIOCSETD: ioctl_tty(2)
_AF_NETLINK = 16
_FAMILIES = (1, 2, 10, _AF_NETLINK)  # AF_UNIX, AF_INET, AF_INET6
_NETLINK_PROTOCOLS = (0, 4, 15)  # NETLINK_ROUTE, NETLINK_SOCK_DIAG, NETLINK_KOBJECT_UEVENT
_SET_IDS = (0o4000, 0o2000)
_CREATES = (0o100, 0o20000000)  # O_CREAT, __O_TMPFILE: only with one of them open(2) looks at the mode
_MODE_ARGUMENT = {"chmod": 1, "fchmod": 1, "fchmodat": 2, "fchmodat2": 2, "creat": 1, "mknod": 1, "mknodat": 2}
_FLAGS_ARGUMENT = {"open": 1, "openat": 2}  # the mode comes after it
_ARCHITECTURES = ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"]


@cache
def profile() -> str:
    """JSON for `seccomp=` of a container's security options."""
    rules = [
        _refused((*NEVER, *NESTING), errno.EPERM),
        _refused(ABSENT, errno.ENOSYS),
        *(_refused(("clone",), errno.EPERM, _has(0, bit)) for bit in _NAMESPACES),
        *(_refused(("ioctl",), errno.EPERM, _low(1, request)) for request in _TERMINAL_REQUESTS),
        *_sockets(),
        _refused(("personality",), errno.EPERM, _compared(0, "SCMP_CMP_NE", 0)),
        *_set_ids(),
    ]
    # Programs of another architecture (32 bit, x32) are killed at their first call: libseccomp's default.
    return json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "architectures": _ARCHITECTURES, "syscalls": rules})


def written(path: Path) -> str:
    """The path of a file that holds the profile now, for an engine that reads it itself (podman). Blocks."""
    with suppress(OSError):
        if path.read_text() == profile():
            return str(path)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(profile())
    fresh.replace(path)
    return str(path)


def _sockets() -> Iterable[dict[str, Any]]:
    calls = ("socket", "socketpair")
    for family in range(_AF_NETLINK):
        if family not in _FAMILIES:
            yield _refused(calls, errno.EAFNOSUPPORT, _low(0, family))
    # Larger numbers, also those whose upper bits the kernel would not look at.
    yield _refused(calls, errno.EAFNOSUPPORT, _compared(0, "SCMP_CMP_GT", _AF_NETLINK))
    netlink = _low(0, _AF_NETLINK)
    for protocol in range(max(_NETLINK_PROTOCOLS)):
        if protocol not in _NETLINK_PROTOCOLS:
            yield _refused(calls, errno.EPROTONOSUPPORT, netlink, _low(2, protocol))
    yield _refused(calls, errno.EPROTONOSUPPORT, netlink, _compared(2, "SCMP_CMP_GT", max(_NETLINK_PROTOCOLS)))


def _set_ids() -> Iterable[dict[str, Any]]:
    for bit in _SET_IDS:
        for name, mode in _MODE_ARGUMENT.items():
            yield _refused((name,), errno.EPERM, _has(mode, bit))
        for name, flags in _FLAGS_ARGUMENT.items():
            for creates in _CREATES:
                yield _refused((name,), errno.EPERM, _has(flags, creates), _has(flags + 1, bit))


def _refused(names: Iterable[str], number: int, *arguments: dict[str, Any]) -> dict[str, Any]:
    return {"names": sorted(names), "action": "SCMP_ACT_ERRNO", "errnoRet": number, "args": list(arguments)}


def _has(index: int, bit: int) -> dict[str, Any]:
    return {"index": index, "op": "SCMP_CMP_MASKED_EQ", "value": bit, "valueTwo": bit}


def _low(index: int, value: int) -> dict[str, Any]:
    return {"index": index, "op": "SCMP_CMP_MASKED_EQ", "value": _LOW, "valueTwo": value}


def _compared(index: int, operator: str, value: int) -> dict[str, Any]:
    return {"index": index, "op": operator, "value": value, "valueTwo": 0}
