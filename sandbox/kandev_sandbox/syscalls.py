"""The system calls that the filter of a jail names: their numbers, and what becomes of each.

Numbers: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h (aarch64). From 424 on they are
the same on both. None: this machine never had the call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# The last call that was looked at when this list was made (Linux 6.18: file_setattr). What is newer does not exist
# inside until somebody has looked at it, and programs fall back as they do on an older kernel.
LAST = 469

# name: (x86-64, aarch64)
_NUMBERS: Mapping[str, tuple[int | None, int | None]] = {
    "_sysctl": (156, None),
    "acct": (163, 89),
    "add_key": (248, 217),
    "adjtimex": (159, 171),
    "bpf": (321, 280),
    "chmod": (90, None),
    "chroot": (161, 51),
    "clock_adjtime": (305, 266),
    "clock_settime": (227, 112),
    "clone": (56, 220),
    "clone3": (435, 435),
    "creat": (85, None),
    "create_module": (174, None),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "get_kernel_syms": (177, None),
    "get_mempolicy": (239, 236),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioctl": (16, 29),
    "ioperm": (173, None),
    "iopl": (172, None),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "listmount": (458, 458),
    "lookup_dcookie": (212, 18),
    "mbind": (237, 235),
    "migrate_pages": (256, 238),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "modify_ldt": (154, None),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "move_pages": (279, 239),
    "nfsservctl": (180, 42),
    "open": (2, None),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "open_tree_attr": (467, 467),
    "openat": (257, 56),
    "openat2": (437, 437),
    "perf_event_open": (298, 241),
    "personality": (135, 92),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "process_madvise": (440, 440),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "query_module": (178, None),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "set_mempolicy": (238, 237),
    "set_mempolicy_home_node": (450, 450),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "statmount": (457, 457),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "uselib": (134, None),
    "userfaultfd": (323, 282),
    "ustat": (136, None),
    "vhangup": (153, 58),
}

# What a jail inside of a jail is made with; closed unless the policy says `nested`.
NESTING = ("chroot", "mount", "pivot_root", "setdomainname", "sethostname", "setns", "umount2", "unshare")
# EPERM, always: the kernel's modules, clock, keys, power, accounting; what looks into other processes or into memory
# that is not the caller's; and interfaces that no program of an agent needs and exploits begin with.
NEVER = (
    *("_sysctl", "acct", "add_key", "adjtimex", "bpf", "clock_adjtime", "clock_settime", "create_module"),
    *("delete_module", "fanotify_init", "finit_module", "get_kernel_syms", "get_mempolicy", "init_module", "ioperm"),
    *("iopl", "kcmp", "kexec_file_load", "kexec_load", "keyctl", "listmount", "lookup_dcookie", "mbind"),
    *("migrate_pages", "modify_ldt", "move_pages", "nfsservctl", "open_by_handle_at", "perf_event_open"),
    *("pidfd_getfd", "process_madvise", "query_module", "quotactl", "quotactl_fd", "reboot", "request_key"),
    *("set_mempolicy", "set_mempolicy_home_node", "settimeofday", "statmount", "swapoff", "swapon", "syslog"),
    *("uselib", "userfaultfd", "ustat", "vhangup"),
)
# EPERM as well under `seccomp="strict"`: debuggers and strace no longer work.
STRICT = ("process_vm_readv", "process_vm_writev", "ptrace")
# ENOSYS: programs know kernels without them and fall back. clone3 and openat2 hide their flags behind a pointer, where
# a filter cannot look; the new mount calls need what `mount` needs; io_uring runs calls that no filter sees.
ABSENT = (
    *("clone3", "fsconfig", "fsmount", "fsopen", "fspick", "io_uring_enter", "io_uring_register", "io_uring_setup"),
    *("mount_setattr", "move_mount", "open_tree", "open_tree_attr", "openat2"),
)


@dataclass(frozen=True, slots=True)
class Machine:
    """An architecture: its name in a filter's data (linux/audit.h), and its system calls by name."""

    audit_arch: int
    numbers: Mapping[str, int]


def _column(index: int) -> Mapping[str, int]:
    return {name: number for name, row in _NUMBERS.items() if (number := row[index]) is not None}


MACHINES: Mapping[str, Machine] = {
    "x86_64": Machine(0xC000_003E, _column(0)),
    "aarch64": Machine(0xC000_00B7, _column(1)),
}
