"""Mounts: undo the read-only ones, look below them, make others."""

from __future__ import annotations

import ctypes
import os

from .kernel import (
    LIBC,
    MS_BIND,
    MS_MOVE,
    MS_REC,
    MS_REMOUNT,
    NEWCGROUP,
    NEWNET,
    NEWNS,
    NEWPID,
    attempt,
    call,
    check,
    first,
    mount,
    namespaces,
    read,
    umount,
    write,
)
from .table import World, case

OPEN_TREE, MOVE_MOUNT, MOUNT_SETATTR = 428, 429, 442
OPEN_TREE_CLONE, AT_RECURSIVE = 1, 0x8000
MOVE_FROM_EMPTY = 4
ATTR_RDONLY = 1


def _mine() -> None:
    attempt(lambda: namespaces(NEWNS))


def _everywhere(w: World) -> str:
    places = [line.split()[1] for line in read("/proc/self/mounts").splitlines()]
    return first([f"{place}{path}" for place in places for path in (w.secret, f"/{os.path.basename(w.secret)}")])


@case()
def remount_a_bind_writable(w: World) -> object:
    _mine()
    attempt(
        lambda: mount("none", w.library, None, MS_REMOUNT | MS_BIND),
        lambda: mount("none", "/", None, MS_REMOUNT | MS_BIND),
    )
    return write(f"{w.library}/remounted")


@case()
def change_a_mount_writable_by_the_new_calls(w: World) -> object:
    _mine()
    clear = (0).to_bytes(8, "little") + ATTR_RDONLY.to_bytes(8, "little") + bytes(16)
    attribute = ctypes.create_string_buffer(clear, 32)
    path = ctypes.c_char_p(os.fsencode(w.library))
    attempt(lambda: call(MOUNT_SETATTR, -100, path, AT_RECURSIVE, attribute, 32))
    return write(f"{w.library}/changed")


@case()
def bind_a_folder_a_second_time(w: World) -> object:
    _mine()
    place = f"{w.workspace}/second-place"
    os.mkdir(place)
    attempt(
        lambda: mount(w.library, place, None, MS_BIND | MS_REC), lambda: mount("", place, None, MS_REMOUNT | MS_BIND)
    )
    attempt(lambda: write(f"{place}/bound"))
    return write(f"{w.library}/bound")


@case()
def take_a_mount_away(w: World) -> object:
    _mine()
    attempt(lambda: umount(w.library))
    attempt(lambda: os.makedirs(w.library))
    write(f"{w.library}/uncovered")
    return os.path.exists(f"{w.library}/file")


@case()
def look_below_all_mounts(w: World) -> object:
    """What a mount covers is the host's, if it can be taken away."""
    _mine()
    for line in reversed(read("/proc/self/mounts").splitlines()):
        place = line.split()[1]
        attempt(lambda place=place: umount(place))
        attempt(lambda place=place: mount(place, f"{w.workspace}", None, MS_MOVE))
    return first([w.secret, f"/..{w.secret}", f"/proc/self/root/..{w.secret}", f"/proc/1/root/{w.secret}"])


@case()
def pivot_back(w: World) -> object:
    _mine()
    place = f"{w.workspace}/pivot"
    os.makedirs(f"{place}/old", exist_ok=True)
    attempt(lambda: mount(place, place, None, MS_BIND))
    attempt(lambda: check(LIBC.pivot_root(os.fsencode(place), os.fsencode(f"{place}/old"))))
    return first([f"/old{w.secret}", f"/old/..{w.secret}", f"/..{w.secret}", w.secret])


@case()
def break_out_of_a_chroot(w: World) -> object:
    _mine()
    os.makedirs(f"{w.workspace}/prison", exist_ok=True)
    outside = os.open("/", os.O_RDONLY)
    attempt(lambda: os.chroot(f"{w.workspace}/prison"), lambda: os.fchdir(outside), lambda: os.chdir("../" * 40))
    attempt(lambda: os.chroot("."))
    return first([w.secret, f"..{w.secret}"])


@case()
def clone_a_tree_and_look_around(w: World) -> object:
    _mine()
    root = call(OPEN_TREE, -100, ctypes.c_char_p(b"/"), OPEN_TREE_CLONE | AT_RECURSIVE)
    os.mkdir(f"{w.workspace}/tree")
    place = ctypes.c_char_p(os.fsencode(f"{w.workspace}/tree"))
    attempt(lambda: call(MOVE_MOUNT, root, ctypes.c_char_p(b""), -100, place, MOVE_FROM_EMPTY))
    return first(
        [f"/proc/self/fd/{root}{w.secret}", f"{w.workspace}/tree{w.secret}", f"{w.workspace}/tree/..{w.secret}"]
    )


@case(root=True)
def mount_a_cgroup_to_release(w: World) -> object:
    """CVE-2022-0492: a release_agent is run by the host's root."""
    attempt(lambda: namespaces(NEWNS | NEWCGROUP), _mine)
    place = f"{w.workspace}/cgroup"
    os.mkdir(place)
    for kind, options in (("cgroup", "pids"), ("cgroup", "none,name=kandev"), ("cgroup", "memory"), ("cgroup2", None)):
        if attempt(lambda kind=kind, options=options: mount("cgroup", place, kind, 0, options)):
            agent = f"{place}/release_agent"
            if os.path.exists(agent) and os.access(agent, os.W_OK):
                return True
            if kind == "cgroup2" and attempt(lambda: os.mkdir(f"{place}/kandev-escape")):
                os.rmdir(f"{place}/kandev-escape")
                return True
    return False


@case(root=True)
def mount_sysfs(w: World) -> object:
    attempt(lambda: namespaces(NEWNS | NEWNET), _mine)
    os.mkdir(f"{w.workspace}/sys")
    mount("sysfs", f"{w.workspace}/sys", "sysfs")
    return bool(os.listdir(f"{w.workspace}/sys/kernel"))


@case(root=True)
def mount_a_debugging_file_system(w: World) -> object:
    _mine()
    place = f"{w.workspace}/debug"
    os.mkdir(place)
    kinds = ("debugfs", "tracefs", "securityfs", "configfs", "efivarfs", "pstore", "devtmpfs")
    return attempt(*(lambda kind=kind: mount(kind, place, kind) for kind in kinds))


@case(root=True)
def mount_a_fresh_proc_of_the_host(w: World) -> object:
    """A new /proc shows the pid namespace of whoever mounts it, never the host's; nor its /proc/sys writable."""
    attempt(lambda: namespaces(NEWNS | NEWPID), _mine)
    place = f"{w.workspace}/proc"
    os.mkdir(place)
    child = os.fork()
    if child == 0:
        done = attempt(lambda: mount("proc", place, "proc"))
        ours = f"{place}/sys/kernel/core_pattern"
        os._exit(0 if done and attempt(lambda: write(ours, read(ours))) else 1)
    return os.waitpid(child, 0)[1] == 0


@case()
def write_through_an_overlay(w: World) -> object:
    _mine()
    for name in ("upper", "work", "merged"):
        os.mkdir(f"{w.workspace}/{name}")
    options = f"lowerdir={w.library},upperdir={w.workspace}/upper,workdir={w.workspace}/work"
    attempt(lambda: mount("overlay", f"{w.workspace}/merged", "overlay", 0, options))
    attempt(lambda: write(f"{w.workspace}/merged/file"))
    return write(f"{w.library}/file", "escaped")
