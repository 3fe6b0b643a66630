"""board.* and column.*"""

from __future__ import annotations

from msgspec import UNSET

from kandev_host.models import Board, Column
from kandev_host.protocol.actions.fields import (
    Description,
    Id,
    Name,
    PageRequest,
    Position,
    Request,
    Response,
    TaskState,
    Unset,
    Version,
    WipLimit,
)


class BoardList(PageRequest, frozen=True, kw_only=True):
    pass


class BoardCreate(Request, frozen=True, kw_only=True):
    """A new board comes with the columns To Do, In Progress, Blocked and Done.

    It is the caller's own; only who holds `boards:all` may make one for another `owner_id`.
    """

    name: Name
    description: Description | None = None
    owner_id: Id | None = None


class BoardGet(Request, frozen=True, kw_only=True):
    board_id: Id


class BoardUpdate(Request, frozen=True, kw_only=True):
    """Only who holds `boards:all` may give it to another owner."""

    board_id: Id
    name: Name | Unset = UNSET
    description: Description | Unset | None = UNSET
    owner_id: Id | Unset = UNSET
    expected_version: Version | None = None


class BoardDelete(Request, frozen=True, kw_only=True):
    """Refused with running agents, or with work in a workspace that is nowhere else, unless `force`.

    That stops the agents first, and throws the work away.
    """

    board_id: Id
    force: bool = False
    expected_version: Version | None = None


class ColumnList(PageRequest, frozen=True, kw_only=True):
    board_id: Id


class ColumnCreate(Request, frozen=True, kw_only=True):
    """Without `position` it becomes the last one. At most one column of a board stands for a state."""

    board_id: Id
    name: Name
    position: Position | None = None
    wip_limit: WipLimit | None = None
    state: TaskState | None = None


class ColumnUpdate(Request, frozen=True, kw_only=True):
    column_id: Id
    name: Name | Unset = UNSET
    wip_limit: WipLimit | Unset | None = UNSET
    state: TaskState | Unset | None = UNSET
    expected_version: Version | None = None


class ColumnMove(Request, frozen=True, kw_only=True):
    """A position beyond the end means the end."""

    column_id: Id
    position: Position
    expected_version: Version | None = None


class ColumnDelete(Request, frozen=True, kw_only=True):
    """With tasks in it, it is refused unless `force`, which moves each to a column that fits its state.

    That is the one for its state, else the first for no state, else none (`column_id` null). No task is deleted, and
    none changes its state.
    """

    column_id: Id
    force: bool = False
    expected_version: Version | None = None


class BoardReply(Response, frozen=True, kw_only=True):
    board: Board


class BoardWithColumns(Response, frozen=True, kw_only=True):
    board: Board
    columns: list[Column]


class BoardsReply(Response, frozen=True, kw_only=True):
    boards: list[Board]
    next_cursor: str | None = None


class BoardRemoved(Response, frozen=True, kw_only=True):
    """What went with a board: `agents` are those that ran for its tasks at any time, `stopped` those still running.

    `workspaces_left` could not be removed (the log says why); the next start of the host tries again.
    """

    columns: int
    tasks: int
    agents: int
    stopped: int
    workspaces_left: int = 0


class BoardDeleted(Response, frozen=True, kw_only=True):
    board_id: str
    deleted: bool = True
    removed: BoardRemoved


class ColumnReply(Response, frozen=True, kw_only=True):
    column: Column


class ColumnsReply(Response, frozen=True, kw_only=True):
    columns: list[Column]
    next_cursor: str | None = None


class MovedTasks(Response, frozen=True, kw_only=True):
    """`tasks` of them are at the end of this column now; null for those that are in none."""

    column_id: str | None
    name: str | None
    tasks: int


class ColumnRemoved(Response, frozen=True, kw_only=True):
    """`tasks_moved` tasks went to the columns `moved_to`."""

    tasks_moved: int
    moved_to: list[MovedTasks]


class ColumnDeleted(Response, frozen=True, kw_only=True):
    column_id: str
    deleted: bool = True
    removed: ColumnRemoved
