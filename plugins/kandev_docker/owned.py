"""Finding our containers again, and nothing else: by the labels that each of them has."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal

import msgspec

from kandev_docker.engine import Engine, Missing
from kandev_host import ProcessSpec
from kandev_sandbox import Owner
from kandev_sandbox.processes import Identity

Network = Literal["none", "allowlist", "host"]
OWNER, REF, HOST_PID, HOST_STARTED = "kandev.owner", "kandev.ref", "kandev.host_pid", "kandev.host_started"
WORKSPACE, ADOPTABLE, LABEL = "kandev.workspace", "kandev.adoptable", "kandev.label."
NETWORK, ALLOW = "kandev.network", "kandev.allow"
# The purpose of those that stay beside a workspace, for one command after the other.
SIDECAR = "sidecar"
OURS = (OWNER, REF, HOST_PID, HOST_STARTED, WORKSPACE, ADOPTABLE, LABEL, NETWORK, ALLOW)


class Found(msgspec.Struct, frozen=True):
    """A container of this owner, whoever started it; `host_alive` says whether that one still lives."""

    id: str
    ref: str
    running: bool
    host: Identity
    workspace_id: str
    adoptable: bool
    network: Network
    allow: tuple[str, ...]
    labels: Mapping[str, str]

    @property
    def of_this_process(self) -> bool:
        return self.host.pid == os.getpid() and self.host.alive()

    @property
    def sidecar(self) -> bool:
        return self.labels.get("purpose") == SIDECAR

    @property
    def host_alive(self) -> bool:
        return self.host.alive()


def name_of(owner: Owner, id: str) -> str:
    return f"kandev-{owner.name[:8]}-{id}"


def marker_of(name: str) -> str:
    """The first line that a container writes."""
    return f"kandev: {name}"


def labels_of(owner: Owner, name: str, spec: ProcessSpec, *, adoptable: bool) -> dict[str, str]:
    return {
        **{LABEL + key: value for key, value in spec.labels.items()},
        OWNER: owner.name,
        REF: name,
        HOST_PID: str(owner.host.pid),
        HOST_STARTED: str(owner.host.started),
        WORKSPACE: spec.workspace_id,
        ADOPTABLE: "yes" if adoptable else "no",
        NETWORK: spec.network,
        ALLOW: " ".join(entry for entry in spec.allow if entry not in spec.passing),
    }


async def find(engine: Engine, owner: Owner) -> list[Found]:
    """Every container with this owner's label, also ended ones. Raises as `Engine.call`."""
    filters = {"label": [f"{OWNER}={owner.name}"]}
    rows = await engine.call(lambda client: client.containers(all=True, filters=filters))
    return [_found(row) for row in rows]


async def remove(engine: Engine, name: str) -> None:
    """Kill it and delete it, with what is left of it; nothing if there is none. Raises as `Engine.call`."""
    with suppress(Missing):
        await engine.call(lambda client: client.remove_container(name, force=True, v=True), what="remove", sure=True)


def _found(row: Mapping[str, Any]) -> Found:
    labels: Mapping[str, str] = row.get("Labels") or {}
    return Found(
        id=str(row["Id"]),
        ref=labels.get(REF, ""),
        running=row.get("State") in ("running", "paused", "restarting", "created"),
        host=Identity(_number(labels.get(HOST_PID)), _number(labels.get(HOST_STARTED))),
        workspace_id=labels.get(WORKSPACE, ""),
        adoptable=labels.get(ADOPTABLE) == "yes",
        network=_network(labels.get(NETWORK)),
        allow=tuple(labels.get(ALLOW, "").split()),
        labels={key.removeprefix(LABEL): value for key, value in labels.items() if key.startswith(LABEL)},
    )


def _network(text: str | None) -> Network:
    return "allowlist" if text == "allowlist" else "host" if text == "host" else "none"


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isascii() and text.isdigit() else -1
