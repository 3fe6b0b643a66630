"""The unit of systemd that `kandev-host service` writes: its text, where it lies, and whether it is still ours."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from kandev_host.cli.shipped import shipped

NAME = "kandev-host.service"
Scope = Literal["user", "system"]
Written = Literal["missing", "current", "outdated", "changed"]
_MARK = "# Written by `kandev-host service install`; what you change here, it keeps. sha256:"
_EXEC = re.compile(r"^ExecStart=.*$", re.MULTILINE)
_HOME = re.compile(r"^Environment=KANDEV_HOME=.*\nStateDirectory=.*\nStateDirectoryMode=.*\n", re.MULTILINE)


class Unit(msgspec.Struct, frozen=True):
    """One to be written: the whole text, and the path of its file."""

    scope: Scope
    path: Path
    text: str

    def written(self) -> Written:
        """`outdated` is a file of ours that nobody has changed, and `changed` everything else that is different."""
        try:
            there = self.path.read_text()
        except FileNotFoundError:
            return "missing"
        if there == self.text:
            return "current"
        head, _, rest = there.partition("\n")
        return "outdated" if head == _MARK + _digest(rest) else "changed"


def unit(scope: Scope, command: Sequence[str], *, data_dir: Path | None, root: Path) -> Unit:
    """The unit that starts `command`. With `data_dir` the one of the machine has no folder below /var/lib."""
    text = shipped(f"systemd/{scope}/{NAME}").read_text()
    text = text[text.index("[Unit]") :]
    text = _EXEC.sub(lambda _: "ExecStart=" + " ".join(map(_word, command)), text)
    if data_dir is not None:
        text = _HOME.sub("", text)
    return Unit(scope, _path(scope, root), f"{_MARK}{_digest(text)}\n{text}")


def installed(scope: Scope, root: Path) -> Unit | None:
    """The unit that is there, as this version would write it for the command that it starts; None if there is none."""
    path = _path(scope, root)
    try:
        there = path.read_text()
    except FileNotFoundError:
        return None
    text = shipped(f"systemd/{scope}/{NAME}").read_text()
    text = text[text.index("[Unit]") :]
    if (command := _EXEC.search(there)) is not None:
        text = _EXEC.sub(lambda _: command[0], text)
    if not _HOME.search(there):
        text = _HOME.sub("", text)
    return Unit(scope, path, f"{_MARK}{_digest(text)}\n{text}")


def _path(scope: Scope, root: Path) -> Path:
    if scope == "system":
        return root / "etc/systemd/system" / NAME
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd/user" / NAME


def program() -> Path:
    """The command that runs now, as it was called: a link of pipx stays when what it leads to is upgraded."""
    called = Path(sys.argv[0]).absolute()
    if called.name == "kandev-host" and os.access(called, os.X_OK):
        return called
    return Path(sys.executable).parent / "kandev-host"


def open_to_others(path: Path) -> Path | None:
    """What of a program's path somebody else than root can change, so that root must not run it; None if nothing."""
    for seen in (path, path.resolve(), Path(sys.prefix), Path(sys.executable).resolve()):
        for part in (seen, *seen.parents):
            found = part.stat()
            shared = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX
            if found.st_uid != 0 or shared:
                return part
    return None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _word(word: str) -> str:
    """As systemd reads it back: systemd.service(5), "Command lines"."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return escaped if re.fullmatch(r"[\w@%+=:,./$-]+", escaped) else f'"{escaped}"'
