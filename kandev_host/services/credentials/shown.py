"""The credentials of an agent type, for people who look before they launch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from kandev_host.interfaces import AgentType
from kandev_host.protocol.actions.credentials import CredentialInfo, CredentialVerb, CredentialWay
from kandev_host.settings import CredentialSettings

OWN = "agent type"
UNSET = "not set for the host"
ABSENT = "not there"


def shown(agent_type: AgentType, settings: Mapping[str, CredentialSettings]) -> list[CredentialInfo]:
    """What agents of this type always have, and why it could not be had now."""
    return [*own(agent_type), *(each for name in agent_type.credentials for each in _named(name, settings.get(name)))]


def _named(name: str, settings: CredentialSettings | None) -> Iterator[CredentialInfo]:
    if settings is None:  # a plugin names it
        yield _info(name, "git", None, "not in the settings")
        return
    if settings.git is not None:
        yield _info(name, "git", settings.repository, verb=settings.git)
    for variable in settings.variables or ():
        yield _info(name, "variable", variable, None if os.environ.get(variable) else UNSET)
    for path in settings.files or ():
        yield _info(name, "file", path, None if Path(path).expanduser().is_file() else ABSENT)


def own(agent_type: AgentType) -> Iterator[CredentialInfo]:
    """What it takes by itself, as its plugin or its table in the settings says; what is optional, if it is there."""
    for variable in agent_type.env_required:
        yield _info(OWN, "variable", variable, None if os.environ.get(variable) else UNSET)
    for variable in agent_type.env_optional:
        if os.environ.get(variable):
            yield _info(OWN, "variable", variable)
    for path in agent_type.share_login:
        there = (Path.home() / path.removeprefix("~/")).exists()
        yield _info(OWN, "file", f"~/{path.removeprefix('~/')}", None if there else ABSENT)


def _info(
    name: str, way: CredentialWay, what: str | None, missing: str | None = None, *, verb: CredentialVerb | None = None
) -> CredentialInfo:
    return CredentialInfo(name=name, way=way, what=what, verb=verb, missing=missing)
