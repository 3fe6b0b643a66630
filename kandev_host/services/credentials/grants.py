"""One repository, and what may be done with it through the host. Nothing here touches disk or network."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

import msgspec

from kandev_host.errors import ValidationFailed
from kandev_host.protocol.actions.credentials import CredentialVerb
from kandev_host.services.repositories import FIELD, parse_repository

SERVICES: dict[str, CredentialVerb] = {"git-upload-pack": "fetch", "git-receive-pack": "push"}
HTTPS_PORT, SSH_PORT = 443, 22
GIT_USER = "git"


class Grant(msgspec.Struct, frozen=True):
    """`name` is that of the settings. `host` is as URLs have it, `path` as the server is asked for it.

    `user` is None for https; `port` is None for the usual one.
    """

    name: str
    scheme: Literal["https", "ssh"]
    host: str
    port: int | None
    user: str | None
    path: str
    push: bool

    @property
    def url(self) -> str:
        """For people, and for `git credential`."""
        user = "" if self.user is None else f"{self.user}@"
        return f"{self.scheme}://{user}{self.authority}/{self.path.lstrip('/')}"

    @property
    def authority(self) -> str:
        return self.host if self.port is None else f"{self.host}:{self.port}"

    def allows(self, verb: CredentialVerb) -> bool:
        return verb == "fetch" or self.push

    def spellings(self) -> tuple[str, ...]:
        """The URLs that git in the jail may have for it, without .git; an https URL also for what ssh serves, since a
        workspace is cloned over https."""
        path = self.path.strip("/").removesuffix(".git")
        found = [f"https://{self.host if self.scheme == 'ssh' else self.authority}/{path}"]
        user = self.user or GIT_USER
        if self.scheme == "ssh":
            found.append(f"ssh://{user}@{self.authority}/{path}")
        if self.port is None:
            found += [f"ssh://{user}@{self.host}/{path}", f"{user}@{self.host}:{path}"]
            found += [f"{user}@{self.host}:/{path}"] if self.path.startswith("/") and self.scheme == "ssh" else []
        return tuple(dict.fromkeys(found))


def takes_login(location: str) -> bool:
    """Is it a URL, as `parse_repository` has it, at which a log-in is not shown to the network?"""
    return "://" not in location or urlsplit(location).scheme.lower() in {"https", "ssh"}


def grant_of(name: str, repository: str, *, push: bool, field: str = FIELD) -> Grant:
    """Raises `ValidationFailed` for a repository that no log-in is sent to."""
    found = parse_repository(repository, field)
    if found.kind == "local":
        raise ValidationFailed(
            field,
            f"The credential {name!r} is for a repository behind a URL, and this is a folder: name a repository in "
            f"[credentials.{name}], or the URL as the task's",
        )
    if "://" not in found.location:  # user@host:path
        user_host, _, path = found.location.partition(":")
        user, _, host = user_host.rpartition("@")
        return Grant(name, "ssh", host.lower(), None, user or GIT_USER, path, push)
    parts = urlsplit(found.location)
    if parts.scheme.lower() not in {"https", "ssh"}:
        raise ValidationFailed(field, f"{parts.scheme}:// would show a log-in to the network: give the https:// URL")
    if parts.query or parts.fragment:
        raise ValidationFailed(field, "The URL of a repository has no ? and no #")
    host = parts.hostname or ""
    shown = f"[{host}]" if ":" in host else host
    if parts.scheme.lower() == "https":
        port = None if parts.port in (None, HTTPS_PORT) else parts.port
        return Grant(name, "https", shown, port, None, parts.path.rstrip("/"), push)
    port = None if parts.port in (None, SSH_PORT) else parts.port
    path = parts.path[1:] if parts.path.startswith("/~") else parts.path
    return Grant(name, "ssh", shown, port, parts.username or GIT_USER, path.rstrip("/"), push)
