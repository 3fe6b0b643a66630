"""`repository_url`: what is accepted, and what it stands for. Nothing here touches disk or network.

Sources of the rules: GitPython CVE-2022-24439 and -2026-42284 (argument injection through URLs and options), and
git's own remote helpers (`ext::` runs any command).
"""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec

from kandev_host.errors import ValidationFailed

FIELD = "repository_url"
PORTS = {"http": 80, "https": 443, "ssh": 22, "git": 9418}
LOOPBACK = frozenset({"127.0.0.1", "localhost"})

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HELPER = re.compile(r"^[A-Za-z0-9+.\-]+::")
_SCP = re.compile(r"^(?:(?P<user>[A-Za-z0-9_][\w.\-]*)@)?(?P<host>[A-Za-z0-9][A-Za-z0-9.\-]*):(?P<path>[^/\-].*|/.+)$")
_BAD_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(/|$)")


class Repository(msgspec.Struct, frozen=True):
    """A local folder, or a URL that git fetches from; `loopback_port` is set for services of this host."""

    kind: Literal["local", "remote"]
    location: str
    loopback_port: int | None = None


def parse_repository(url: str, field: str = FIELD) -> Repository:
    """What `url` stands for. Raises `ValidationFailed`, never quoting a URL that may hold a secret."""
    if _CONTROL.search(url):
        raise ValidationFailed(field, "A repository must not contain control characters or line breaks")
    if url.startswith("-"):
        raise ValidationFailed(field, "A repository must not begin with '-'")
    if _HELPER.match(url):
        raise ValidationFailed(field, "Remote helpers (such as ext::) are not allowed")
    if "://" in url:
        return _from_url(url, field)
    if url.startswith("/"):
        return Repository("local", url)
    if url == "~" or url.startswith("~/"):
        return Repository("local", url)
    scp = _SCP.match(url)
    if scp is not None and scp["host"].lower() not in {*PORTS, "file"} and (scp["user"] or "@" not in scp["path"]):
        _check_path(scp["path"], field)
        return Repository("remote", url)
    raise ValidationFailed(
        field, "Give an absolute path, or a git URL: https://, http://, ssh://, git://, file:// or user@host:path"
    )


def _from_url(url: str, field: str) -> Repository:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValidationFailed(field, "This is not a valid URL") from None
    scheme = parts.scheme.lower()
    if scheme == "file":
        return _from_file_url(parts, field)
    if scheme not in PORTS:
        raise ValidationFailed(field, f"The scheme {scheme!r} is not one of https, http, ssh, git, file")
    host = parts.hostname
    if not host or host.startswith("-") or len(parts.path) < 2:
        raise ValidationFailed(field, "The URL must name a host and a path")
    if parts.password is not None or (parts.username is not None and scheme != "ssh"):
        raise ValidationFailed(field, "The URL must not hold credentials; they would be stored with the task")
    if parts.username is not None and parts.username.startswith("-"):
        raise ValidationFailed(field, "The user of the URL must not begin with '-'")
    _check_path(parts.path, field)
    return Repository("remote", url, (port or PORTS[scheme]) if host in LOOPBACK else None)


def _check_path(path: str, field: str) -> None:
    """No `..`, however it is written: curl resolves it, and so fetches another repository than `match` was asked for.

    Raises `ValidationFailed`.
    """
    if {".", ".."} & set(unquote(path).replace("\\", "/").split("/")):
        raise ValidationFailed(field, "The path of a URL must not hold . or .. as a folder")


def _from_file_url(parts: SplitResult, field: str) -> Repository:
    path = unquote(parts.path)
    if parts.netloc not in {"", "localhost"} or not path.startswith("/") or _CONTROL.search(path):
        raise ValidationFailed(field, "A file URL must be file:///absolute/path")
    return Repository("local", path)


def check_branch(branch: str, field: str = "branch") -> None:
    """Raise `ValidationFailed` unless git could have a branch of this name (git-check-ref-format)."""
    bad_end = branch.endswith(("/", ".", ".lock"))
    if branch.startswith(("-", "/", ".")) or bad_end or branch == "@" or _BAD_REF.search(branch):
        raise ValidationFailed(field, "This cannot be the name of a git branch")
