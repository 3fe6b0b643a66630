"""The folder of one shell on the host: scripts and fifos, shown read-only inside, written by the host alone."""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from pathlib import Path

from kandev_sandbox.processes import Identity, identify

_PREFIX = "kandev-shell-"
_NAME = re.compile(_PREFIX + r"([0-9]{1,10})-([0-9]{1,20})-[0-9a-f]{16}")
_MEMORY = "/dev/shm"  # noqa: S108 - a folder of its own, 0700
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def parent() -> Path:
    """Where the folders are made: in memory if there is such a place, since a fifo on a disk costs a journal entry."""
    return Path(_MEMORY if os.access(_MEMORY, os.W_OK | os.X_OK) else tempfile.gettempdir())


class Control:
    """Made by `make`; `path` is what to bind. Every method blocks for some microseconds."""

    def __init__(self, outer: Path, jail_is_other_user: bool) -> None:
        self.path = outer / "control"
        self._outer = outer
        self._shared = jail_is_other_user
        os.mkdir(outer, 0o700)
        os.mkdir(self.path)
        self._descriptor = os.open(self.path, _FOLDER)
        # Not listable, whoever the jail runs as: a command knows the names of its own files only.
        os.chmod(self.path, 0o711 if jail_is_other_user else 0o300)

    def write(self, name: str, content: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(name, flags, 0o600, dir_fd=self._descriptor)
        try:
            if self._shared:
                os.fchmod(descriptor, 0o644)
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        finally:
            os.close(descriptor)

    def fifo(self, name: str) -> None:
        os.mkfifo(name, 0o600, dir_fd=self._descriptor)
        if self._shared:
            os.chmod(name, 0o622, dir_fd=self._descriptor)  # noqa: S103 - behind a 0700 folder: for the jail alone

    def open(self, name: str, flags: int) -> int:
        """One end of a fifo, never waiting for the other."""
        return os.open(name, flags | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=self._descriptor)

    def remove(self, *names: str) -> None:
        """Those that are there."""
        for name in names:
            try:
                os.unlink(name, dir_fd=self._descriptor)
            except FileNotFoundError:
                continue

    def close(self) -> None:
        """Remove the folder and all in it."""
        os.close(self._descriptor)
        _remove(self._outer)


def make(jail_is_other_user: bool) -> Control:
    """A new folder, named after this process, so that `sweep` finds it after our death. Raises `OSError`."""
    me = identify(os.getpid())
    if me is None:
        raise OSError("/proc is not there")
    return Control(parent() / f"{_PREFIX}{me.pid}-{me.started}-{secrets.token_hex(8)}", jail_is_other_user)


def sweep() -> int:
    """Remove the folders of this user's dead processes. Returns how many. Blocks."""
    removed = 0
    with os.scandir(parent()) as entries:
        found = list(entries)
    for entry in found:
        name = _NAME.fullmatch(entry.name)
        if name is None or not entry.is_dir(follow_symlinks=False):
            continue
        try:
            if entry.stat(follow_symlinks=False).st_uid == os.geteuid() and not _alive(int(name[1]), int(name[2])):
                _remove(Path(entry.path))
                removed += 1
        except FileNotFoundError:
            continue  # somebody else sweeps as well
    return removed


def _alive(pid: int, started: int) -> bool:
    return Identity(pid, started).alive()


def _remove(outer: Path) -> None:
    """Two levels, as `Control` makes them; nobody but this user writes there."""
    os.chmod(outer / "control", 0o700)
    for name in os.listdir(outer / "control"):
        os.unlink(outer / "control" / name)
    os.rmdir(outer / "control")
    os.rmdir(outer)
