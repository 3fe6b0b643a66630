"""What is told of the credentials that agents are given: never a value."""

from __future__ import annotations

from typing import Literal

from kandev_host.protocol.actions.fields import Response

CredentialWay = Literal["git", "variable", "file"]
CredentialVerb = Literal["fetch", "push"]


class CredentialInfo(Response, frozen=True, kw_only=True):
    """A credential that agents of a type always have.

    `name` is the table of the settings, or `agent type` for what its plugin or its own table names; `what` a
    repository (null: that of the task), a variable or a file. `missing` says why it cannot be had now.
    """

    name: str
    way: CredentialWay
    what: str | None
    verb: CredentialVerb | None
    missing: str | None
