"""Workspaces, and the folders that agents see beside them."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from kandev_host.settings.base import Bytes, Count, Seconds, Table


class WorkspaceSettings(Table, frozen=True, kw_only=True):
    """Bounds of the git work of a task, and how long workspaces stay."""

    LIVE: ClassVar[frozenset[str]] = frozenset({"git_timeout_s", "kept_s", "quota_bytes", "retention_interval_s"})

    git_timeout_s: Annotated[Seconds, Meta(description="Time for one git command, such as a clone.")] = 600.0
    diff_limit_bytes: Annotated[Bytes, Meta(description="Largest diff that is returned; more is cut, and said so.")] = (
        8 << 20
    )
    kept_s: Annotated[
        Seconds | None,
        Meta(description="So long after its last use the workspace of a task that is over goes; unless given, never."),
    ] = None
    quota_bytes: Annotated[
        Bytes | None,
        Meta(description="Of all workspaces: those of tasks that are over go, then there are no new ones."),
    ] = None
    retention_interval_s: Annotated[Seconds, Meta(description="Between two looks for workspaces to delete.")] = 600.0


class SnapshotSettings(Table, frozen=True, kw_only=True):
    """What workspaces held, kept out of the reach of agents, to compare and to go back to."""

    LIVE: ClassVar[frozenset[str]] = frozenset(
        {"enabled", "kept", "limit_bytes", "file_limit_bytes", "max_files", "walk_timeout_s", "push_limit_bytes"}
    )

    enabled: Annotated[
        bool, Meta(description="Is one taken before an agent begins and at the end of each of its turns?")
    ] = True
    kept: Annotated[int, Meta(ge=2, description="So many of a workspace; the first and the last always.")] = 100
    limit_bytes: Annotated[
        Bytes, Meta(description="Of a workspace, together. The oldest make room; what has none is left out, by name.")
    ] = 4 << 30
    file_limit_bytes: Annotated[Bytes, Meta(description="Larger files are left out, by name.")] = 64 << 20
    max_files: Annotated[Count, Meta(description="Of a workspace with more, those seen first, and it says so.")] = (
        200_000
    )
    walk_timeout_s: Annotated[Seconds, Meta(description="What is read by then is the snapshot, and it says so.")] = 20.0
    push_limit_bytes: Annotated[Bytes, Meta(description="Largest pack of commits that is taken home.")] = 64 << 20


class DirectorySettings(Table, frozen=True, kw_only=True):
    """A folder that agents may be shown beside their workspace, at /directories/NAME."""

    path: Annotated[str | None, Meta(description="The folder, absolute or below your home as ~/….")] = None
    read_only: Annotated[bool | None, Meta(description="May nothing in it be changed? Unless false, nothing.")] = None

    def __post_init__(self) -> None:
        """Raise `ValueError` for one without a path, or with one that depends on where the host was started."""
        if self.path is None or not self.path.startswith(("/", "~/")):
            raise ValueError("a directory needs a path that begins with / or ~/")
