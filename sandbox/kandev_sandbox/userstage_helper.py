"""Run as a process of its own: make mounts in a user and a mount namespace of its own, then become bwrap.

Arguments: PARENT STATUS PLAN PROGRAM ARGUMENT... PARENT is the pid of the host, STATUS the descriptor on which bwrap
will tell of the jail (a line that begins with "!" says why there is none), PLAN a file that `userstage.plan` wrote,
PROGRAM the path of bwrap, or a descriptor of it.
With the one argument "probe" it only tries, and writes the number and the words of an error.

It imports nothing of its package, so that it starts in a few milliseconds (`python -I -S`). All paths are bytes. What
lies in the folders may change at any moment: it is walked through no link, one component at a time, mounted by
descriptor and looked at again afterwards. bwrap runs without capabilities (capabilities(7): the uid is not 0).
"""

from __future__ import annotations

import ctypes
import os
import stat

CLONE_NEWNS = 0x0002_0000
CLONE_NEWUSER = 0x1000_0000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_SLAVE = 32, 4096, 16384, 1 << 19
MNT_DETACH = 2
PR_SET_PDEATHSIG = 1
SIGKILL, SIGPIPE, SIGXFSZ = 9, 13, 25  # importing `signal` takes longer than all mounts
SIG_DFL = None
PLACE = b"/tmp"  # covered while the mounts are made; any folder that every machine has
OPEN = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
FIELDS = 6

libc = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):
    """There is no jail; the words are for the user."""


class Step:
    """One mount: what is at `source` (or what is there already) at `path` below `folder`, seen as `inside`."""

    # Shared, for there may be more mounts than half of the open files that are allowed.
    roots: dict[bytes, int] = {}  # noqa: RUF012 (importing `typing` takes milliseconds)

    def __init__(self, fields: list[bytes]) -> None:
        folder, self.path, self.source, kind, self.identity, self.inside = fields
        self.read_only = kind == b"ro"
        # Opened before PLACE is covered, since all of them may lie there.
        if folder not in self.roots:
            self.roots[folder] = os.open(folder, OPEN | os.O_DIRECTORY)
        self.root = self.roots[folder]
        self.shown = opened(self.source) if self.source else -1
        self.target = -1

    def find(self) -> int:
        """A descriptor of what is at the place now."""
        current = os.dup(self.root)
        for name in self.path.split(b"/") if self.path else ():
            try:
                inner = os.open(name, OPEN, dir_fd=current)
            except OSError:
                raise self.swapped() from None
            finally:
                os.close(current)
            current = inner
        if stat.S_ISLNK(os.fstat(current).st_mode):
            raise self.swapped()
        return current

    def begin(self) -> None:
        """Look where it goes. What is mounted onto itself must be what the host saw there."""
        self.target = self.find()
        if not self.source:
            found = os.fstat(self.target)
            if self.identity != b"%d:%d" % (found.st_dev, found.st_ino):
                raise self.swapped()
            self.shown = self.target

    def check(self) -> None:
        """Seen by its path, it is the mount that was made."""
        seen = self.find()
        closed = bool(os.fstatvfs(seen).f_flag & os.ST_RDONLY)
        same = os.path.samestat(os.fstat(seen), os.fstat(self.shown))
        if not same or mount_id(seen) == mount_id(self.target) or (self.read_only and not closed):
            raise self.swapped()
        os.close(seen)

    def swapped(self) -> Refused:
        return Refused(f"{os.fsdecode(self.inside)} was replaced while the jail was built.")


def opened(source: bytes) -> int:
    try:
        return os.open(os.path.realpath(source), OPEN)
    except OSError as error:
        raise Refused(f"{os.fsdecode(source)} cannot be shown: {error.strerror}.") from None


def check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: bytes, target: bytes, flags: int, kind: bytes | None = None, options: bytes | None = None) -> None:
    """mount(2)."""
    check(libc.mount(source, target, kind, ctypes.c_ulong(flags), options), f"mount {os.fsdecode(target)}")


def link(descriptor: int) -> bytes:
    return b"/proc/thread-self/fd/%d" % descriptor


def mount_id(descriptor: int) -> bytes:
    """proc(5): /proc/PID/fdinfo."""
    lines = content(f"/proc/thread-self/fdinfo/{descriptor}").splitlines()
    return next(line for line in lines if line.startswith(b"mnt_id:"))


def content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def enter() -> None:
    """Namespaces of its own, in which it may mount; the uid and gid stay what they are. Raises `OSError`."""
    uid, gid = os.geteuid(), os.getegid()
    check(libc.unshare(CLONE_NEWUSER | CLONE_NEWNS), "a new user namespace")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    # Not private: it lasts as long as the jail, and what the host unmounts meanwhile is to go here as well.
    mount(b"none", b"/", MS_REC | MS_SLAVE)


def cover() -> None:
    mount(b"kandev", PLACE, MS_NOSUID | MS_NODEV, b"tmpfs", b"mode=0700,size=1m,nr_inodes=65536")


def detach(place: bytes) -> None:
    """umount2(2), with all that is mounted in it."""
    check(libc.umount2(place, MNT_DETACH), f"umount {os.fsdecode(place)}")


def fasten(step: Step, place: bytes) -> None:
    """Through a place that nobody else reaches, where it becomes read-only before it is mounted at its own."""
    if stat.S_ISDIR(os.fstat(step.shown).st_mode):
        os.mkdir(place)
    else:
        os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    mount(link(step.shown), place, MS_BIND | MS_REC)
    if step.read_only:
        points = writable(place)
        for point in points:
            kept = os.statvfs(point).f_flag & (MS_NOSUID | MS_NODEV | MS_NOEXEC)
            mount(b"none", point, MS_BIND | MS_REMOUNT | MS_RDONLY | kept)
        # A mount in it may have moved meanwhile, and another one been closed in its place.
        if set(points) - {place} and writable(place):
            raise step.swapped()
    mount(place, link(step.target), MS_BIND | MS_REC)
    detach(place)


def writable(place: bytes) -> list[bytes]:
    """The mounts there, and in it, that can be written to."""
    fields = [line.split(b" ", 6) for line in content("/proc/thread-self/mountinfo").splitlines()]
    points = [(plain(field[4]), field[5].split(b",")) for field in fields]
    return [point for point, how in points if (point + b"/").startswith(place + b"/") and b"rw" in how]


def plain(field: bytes) -> bytes:
    """Blanks and backslashes are written in octal."""
    return field.decode("unicode_escape").encode("latin-1")


def stage(fields: list[bytes]) -> None:
    """All mounts of the plan, in its order. Raises `Refused` and `OSError`."""
    enter()
    # What is opened belongs to the namespace of that moment, and only that may be mounted.
    steps = [Step(fields[first : first + FIELDS]) for first in range(0, len(fields), FIELDS)]
    cover()
    for step in steps:
        step.begin()
    for number, step in enumerate(steps):
        fasten(step, PLACE + b"/%d" % number)
    for step in steps:
        step.check()
    detach(PLACE)


def become(parent: int, plan: int, program: bytes, arguments: list[bytes]) -> None:
    """Never returns. Raises `Refused` and `OSError`."""
    count, *rest = os.read(plan, os.fstat(plan).st_size).split(b"\0")[:-1]
    env = dict(pair.split(b"=", 1) for pair in rest[: int(count)])
    executable = program if program.startswith(b"/") else int(program)
    stage(rest[int(count) :])
    # Until bwrap says so itself; after `enter`, since new credentials take it back.
    check(libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(SIGKILL)), "prctl")
    if os.getppid() != parent:
        raise Refused("The host has ended.")
    for descriptor in (plan, executable):
        if isinstance(descriptor, int):
            os.set_inheritable(descriptor, False)
    # What Python ignores, whatever it executes would ignore as well.
    for number in (SIGPIPE, SIGXFSZ):
        libc.signal(number, SIG_DFL)
    os.execve(executable, [b"bwrap", *arguments], env)  # noqa: S606 (no shell is wanted)


def probe() -> None:
    try:
        enter()
        cover()
        detach(PLACE)
    except OSError as error:
        print(error.errno, error.strerror)


def main(arguments: list[str]) -> int:
    if arguments == ["probe"]:
        probe()
        return 0
    parent, status, plan = map(int, arguments[:3])
    program, *rest = map(os.fsencode, arguments[3:])
    try:
        become(parent, plan, program, rest)
    except Refused as error:
        words = str(error)
    except OSError as error:
        words = f"The jail's folders cannot be staged: {error.strerror}."
    os.write(status, f"!{' '.join(words.split())}\n".encode(errors="replace"))
    return 1
