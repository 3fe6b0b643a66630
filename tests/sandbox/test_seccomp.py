"""The filter at work: each call is really made in a jail, and again without one, where it gets another answer."""

from __future__ import annotations

import errno
import json
import os
import platform
import subprocess
import sys
from typing import Any

import pytest

from kandev_sandbox import resolve
from kandev_sandbox.syscalls import ABSENT, MACHINES, NESTING, NEVER, STRICT

pytestmark = pytest.mark.anyio
NUMBERS = MACHINES[platform.machine()].numbers
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: an ordinary user may not make these calls anyway")
on_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="machine code of x86-64")

BAD = 1  # an address where nothing is: whoever gets as far as reading it answers EFAULT, and has done nothing
ZEROS = -1  # of a page of zeros
# What each call is made with: as nearly nothing as can be, since it is also made by root and without a jail.
ARGUMENTS: dict[str, tuple[int, ...]] = {
    "acct": (BAD,), "add_key": (BAD, BAD, BAD, 1, 0), "adjtimex": (ZEROS,), "bpf": (99, BAD, 8), "chroot": (BAD,),
    "clock_adjtime": (0, ZEROS), "clock_settime": (0, BAD), "delete_module": (BAD, 0), "fanotify_init": (0xFFFF_FFF,),
    "finit_module": (99999, BAD, 0xFFFF), "fsconfig": (99999, 99, 0, 0, 0), "fsopen": (BAD, 0xFFFF),
    "get_mempolicy": (0, 0, 0, 0, 0), "init_module": (BAD, 1, BAD), "io_uring_enter": (99999, 0, 0, 0, 0, 0),
    "io_uring_setup": (0, BAD), "kcmp": (99999, 99999, 0, 0, 0), "kexec_file_load": (99999, 99999, 0, 0, 0xFFFF),
    "kexec_load": (0, 99999, 0, 0), "keyctl": (0, 0xFFFF_FFFD, 0), "mbind": (0, 0, 99, 0, 0, 0),
    "mount": (BAD, BAD, BAD, 0, 0), "open_by_handle_at": (99999, BAD, 0), "perf_event_open": (BAD, 0, 0, 0, 0),
    "pidfd_getfd": (99999, 0, 0), "pivot_root": (BAD, BAD), "process_madvise": (99999, 0, 0, 0, 0),
    "process_vm_readv": (99999, 0, 0, 0, 0, 0), "process_vm_writev": (99999, 0, 0, 0, 0, 0),
    "ptrace": (99, 99999, 0, 0), "quotactl": (0xFFFF_FFFF, BAD, 0, 0), "quotactl_fd": (99999, 0xFFFF_FFFF, 0, 0),
    "request_key": (BAD, BAD, 0, 0),
    "set_mempolicy_home_node": (0, 0, 0, 1), "setdomainname": (BAD, 1), "sethostname": (BAD, 1), "setns": (99999, 0),
    "swapoff": (BAD,), "swapon": (BAD, 0), "syslog": (10, 0, 0), "umount2": (BAD, 0), "userfaultfd": (0xFFFF_FFF,),
}  # fmt: skip
_PROGRAM = """
import ctypes, json, os, sys
os.setsid() if os.getpid() != os.getsid(0) else None  # vhangup would end the terminal of whoever runs the tests
libc = ctypes.CDLL(None, use_errno=True)
page = ctypes.create_string_buffer(4096)
answers = {}
for name, (number, *arguments) in json.loads(sys.argv[1]).items():
    words = [ctypes.c_long(ctypes.addressof(page) if word == -1 else word) for word in arguments]
    words += [ctypes.c_long(0)] * (6 - len(words))
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *words)
    answers[name] = ctypes.get_errno() if result == -1 else 0
print(json.dumps(answers))
"""
# Root alone gets past the kernel's own check, which says EPERM as well.
GUARDED = {
    *("acct", "chroot", "clock_settime", "delete_module", "fanotify_init", "finit_module", "fsopen", "init_module"),
    *("iopl", "kexec_file_load", "kexec_load", "mount", "open_by_handle_at", "pivot_root", "quotactl", "quotactl_fd"),
    *("reboot", "setdomainname", "sethostname", "settimeofday", "swapoff", "swapon", "syslog", "umount2", "vhangup"),
    *("adjtimex", "clock_adjtime", "bpf", "perf_event_open", "userfaultfd", "kcmp"),
}


def python(program: str, *arguments: str) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The command, and what its jail needs."""
    found = resolve(sys.executable, "-I", "-S", "-c", program, *arguments)
    return found.argv, {"binds": found.binds}


def calls(names: tuple[str, ...]) -> str:
    return json.dumps({name: [NUMBERS[name], *ARGUMENTS.get(name, ())] for name in names if name in NUMBERS})


async def inside(sandbox: Any, names: tuple[str, ...], **options: Any) -> dict[str, str]:
    command, needs = python(_PROGRAM, calls(names))
    return told((await sandbox.run(*command, **needs, **options)).out)


def outside(names: tuple[str, ...]) -> dict[str, str]:
    command = [sys.executable, "-I", "-S", "-c", _PROGRAM, calls(names)]
    return told(subprocess.run(command, capture_output=True, text=True, timeout=90, check=True).stdout)


def told(output: str) -> dict[str, str]:
    return {name: errno.errorcode.get(number, "done") for name, number in json.loads(output).items()}


def all_of(names: tuple[str, ...], answer: str) -> dict[str, str]:
    return {name: answer for name in names if name in NUMBERS}


@pytest.mark.parametrize("nested", [False, True])
async def test_every_call_that_is_never_needed_is_refused(sandbox: Any, nested: bool) -> None:
    assert await inside(sandbox, NEVER, nested=nested) == all_of(NEVER, "EPERM")


@pytest.mark.parametrize("nested", [False, True])
async def test_every_call_that_programs_can_do_without_does_not_exist(sandbox: Any, nested: bool) -> None:
    assert await inside(sandbox, ABSENT, nested=nested) == all_of(ABSENT, "ENOSYS")


async def test_what_makes_a_jail_is_refused(sandbox: Any) -> None:
    assert await inside(sandbox, NESTING) == all_of(NESTING, "EPERM")


async def test_what_makes_a_jail_is_looked_at_in_a_nested_one(sandbox: Any) -> None:
    found = await inside(sandbox, ("setns", "unshare"), nested=True)
    assert found == {"setns": "EBADF", "unshare": "done"}


async def test_strict_refuses_what_debuggers_need(sandbox: Any) -> None:
    assert await inside(sandbox, STRICT, seccomp="strict") == all_of(STRICT, "EPERM")
    assert "EPERM" not in (await inside(sandbox, STRICT)).values()


def test_without_a_jail_no_call_gets_the_answer_of_the_filter() -> None:
    names = (*NEVER, *NESTING, *STRICT)
    found = outside(names)
    known = {"reboot", *(GUARDED if os.geteuid() else ())}
    assert {name: answer for name, answer in found.items() if answer == "EPERM" and name not in known} == {}


def test_without_a_jail_the_calls_that_do_not_exist_inside_exist() -> None:
    found = outside(("clone3", "openat2", "io_uring_setup", "open_tree", "mount_setattr"))
    assert "ENOSYS" not in found.values()


_SOCKETS = """
import json, socket
answers = {}
for family, kind, protocol in [
    (1, 1, 0), (2, 1, 0), (10, 2, 0), (16, 3, 0), (16, 3, 12), (17, 2, 0), (38, 5, 0), (40, 1, 0),
]:
    try:
        socket.socket(family, kind, protocol).close()
        answer = 0
    except OSError as error:
        answer = error.errno
    answers[f"{family} {protocol}"] = answer
print(json.dumps(answers))
"""


async def test_sockets_are_of_four_families(sandbox: Any) -> None:
    command, needs = python(_SOCKETS)
    assert told((await sandbox.run(*command, **needs)).out) == {
        **dict.fromkeys(("1 0", "2 0", "10 0", "16 0"), "done"),
        **dict.fromkeys(("17 0", "38 0", "40 0"), "EAFNOSUPPORT"),
        "16 12": "EPROTONOSUPPORT",
    }


@as_root
async def test_vsock_is_open_to_the_network_of_a_plain_namespace() -> None:
    """Why the filter is needed: a network namespace closes everything but this one."""
    script = "import socket; socket.socket(40, 1, 0)"
    done = subprocess.run(["unshare", "--net", sys.executable, "-c", script], check=False, capture_output=True)
    assert done.returncode == 0 or b"Address family not supported" in done.stderr


_TYPING = """
import ctypes, fcntl, json, os, pty, termios
libc = ctypes.CDLL(None, use_errno=True)
answers = {}
pid, master = pty.fork()
if pid == 0:
    for request in (0x5412, 0x541C, 0x5423, 0x5412 | 0xDEAD << 32):  # TIOCSTI, TIOCLINUX, TIOCSETD
        ctypes.set_errno(0)
        letter = ctypes.c_int(0)
        result = libc.syscall(ctypes.c_long(ioctl), ctypes.c_long(0), ctypes.c_ulong(request), ctypes.byref(letter))
        answers[hex(request)] = ctypes.get_errno() if result == -1 else 0
    fcntl.ioctl(0, termios.TIOCGWINSZ, b"12345678")
    print(json.dumps(answers), flush=True)
    os._exit(0)
text = b""
while b"}" not in text:
    text += os.read(master, 4096)
os.waitpid(pid, 0)
print(text.decode())
"""


async def test_nothing_types_into_a_terminal(sandbox: Any) -> None:
    command, needs = python(_TYPING.replace("ctypes.c_long(ioctl)", f"ctypes.c_long({NUMBERS['ioctl']})"))
    found = told((await sandbox.run(*command, **needs)).out)
    assert set(found.values()) == {"EPERM"}


_SET_ID = """
import json, os
answers = {}
def attempt(name, call):
    try:
        call()
        answers[name] = 0
    except OSError as error:
        answers[name] = error.errno
os.umask(0)
os.close(os.open("file", os.O_CREAT | os.O_WRONLY, 0o755))
attempt("chmod", lambda: os.chmod("file", 0o4755))
attempt("group", lambda: os.chmod("file", 0o2755))
attempt("fchmod", lambda: os.fchmod(os.open("file", os.O_RDONLY), 0o4755))
attempt("at", lambda: os.chmod("file", 0o4755, dir_fd=os.open(".", os.O_RDONLY)))
attempt("open", lambda: os.close(os.open("made", os.O_CREAT | os.O_WRONLY, 0o4755)))
attempt("tmpfile", lambda: os.close(os.open(".", os.O_TMPFILE | os.O_WRONLY, 0o4755)))
attempt("mknod", lambda: os.mknod("node", 0o104755))
attempt("plain", lambda: os.chmod("file", 0o1777))
print(json.dumps(answers))
"""


@pytest.mark.parametrize("nested", [False, True])
async def test_no_set_id_file_is_left_for_the_host(sandbox: Any, nested: bool) -> None:
    command, needs = python(_SET_ID)
    found = told((await sandbox.run(*command, **needs, nested=nested)).out)
    assert found.pop("plain") == "done"
    assert set(found.values()) == {"EPERM"}
    assert {path.stat().st_mode & 0o6000 for path in sandbox.policy.workspace.iterdir()} == {0}


_INT80 = """
import ctypes, mmap
page = mmap.mmap(-1, 4096, prot=7)
page.write(bytes.fromhex("53b814000000cd805bc3"))  # push rbx; mov eax, 20 (getpid of i386); int 0x80; pop rbx; ret
call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
print("back" if call() else "none", flush=True)
"""


@on_x86
async def test_a_call_of_another_architecture_is_death(sandbox: Any) -> None:
    command, needs = python(_INT80)
    done = await sandbox.run(*command, **needs)
    assert (done.out, done.code) == ("", 128 + 31)


async def test_the_first_process_of_the_jail_is_filtered_too(sandbox: Any) -> None:
    assert (await sandbox.sh("grep Seccomp: /proc/1/status /proc/self/status | grep -c 2$")).out == "2\n"


async def test_what_ran_before_still_runs(sandbox: Any) -> None:
    """Threads, a pipeline, a new session, a local socket, memory that is locked and shared."""
    script = (
        "import mmap, multiprocessing, os, socket, subprocess, threading\n"
        "thread = threading.Thread(target=print, args=('thread',)); thread.start(); thread.join()\n"
        "subprocess.run('echo a | cat', shell=True, start_new_session=True, check=True)\n"
        "server = socket.create_server(('127.0.0.1', 0)); socket.create_connection(server.getsockname())\n"
        "multiprocessing.get_context('fork').Process(target=os.getpid).start()\n"
        "socket.socketpair(); mmap.mmap(-1, 4096); os.memfd_create('x'); print('all', flush=True)\n"
    )
    command, needs = python(script)
    done = await sandbox.run(*command, **needs)
    assert done.out.split()[-1] == "all", done.err
