"""Finding where the cgroups of jails may be made, making them there, and sweeping what dead hosts left.

Below the group of this process: `kandev/<owner>/<host pid>-<host start>.<jail id>`. So a jail is bounded by whatever
bounds its host, and nothing outside of the host's own (or delegated) part of the tree is touched. Version 2 wants no
process in a group that has groups with controllers below: there the host moves itself one group down, into
`kandev-host`, if it is alone in its group (a unit or scope with Delegate=yes) or the tree is nobody else's.
"""

from __future__ import annotations

import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path

from kandev_sandbox import groups, hierarchies
from kandev_sandbox.groups import Group, Part
from kandev_sandbox.hierarchies import CONTROLLERS, Hierarchy
from kandev_sandbox.limits import counts_per_namespace
from kandev_sandbox.policy import Limits
from kandev_sandbox.processes import Identity, tree
from kandev_sandbox.records import Owner

TOP = "kandev"
LEAF = "kandev-host"
_SYSTEMD = Path("/run/systemd/system")
_NAME = re.compile(r"([0-9]{1,10})-([0-9]{1,20})\.[0-9a-f]{1,64}")
_ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class Base:
    """A folder in which groups may be made, and what they can limit."""

    hierarchy: Hierarchy
    folder: Path
    controllers: frozenset[str]


@dataclass(frozen=True, slots=True)
class Cgroups:
    """What this process can use. `reason` and `fix` say why a controller is missing; None when none is."""

    bases: tuple[Base, ...]
    reason: str | None = None
    fix: str | None = None

    @property
    def controllers(self) -> frozenset[str]:
        return frozenset(name for base in self.bases for name in base.controllers)

    @property
    def full(self) -> bool:
        return self.controllers.issuperset(CONTROLLERS)

    @property
    def shortfall(self) -> str | None:
        """What does not hold a jail's tree, and why; None when everything does."""
        if self.full:
            return None
        ways = {
            "memory": "a watchdog ends jails that use too much memory",
            "pids": "processes are counted per user namespace"
            if counts_per_namespace()
            else "nothing bounds processes",
            "cpu": "nothing bounds the CPUs of a jail",
        }
        told = [text for name, text in ways.items() if name not in self.controllers]
        return f"{self.reason or 'Some cgroup controllers are missing.'} So {', '.join(told)}."

    def make(self, owner: Owner, jail_id: str, limits: Limits) -> Group:
        """The groups of a jail with its limits set; no process is in them. Blocks. Raises `OSError`."""
        wanted = controllers_for(limits)
        made: list[Part] = []
        for base in self.bases:
            used = base.controllers & wanted
            if not used:
                continue
            part = Part(base.hierarchy.version, folder_of(base, owner.name) / name_of(owner, jail_id), used)
            made.append(part)
            try:
                _make(base, part, limits)
            except OSError:
                self.remove(Group(tuple(made)))
                raise
        return Group(tuple(made))

    def remove(self, group: Group) -> bool:
        """Delete a jail's groups, and the folders above that are empty now."""
        removed = group.remove()
        for part in group.parts:
            _tidy(part.folder.parent)
        return removed

    def prefixes(self, owner: Owner) -> tuple[str, ...]:
        """How the path of every group begins that this host process makes for this owner."""
        return tuple(str(folder_of(base, owner.name) / name_of(owner, "")) for base in self.bases)

    def sweep(self, owner_name: str) -> int:
        """End what is in groups of hosts that died, and delete them. Blocks. Returns how many were there."""
        return sum(sweep(folder_of(base, owner_name)) for base in self.bases)


NONE = Cgroups((), "No cgroup is used.", None)


def controllers_for(limits: Limits) -> frozenset[str]:
    """The controllers that these limits need."""
    wanted = {"memory": limits.memory_bytes, "pids": limits.tree_processes, "cpu": limits.cpus}
    return frozenset(name for name, value in wanted.items() if value is not None)


def folder_of(base: Base, owner_name: str) -> Path:
    return base.folder / owner_name


def name_of(owner: Owner, jail_id: str) -> str:
    return f"{owner.host.pid}-{owner.host.started}.{jail_id}"


def sweep(folder: Path) -> int:
    """End the groups in this owner's folder whose host process is gone."""
    try:
        names = [entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return 0
    swept = sum(end_leftover(folder / name) for name in names)
    _tidy(folder)
    return swept


def end_leftover(group: Path) -> bool:
    """End one group by its path, if it is named as a jail's and its host is gone."""
    named = _NAME.fullmatch(group.name)
    if named is None or Identity(int(named[1]), int(named[2])).alive() or not group.is_dir():
        return False
    groups.end(group)
    _tidy(group.parent)
    return True


def _make(base: Base, part: Part, limits: Limits) -> None:
    """With the folders above it; another jail's end may delete those at any moment, as long as they are empty."""
    for attempt in range(_ATTEMPTS):
        try:
            part.folder.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            if part.version == 2:
                for above in (base.folder, part.folder.parent):
                    _enable(above, base.controllers)
            part.make(limits)
        except (FileNotFoundError, FileExistsError):  # pathlib: it was there, and is not now
            groups.remove(part.folder)
            if attempt == _ATTEMPTS - 1:
                raise
        else:
            return


def _tidy(folder: Path) -> None:
    """Delete the owner's folder, and the one of all owners, where they are empty."""
    for empty in (folder, folder.parent):
        try:
            empty.rmdir()
        except OSError:
            return


def _enable(group: Path, controllers: frozenset[str]) -> None:
    groups.write(group / "cgroup.subtree_control", " ".join(f"+{name}" for name in sorted(controllers)))


_found: dict[int, Cgroups] = {}
_finding = threading.Lock()


def here() -> Cgroups:
    """What this process can use, found and tried once. Blocks for some milliseconds."""
    with _finding:
        found = _found.get(os.getpid())
        if found is None:
            found = _found[os.getpid()] = find(hierarchies.read())
        return found


def again() -> Cgroups:
    """As `here`, found anew: somebody moved this process, or deleted its group."""
    with _finding:
        _found.pop(os.getpid(), None)
    return here()


def find(seen: list[Hierarchy]) -> Cgroups:
    """Try each hierarchy; what cannot be used is told with the first reason."""
    bases: list[Base] = []
    problems: list[tuple[str, str | None]] = []
    for hierarchy in seen:
        try:
            base = _second(hierarchy) if hierarchy.version == 2 else _first(hierarchy)
            _try(base)
        except _Unusable as error:
            problems.append(error.args)
        except OSError as error:
            problems.append((f"The cgroup {hierarchy.own} cannot be used: {error.strerror}.", _fix(hierarchy)))
        else:
            bases.append(base)
    missing = sorted(set(CONTROLLERS) - {name for base in bases for name in base.controllers})
    if not missing:
        return Cgroups(tuple(bases))
    absent = f"The cgroup controllers {', '.join(missing)} are not there."
    reason, fix = problems[0] if problems else (absent, "boot a kernel with cgroups, and mount them at /sys/fs/cgroup")
    return Cgroups(tuple(bases), reason, fix)


class _Unusable(Exception):
    """(reason, fix)"""


def _first(hierarchy: Hierarchy) -> Base:
    """Version 1: below the own group, or in the folder that root gave to this user there."""
    given = hierarchy.own / f"{TOP}-{os.geteuid()}"
    if given.is_dir() and os.access(given, os.W_OK):
        return Base(hierarchy, given, hierarchy.controllers)
    if not os.access(hierarchy.own, os.W_OK):
        raise _Unusable(*_denied(hierarchy))
    return Base(hierarchy, hierarchy.own / TOP, hierarchy.controllers)


def _second(hierarchy: Hierarchy) -> Base:
    own = hierarchy.own
    parent = own.parent if own.name == LEAF or _is_delegated(own.parent) else own
    if not os.access(parent, os.W_OK):
        raise _Unusable(*_denied(hierarchy))
    if parent == own and (own / "cgroup.type").exists():  # the root of all groups has no such file, and needs no move
        _move_down(own, hierarchy)
    available = hierarchies.controllers(parent)
    _enable(parent, available)
    return Base(hierarchy, parent / TOP, available)


def _is_delegated(group: Path) -> bool:
    """systemd marks what it hands over (systemd.resource-control(5), Delegate=)."""
    for name in ("user.delegate", "trusted.delegate"):
        try:
            if os.getxattr(group, name) == b"1":
                return True
        except OSError:
            continue
    return False


def _move_down(own: Path, hierarchy: Hierarchy) -> None:
    """Put this process, and what it started, one group down. Raises `_Unusable` where the group is not its own."""
    if os.geteuid() == 0 and _SYSTEMD.exists() and not _is_delegated(own):
        raise _Unusable(f"systemd has not delegated the cgroup {own} to this process.", _fix(hierarchy))
    mine = set(tree(os.getpid()))
    if not mine.issuperset(_in(own)):
        raise _Unusable(f"Other processes share the cgroup {own} with this one.", _fix(hierarchy))
    leaf = own / LEAF
    leaf.mkdir(mode=0o755, exist_ok=True)
    for _ in range(_ATTEMPTS):
        for pid in _in(own):
            groups.write(leaf / "cgroup.procs", str(pid))


def _in(group: Path) -> list[int]:
    return [int(pid) for pid in (group / "cgroup.procs").read_text().split()]


def _try(base: Base) -> None:
    """Make a group with every limit, and delete it: what the kernel refuses shows here."""
    limits = Limits(memory_bytes=64 << 20, tree_processes=64, cpus=0.5)
    owner = Owner.here("trial")
    sweep(folder_of(base, owner.name))  # of those who were killed in the middle of theirs
    trial = Part(base.hierarchy.version, folder_of(base, owner.name) / name_of(owner, "0"), base.controllers)
    try:
        _make(base, trial, limits)
    finally:
        groups.remove(trial.folder)
        _tidy(trial.folder.parent)


def _denied(hierarchy: Hierarchy) -> tuple[str, str]:
    if os.statvfs(hierarchy.own).f_flag & os.ST_RDONLY:
        return (
            f"The cgroup file system {hierarchy.mount} is read-only, as in most containers.",
            "run outside of the container, or mount /sys/fs/cgroup writable in it",
        )
    return f"The cgroup {hierarchy.own} belongs to another user.", _fix(hierarchy)


def _fix(hierarchy: Hierarchy) -> str:
    if hierarchy.version == 2:
        user = "" if os.geteuid() == 0 else "--user "
        return (
            f"start it with: systemd-run {user}--scope -p Delegate=yes kandev-host up (or for good, as a unit that has "
            "Delegate=: kandev-host service install)"
        )
    given = " ".join(f"{seen.own}/{TOP}-{os.geteuid()}" for seen in hierarchies.read() if seen.version == 1)
    return f"once after each boot, as root: install -d -o {os.geteuid()} {given}"
