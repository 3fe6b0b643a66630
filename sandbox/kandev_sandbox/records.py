"""Marks and records by which a jail is found again after its host died, and the sweep that ends it.

Every bwrap carries `KANDEV_JAIL=<owner>/<host pid>-<host start>/<jail id>` in its environment (the command in the
jail does not see it). With a records folder, the pids of the jail are also written down with their start times
before the command may run, since a hostile command could overwrite what /proc/1/environ shows.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kandev_sandbox.processes import Identity, identify, signal_process

VARIABLE = "KANDEV_JAIL"
_SWEEP_S = 3.0
_MARK = re.compile(rb"([0-9]{1,10})-([0-9]{1,20})/([0-9a-f]{1,64})")


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose jails: a name (such as a host's data folder, hashed) and the process that must live for them to live."""

    name: str
    host: Identity

    @classmethod
    def here(cls, name: str) -> Owner:
        """This process. The name must not hold a slash."""
        host = identify(os.getpid())
        if host is None or "/" in name:
            raise ValueError(f"no owner {name!r}")
        return cls(name, host)

    def mark(self, jail_id: str) -> str:
        return f"{self.name}/{self.host.pid}-{self.host.started}/{jail_id}"


@dataclass(frozen=True, slots=True)
class Jailed:
    """A jail of an owner that is there now: the processes whose death is its end, and whether its host still lives."""

    id: str
    host_alive: bool
    processes: tuple[Identity, ...]
    labels: Mapping[str, str] = field(default_factory=dict)


def new_id() -> str:
    """A name for a jail, unguessable and fit for a file name."""
    return secrets.token_hex(8)


def write(
    folder: Path,
    owner: Owner,
    jail_id: str,
    processes: tuple[Identity, ...],
    labels: Mapping[str, str],
    groups: tuple[Path, ...] = (),
) -> Path:
    """Record a jail, with its cgroups, before its command runs. Returns the file to unlink at its end.

    Raises `OSError`, as on a full disk; nothing is left then.
    """
    path = folder / f"{jail_id}.json"
    draft = folder / f".{jail_id}"
    content = {
        "owner": owner.name,
        "host": [owner.host.pid, owner.host.started],
        "processes": [[who.pid, who.started] for who in processes],
        "labels": dict(labels),
        "groups": [str(group) for group in groups],
    }
    try:
        draft.write_text(json.dumps(content))
        draft.rename(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    return path


def jails(owner_name: str, folder: Path | None = None) -> list[Jailed]:
    """Every jail of this owner that still runs, of this host process and of dead ones. Blocks (walks /proc)."""
    found = _marked(owner_name)
    for jail in _recorded(owner_name, folder) if folder is not None else ():
        other = found.get(jail.id)
        processes = jail.processes + tuple(
            who for who in (other.processes if other else ()) if who not in jail.processes
        )
        found[jail.id] = Jailed(jail.id, jail.host_alive, processes, jail.labels)
    return list(found.values())


def leftovers(owner_name: str, folder: Path | None = None) -> list[Jailed]:
    """The jails of this owner whose host died. Blocks."""
    return [jail for jail in jails(owner_name, folder) if not jail.host_alive]


def end(jail: Jailed, timeout_s: float = _SWEEP_S) -> bool:
    """SIGKILL to the jail's processes, then wait until they are gone; True if there were any. Blocks."""
    signalled = [who for who in jail.processes if signal_process(who, signal.SIGKILL)]
    deadline = time.monotonic() + timeout_s
    while any(who.alive() for who in signalled) and time.monotonic() < deadline:
        time.sleep(0.005)
    return bool(signalled)


def sweep(owner_name: str, folder: Path | None = None) -> int:
    """End every leftover and forget its record. Returns how many jails were ended. Blocks."""
    ended = sum(end(jail) for jail in leftovers(owner_name, folder))
    for path in folder.glob("*.json") if folder is not None else ():
        record = _read(path)
        if record is not None and not any(who.alive() for who in (_host(record), *_processes(record))):
            path.unlink(missing_ok=True)
    return ended


def groups(owner_name: str, folder: Path) -> list[Path]:
    """The cgroups of every recorded jail of this owner."""
    found = [record for record in map(_read, folder.glob("*.json")) if record is not None]
    return [Path(group) for record in found if record["owner"] == owner_name for group in record.get("groups", ())]


def _recorded(owner_name: str, folder: Path) -> list[Jailed]:
    result = []
    for path in folder.glob("*.json"):
        record = _read(path)
        if record is None or record["owner"] != owner_name:
            continue
        alive = tuple(who for who in _processes(record) if who.alive())
        if alive:
            result.append(Jailed(path.stem, _host(record).alive(), alive, record["labels"]))
    return result


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text())  # type: ignore[no-any-return]
    except (FileNotFoundError, json.JSONDecodeError):
        return None  # removed by its host meanwhile, or cut off by a full disk: the marks remain


def _host(record: dict[str, Any]) -> Identity:
    pid, started = record["host"]
    return Identity(pid, started)


def _processes(record: dict[str, Any]) -> list[Identity]:
    return [Identity(pid, started) for pid, started in record["processes"]]


def _marked(owner_name: str) -> dict[str, Jailed]:
    prefix = f"{VARIABLE}={owner_name}/".encode()
    found: dict[str, Jailed] = {}
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            environ = Path(f"/proc/{entry.name}/environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        mark = next((item for item in environ.split(b"\0") if item.startswith(prefix)), None)
        who = identify(int(entry.name))
        if mark is None or who is None or not who.alive():
            continue
        read = _MARK.fullmatch(mark, len(prefix))
        if read is None:
            continue  # a program inside a jail may set the variable to anything
        pid, started, jail_id = int(read[1]), int(read[2]), read[3].decode()
        known = found.get(jail_id)
        alive = Identity(pid, started).alive()
        found[jail_id] = Jailed(jail_id, alive, (*(known.processes if known else ()), who))
    return found
