"""backup.*"""

from __future__ import annotations

from datetime import datetime

from kandev_host.protocol.actions.fields import Request, Response


class BackupCreate(Request, frozen=True, kw_only=True):
    """In the host's folder of backups; the answer comes when it is whole, checked and on the disk.

    With `with_secrets`, hashes of passwords, the log-in token and the key of the audit are in it.
    """

    with_secrets: bool = False


class BackupList(Request, frozen=True, kw_only=True):
    """The newest first."""


class BackupInfo(Response, frozen=True, kw_only=True):
    """One backup. What its manifest says is null in a file that is none, or not a whole one: `problem` says why.

    `head` is the last `seq` in it, `counts` are its rows by kind, `secrets` the files beside them.
    """

    name: str
    path: str
    size_bytes: int
    automatic: bool
    created_at: datetime | None = None
    version: str | None = None
    schema_version: int | None = None
    head: int | None = None
    counts: dict[str, int] | None = None
    secrets: list[str] | None = None
    problem: str | None = None


class BackupReply(Response, frozen=True, kw_only=True):
    backup: BackupInfo


class BackupsReply(Response, frozen=True, kw_only=True):
    """`problem` says why the last backup that the host should have made by itself is missing."""

    backups: list[BackupInfo]
    problem: str | None = None
