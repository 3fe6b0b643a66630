"""Where this process stands in the kernel's cgroup hierarchies (cgroups(7)), version 1 and 2, as folders."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

CONTROLLERS = ("memory", "pids", "cpu")
_OCTAL = re.compile(r"\\([0-7]{3})")
PROC = Path("/proc/self")


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted tree of cgroups that has some of our controllers; `own` is this process's folder in it."""

    version: Literal[1, 2]
    controllers: frozenset[str]
    own: Path
    mount: Path


@dataclass(frozen=True, slots=True)
class _Mount:
    root: PurePosixPath
    point: Path
    kind: str
    options: frozenset[str]


def read(proc: Path = PROC, mounted: Path | None = None) -> list[Hierarchy]:
    """Those that this process can see itself in. `proc` is a folder with its `cgroup` and `mountinfo`.

    `mounted` is the `proc` of the process by whose mounts they are found, if it is another one.
    """
    try:
        mounts = _mounts(((mounted or proc) / "mountinfo").read_text())
        lines = (proc / "cgroup").read_text().splitlines()
    except OSError:
        return []  # a kernel without cgroups
    found = []
    for line in lines:
        number, names, path = line.split(":", 2)
        hierarchy = _second(path, mounts) if number == "0" else _first(names.split(","), path, mounts)
        if hierarchy is not None and hierarchy.controllers:
            found.append(hierarchy)
    return found


def _first(names: list[str], path: str, mounts: list[_Mount]) -> Hierarchy | None:
    ours = frozenset(names) & frozenset(CONTROLLERS)
    for mount in mounts:
        if ours and mount.kind == "cgroup" and mount.options.issuperset(names):
            own = _below(path, mount)
            if own is not None:
                return Hierarchy(1, ours, own, mount.point)
    return None


def _second(path: str, mounts: list[_Mount]) -> Hierarchy | None:
    for mount in mounts:
        own = _below(path, mount) if mount.kind == "cgroup2" else None
        if own is not None:
            return Hierarchy(2, controllers(own), own, mount.point)
    return None


def controllers(group: Path) -> frozenset[str]:
    """Version 2: those of ours that this group may hand on to groups below it."""
    try:
        return frozenset((group / "cgroup.controllers").read_text().split()) & frozenset(CONTROLLERS)
    except OSError:
        return frozenset()


def _below(path: str, mount: _Mount) -> Path | None:
    """The folder of this group; None where the mount shows another part of the tree."""
    try:
        folder = mount.point / PurePosixPath(path).relative_to(mount.root)
    except ValueError:
        return None
    return folder if ".." not in folder.parts and folder.is_dir() else None


def _mounts(text: str) -> list[_Mount]:
    """The cgroup file systems of proc_pid_mountinfo(5)."""
    found = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if kind[:1] in (["cgroup"], ["cgroup2"]):
            root, point = (_OCTAL.sub(lambda match: chr(int(match[1], 8)), field) for field in fields[3:5])
            found.append(_Mount(PurePosixPath(root), Path(point), kind[0], frozenset(kind[2].split(","))))
    return found
