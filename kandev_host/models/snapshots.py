"""What a workspace held at some moment."""

from __future__ import annotations

from typing import Literal

import msgspec

from kandev_host.models.base import Row

SnapshotKind = Literal[
    "start",  # before an agent began to work: the first is what `workspace.diff` calls base
    "turn",  # at the end of a turn
    "manual",  # somebody asked for it
    "before_restore",  # so that the restore can be undone
    "restored",  # what a restore made of it
]


class SkippedPath(msgspec.Struct, frozen=True):
    """What a snapshot does not hold, and why."""

    path: str
    reason: str


class Snapshot(Row, frozen=True, kw_only=True):
    """The files of a task's workspace; `tree` is their name in its repository of snapshots (SHA-256).

    One that could not be taken has an `error` and no tree. `cut` says what ended it early: then files may be missing
    that were there. `skipped` names the first of the `skipped_files` that it does not hold. `changed_files` counts
    against the moment before; None is unknown. `branch` and `head` are what the repository of the workspace said.
    """

    task_id: str
    kind: SnapshotKind
    label: str | None = None
    agent_id: str | None = None
    turn_id: str | None = None
    tree: str | None = None
    files: int | None = None
    bytes: int | None = None
    changed_files: int | None = None
    branch: str | None = None
    head: str | None = None
    cut: Literal["time", "files"] | None = None
    skipped: tuple[SkippedPath, ...] = ()
    skipped_files: int = 0
    error: str | None = None
    duration_ms: int | None = None
    created_by: str
