"""Calls that nothing in a jail needs: the kernel must refuse them at its door.

Without a jail each gets as far as the kernel's own answer, which is none of a filter's.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from typing import NamedTuple

from .kernel import ARM, call
from .table import World, case

REFUSALS = (errno.EPERM, errno.ENOSYS, errno.EAFNOSUPPORT)
NOWHERE = ctypes.c_char_p(b"/nonexistent/at/all")
SELF = object()


class Call(NamedTuple):
    """`numbers` of x86-64 and aarch64."""

    name: str
    numbers: tuple[int, int]
    arguments: tuple[object, ...]
    root: bool = False
    nested: bool = True


def _room() -> object:
    return ctypes.create_string_buffer(4096)


CALLS = (
    Call("io_uring_setup", (425, 425), (1, _room())),
    Call("userfaultfd", (323, 282), (1,)),
    Call("perf_event_open", (298, 241), (_room(), -1, -1, -1, 1 << 20)),
    Call("bpf", (321, 280), (99, None, 0), root=True),
    Call("kcmp", (312, 272), (SELF, SELF, 99, 0, 0)),
    Call("add_key", (248, 217), (None, None, None, 0, 0)),
    Call("request_key", (249, 218), (None, None, None, 0)),
    Call("keyctl", (250, 219), (0, -1, 0)),
    Call("pidfd_getfd", (438, 438), (-1, 0, 0)),
    Call("process_madvise", (440, 440), (-1, None, 0, 0, 0)),
    Call("get_mempolicy", (239, 236), (None, None, 0, None, 0)),
    Call("set_mempolicy", (238, 237), (0, None, 0)),
    Call("mbind", (237, 235), (None, 0, 0, None, 0, 0)),
    Call("migrate_pages", (256, 238), (0, 0, None, None)),
    Call("move_pages", (279, 239), (0, 0, None, None, None, 0)),
    Call("fanotify_init", (300, 262), (0x200, 0)),
    Call("open_by_handle_at", (304, 265), (-1, _room(), 0), root=True),
    Call("quotactl", (179, 60), (-1, NOWHERE, 0, None), root=True),
    Call("acct", (163, 89), (NOWHERE,), root=True),
    Call("swapon", (167, 224), (NOWHERE, 0), root=True),
    Call("swapoff", (168, 225), (NOWHERE,), root=True),
    Call("adjtimex", (159, 171), (_room(),)),
    Call("syslog", (103, 116), (10, None, 0), root=True),
    Call("personality", (135, 92), (0x0040000,)),
    Call("fsopen", (430, 430), (NOWHERE, 0), root=True),
    Call("open_tree", (428, 428), (-100, NOWHERE, 0)),
    Call("fspick", (433, 433), (-100, NOWHERE, 0), root=True),
    Call("mount_setattr", (442, 442), (-100, NOWHERE, 0, None, 0)),
    Call("listmount", (458, 458), (None, None, 0, 0)),
    Call("statmount", (457, 457), (None, None, 0, 0)),
    Call("umount2", (166, 39), (NOWHERE, 0), root=True, nested=False),
    Call("chroot", (161, 51), (NOWHERE,), nested=False),
    Call("setns", (308, 268), (-1, 0), nested=False),
    Call("clone3", (435, 435), (None, 0)),
)


def _enter(one: Call) -> None:
    def attack(w: World) -> object:
        try:
            call(one.numbers[ARM], *(os.getpid() if value is SELF else value for value in one.arguments))
        except OSError as error:
            if error.errno in REFUSALS:
                raise
        return True

    attack.__name__ = one.name
    enter: Callable[[Callable[[World], object]], object] = case(needs="seccomp", root=one.root, nested=one.nested)
    enter(attack)


for _one in CALLS:
    _enter(_one)
