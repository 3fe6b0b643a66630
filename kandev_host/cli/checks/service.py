"""The unit of systemd, where there is one: is it what this version would write, and does it leave time to stop?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from kandev_host.cli.checks import Check, Look
from kandev_host.cli.units import Scope, installed

if TYPE_CHECKING:
    from kandev_host.settings.load import Loaded

SCOPES: tuple[Scope, ...] = ("user", "system")
_STOP = re.compile(r"^TimeoutStopSec=(\d+)s?$", re.MULTILINE)


def looks(loaded: Loaded, root: Path = Path("/")) -> dict[str, Look]:
    return {"service": lambda: service(loaded, root)}


def service(loaded: Loaded, root: Path) -> Iterator[Check]:
    for scope in SCOPES:
        found = installed(scope, root)
        if found is None:
            continue
        edit = "systemctl --user edit kandev-host" if scope == "user" else "systemctl edit kandev-host"
        name, again = f"service ({scope})", f"kandev-host service install --{scope}"
        stop = _STOP.search(found.path.read_text())
        wanted_s = loaded.settings.server.stop_timeout_s
        if stop is not None and int(stop[1]) <= wanted_s:
            yield Check(
                name,
                "warning",
                f"{found.path}: TimeoutStopSec={stop[1]} is not more than server.stop_timeout_s = {wanted_s:g}",
                f"{edit}, with [Service] TimeoutStopSec={wanted_s + 20:g}",
                "systemd would kill the host before it has ended its agents",
            )
        elif (state := found.written()) == "current":
            yield Check(name, "ok", str(found.path))
        elif state == "outdated":
            why = "the new one tells systemd more: when the host is ready, reloads, hangs"
            yield Check(name, "warning", f"{found.path} is of another version of kandev-host", again, why)
        else:
            fix = f"put your changes into a drop-in ({edit}), then {again} --force"
            why = "it is kept as it is, so it gets nothing that newer versions need"
            yield Check(name, "warning", f"{found.path} was changed by hand", fix, why)
