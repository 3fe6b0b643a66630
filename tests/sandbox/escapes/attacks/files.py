"""Files of the host, by every path that could lead to them."""

from __future__ import annotations

import ctypes
import os
import stat
import subprocess
from contextlib import suppress

from .kernel import ARM, LIBC, NEWNS, attempt, check, first, mount, namespaces, pids, read, write
from .table import World, case

AT_SYMLINK_FOLLOW, AT_EMPTY_PATH = 0x400, 0x1000
OPEN_BY_HANDLE = 265 if ARM else 304


@case()
def read_a_secret(w: World) -> object:
    return read(w.secret)


@case()
def read_it_from_above(w: World) -> object:
    return read(w.workspace + "/.." * 40 + w.secret)


@case()
def read_it_through_a_link(w: World) -> object:
    link = f"{w.workspace}/innocent"
    os.symlink(w.secret, link)
    return read(link)


@case()
def read_it_through_a_relative_link(w: World) -> object:
    link = f"{w.workspace}/relative"
    os.symlink("../" * 40 + w.secret[1:], link)
    return read(link)


@case()
def read_it_through_a_hard_link(w: World) -> object:
    os.link(w.secret, f"{w.workspace}/hard")
    return read(f"{w.workspace}/hard")


@case()
def read_it_through_the_root_of_a_process(w: World) -> object:
    return first([f"/proc/{pid}/root{w.secret}" for pid in [os.getpid(), 1, *pids()]])


@case()
def read_it_through_the_folder_of_a_process(w: World) -> object:
    up = "/.." * 40
    return first([f"/proc/{pid}/cwd{up}{w.secret}" for pid in [os.getpid(), 1, *pids()]])


@case()
def read_it_below_a_root_that_was_left(w: World) -> object:
    tops = [f"/{name}" for name in (*os.listdir("/"), "oldroot", "newroot", ".old", "tmp/oldroot", "tmp/newroot")]
    return first([f"{top}{up}{w.secret}" for top in tops for up in ("", "/..")])


@case()
def read_it_with_a_set_of_shell_tools(w: World) -> object:
    done = subprocess.run(["/bin/sh", "-c", f"cd / && tar cf - .{w.secret} | cat"], capture_output=True, check=False)
    return done.stdout.decode(errors="replace")


@case()
def read_an_inherited_folder(w: World) -> object:
    """bwrap passes every inherited descriptor on."""
    found = ""
    for name in os.listdir("/proc/self/fd"):
        try:
            found += read(os.open(os.path.basename(w.secret), os.O_RDONLY, dir_fd=int(name)))
        except OSError:
            continue
    return found


@case()
def read_through_descriptors_of_others(w: World) -> object:
    found = []
    for pid in pids():
        with suppress(OSError):
            found += [_some(f"/proc/{pid}/fd/{name}", w) for name in os.listdir(f"/proc/{pid}/fd")]
    return "".join(found)


def _some(path: str, w: World) -> str:
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            return read(f"{path}/{os.path.basename(w.secret)}", 64)
        return read(path, 64) if stat.S_ISREG(mode) else ""
    except OSError:
        return ""


@case(root=True)
def read_it_by_its_handle(w: World) -> object:
    """Docker's "shocker": an inode needs no path."""
    return read(_by_handle(w.workspace, w.handle))


@case(root=True)
def read_it_by_its_handle_as_root_of_a_namespace(w: World) -> object:
    attempt(lambda: namespaces(NEWNS))
    attempt(lambda: mount(w.workspace, w.workspace, None, 4096 | 16384))
    return read(_by_handle(w.workspace, w.handle))


@case()
def know_the_users_of_the_host(w: World) -> object:
    return any(line.startswith(f"{w.user}:") for line in read("/etc/passwd").splitlines())


@case(root=True)
def read_shadow(w: World) -> object:
    return "root:" in read("/etc/shadow")


@case()
def read_a_folder_of_the_host(w: World) -> object:
    return os.path.basename(w.secret) in os.listdir(w.outside)


@case(trace="file")
def write_outside(w: World) -> object:
    return write(w.targets["files.write_outside"])


@case(trace="file")
def write_outside_through_a_link(w: World) -> object:
    link = f"{w.home}/.profile"
    os.symlink(w.targets["files.write_outside_through_a_link"], link)
    return write(link)


@case(trace="file")
def replace_a_file_outside(w: World) -> object:
    mine = f"{w.workspace}/mine"
    write(mine)
    os.rename(mine, w.targets["files.replace_a_file_outside"])
    return True


@case(trace="file")
def change_a_mode_outside_by_a_magic_link(w: World) -> object:
    """The program that a process runs is reached through /proc, on whatever mount it was executed from."""
    path = w.targets["files.change_a_mode_outside_by_a_magic_link"]
    attempt(*(lambda pid=pid: os.chmod(f"/proc/{pid}/root{path}", 0o6777) for pid in [*pids(), "self"]))
    return True


@case(trace="program")
def change_the_program_of_pid_1(w: World) -> object:
    """A jail's first process is bwrap, a file of the host: as the user who owns it, its mode could be changed."""
    for pid in (*w.victims.values(), 1, os.getppid()):
        path = f"/proc/{pid}/exe"
        with suppress(OSError):
            if os.path.basename(os.readlink(path)).startswith(("sleep", "bwrap", "memfd:bwrap")):
                os.chmod(path, stat.S_IMODE(os.stat(path).st_mode) | 0o022)
                return True
    return False


@case()
def write_in_a_folder_shown_read_only(w: World) -> object:
    return write(f"{w.library}/written")


@case()
def change_a_file_shown_read_only(w: World) -> object:
    return write(f"{w.library}/file")


@case()
def change_a_mode_shown_read_only(w: World) -> object:
    os.chmod(f"{w.library}/file", 0o666)
    return True


@case()
def reopen_for_writing(w: World) -> object:
    """Through /proc/self/fd a descriptor for reading becomes one for writing."""
    descriptor = os.open(f"{w.library}/file", os.O_RDONLY)
    return write(f"/proc/self/fd/{descriptor}")


@case()
def link_from_a_folder_shown_read_only(w: World) -> object:
    """A second name on a writable mount would be writable."""
    descriptor = os.open(f"{w.library}/file", os.O_RDONLY)
    name = os.fsencode(f"{w.workspace}/second")
    LIBC.linkat.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
    check(LIBC.linkat(-100, os.fsencode(f"/proc/self/fd/{descriptor}"), -100, name, AT_SYMLINK_FOLLOW))
    return write(f"{w.workspace}/second")


@case(root=True)
def write_in_the_root(w: World) -> object:
    return _made_and_removed("/kandev-escape")


@case(root=True)
def write_in_the_system(w: World) -> object:
    return _made_and_removed("/usr/kandev-escape")


@case(root=True)
def write_in_etc(w: World) -> object:
    return _made_and_removed("/etc/kandev-escape")


def _made_and_removed(path: str) -> bool:
    write(path)
    os.unlink(path)
    return True


def _by_handle(folder: str, handle: str) -> int:
    kind, _, content = handle.partition(":")
    raw = bytes.fromhex(content)
    text = len(raw).to_bytes(4, "little") + int(kind).to_bytes(4, "little", signed=True) + raw
    mounted = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    return check(LIBC.syscall(ctypes.c_long(OPEN_BY_HANDLE), mounted, ctypes.create_string_buffer(text), os.O_RDONLY))
