"""Rows to test a store with: one of each kind, and how to write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kandev_host.errors import KandevError
from kandev_host.interfaces import Change, Commit, Put, Store
from kandev_host.models import (
    AgentInstance,
    AgentLog,
    AgentTypeRow,
    Board,
    Column,
    Command,
    Elicitation,
    HostState,
    Limits,
    PermissionRequest,
    PermissionRule,
    QueueEntry,
    Receipt,
    Row,
    Session,
    ShellRow,
    SkippedPath,
    Snapshot,
    Task,
    TaskEvent,
    Turn,
    Usage,
    User,
    Workspace,
    now,
)

USER = User(email="ada@example.org", username="ada")
BOARD = Board(name="Inbox", owner_id=USER.id)
COLUMN = Column(board_id=BOARD.id, name="Doing", position=0, state="IN_PROGRESS")
TASK = Task(
    board_id=BOARD.id, column_id=COLUMN.id, title="Fix the login bug", description="It fails.", created_by=USER.id
)
AGENT = AgentInstance(task_id=TASK.id, agent_type="demo", runtime="bwrap", resource_limits=Limits(cpu_limit="1.5"))
SESSION = Session(
    agent_id=AGENT.id,
    task_id=TASK.id,
    acp_session_id="s-1",
    cwd="/workspace",
    protocol_version=1,
    auth_methods=[{"id": "key"}],
    title="Ä title",
)
SHELL = ShellRow(task_id=TASK.id, workspace_id=TASK.id, runtime="bwrap", allow=("@pypi",), opened_by=USER.id)
TURN = Turn(agent_id=AGENT.id, task_id=TASK.id, prompt=[{"type": "text", "text": "Please fix it"}], created_by=USER.id)
ONE_OF_EACH: tuple[Row, ...] = (
    USER,
    BOARD,
    COLUMN,
    TASK,
    TaskEvent(task_id=TASK.id, event_type="created", new_state="TODO", metadata={"by": ["ä", 1]}, created_by=USER.id),
    AgentTypeRow(
        name="demo",
        default_resources=Limits(memory_limit="2g"),
        capabilities=("a", "b"),
        enabled=False,
        default_options={"model": "ä", "fast": True},
    ),
    AGENT,
    AgentLog(agent_instance_id=AGENT.id, log_level="warning", message="out of\0bounds \N{SNOWMAN}"),
    SESSION,
    TURN,
    PermissionRequest(
        agent_id=AGENT.id, task_id=TASK.id, session_id="s-1", tool_call={"kind": "edit"}, options=[{}], digest="d"
    ),
    Elicitation(agent_id=AGENT.id, task_id=TASK.id, mode="form", message="Who?", answered=("name", "ä")),
    PermissionRule(effect="allow", task_id=TASK.id, kind="execute", command=("make", "ä b"), created_by=USER.id),
    Usage(
        turn_id=TURN.id,
        agent_id=AGENT.id,
        task_id=TASK.id,
        board_id=BOARD.id,
        agent_type="demo",
        source="agent",
        input_tokens=1 << 40,
        cost="0.10",
        currency="USD",
        priced_by="agent",
        labels={"prompt_usage": "per_turn"},
    ),
    Workspace(id=TASK.id, runtime="bwrap", base_commit="abc"),
    QueueEntry(id=TASK.id, board_id=BOARD.id, not_before=now(), failure="crash", created_by=USER.id),
    SHELL,
    Command(
        task_id=TASK.id,
        agent_id=AGENT.id,
        shell_id=SHELL.id,
        command="make test | tee out.txt",
        state="finished",
        exit_code=2,
        output_head="\N{SNOWMAN}",
        changed_files=["out.txt"],
    ),
    Receipt(id=f"{USER.id}/1", action="task.create", digest="d", reply='{"ä": 1}', topics=("task:1",)),
    HostState(id="orchestrator", value={"paused": True}),
    Snapshot(
        task_id=TASK.id, kind="turn", tree="ab", files=1, skipped=(SkippedPath("ä", "a pipe"),), created_by="host"
    ),
)


def a_task(title: str = "Another", **fields: Any) -> Task:
    return Task(**{"board_id": BOARD.id, "title": title, "description": "", "created_by": USER.id, **fields})


def seqs(outcome: Sequence[int] | KandevError) -> list[int]:
    """The numbers of a commit's events; an error is raised."""
    if isinstance(outcome, KandevError):
        raise outcome
    return list(outcome)


async def write(store: Store, *changes: Change) -> list[int]:
    (outcome,) = await store.commit([Commit(changes)])
    return seqs(outcome)


async def a_world(store: Store) -> None:
    """One row of each kind."""
    await write(store, *map(Put, ONE_OF_EACH))
