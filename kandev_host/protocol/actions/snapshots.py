"""workspace.snapshot, .snapshots, .restore, .commits"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from kandev_host.models import SkippedPath, Snapshot
from kandev_host.protocol.actions.fields import Branch, Id, PageRequest, Request, Response

Label = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"\S")]


class WorkspaceSnapshot(Request, frozen=True, kw_only=True):
    task_id: Id
    label: Label | None = None


class WorkspaceSnapshots(PageRequest, frozen=True, kw_only=True):
    task_id: Id


class WorkspaceRestore(Request, frozen=True, kw_only=True):
    """With `force` also while agents or shells work there, and where not all files of now can be kept for an undo."""

    task_id: Id
    snapshot_id: Id
    force: bool = False


class WorkspaceCommits(Request, frozen=True, kw_only=True):
    """`push_to` brings the commits into the task's local repository, as a new branch of that name.

    One that is there is moved only forward and with `force`. Commits that touch what configures git, agents, editors
    or CI come only with `approve_protected`.
    """

    task_id: Id
    push_to: Branch | None = None
    approve_protected: bool = False
    force: bool = False


class SnapshotReply(Response, frozen=True, kw_only=True):
    snapshot: Snapshot


class SnapshotsReply(Response, frozen=True, kw_only=True):
    """Newest first."""

    snapshots: list[Snapshot]
    next_cursor: str | None = None


class RestoreReply(Response, frozen=True, kw_only=True):
    """Restoring `before` undoes it. `exact`: the workspace holds what the snapshot does, no more and no less.

    `skipped` names the first of the `skipped_files` that were left as they are, and why.
    """

    before: Snapshot
    after: Snapshot
    written: int
    deleted: int
    skipped: list[SkippedPath]
    skipped_files: int
    exact: bool


class CommitInfo(Response, frozen=True, kw_only=True):
    """A commit as the workspace's repository tells it: who made it is what the agent wrote there."""

    commit: str
    parents: list[str]
    author_name: str
    author_email: str
    authored_at: datetime | None
    message: str


class Pushed(Response, frozen=True, kw_only=True):
    """What came into the git folder `repository`. The branch was at `previous`; `protected` is what was approved."""

    branch: str
    commit: str
    repository: str
    previous: str | None
    commits: int
    protected: list[str]


class CommitsReply(Response, frozen=True, kw_only=True):
    """Newest first. `truncated`: there are more commits, or longer messages. Files not committed are not among them."""

    task_id: str
    branch: str | None
    base_commit: str
    head: str | None
    commits: list[CommitInfo]
    truncated: bool
    pushed: Pushed | None = None
