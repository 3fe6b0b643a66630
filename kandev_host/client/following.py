"""Which topics a connection follows without having been told to, and how topics are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import msgspec

from kandev_host.client.connection import Notification

# events.subscribe takes no more at once.
TOPICS_PER_REQUEST = 100
# Protocol: a connection that creates, launches, starts or triggers a task, or opens a shell, follows that by itself.
_FOLLOWING = {"task.create", "agent.launch", "orchestrator.start", "orchestrator.trigger", "shell.open"}


class Subscribed(msgspec.Struct):
    """What a client needs of the answer to events.subscribe: the journal, and its head."""

    journal_id: str
    seq: int


class _Task(msgspec.Struct):
    id: str


class _Agent(msgspec.Struct):
    task_id: str


class _Reply(msgspec.Struct):
    task: _Task | None = None
    agent: _Agent | None = None
    shell: _Task | None = None


def followed(action: str, reply: msgspec.Raw) -> set[str]:
    """The topics that the host subscribes a connection to, having answered `action` with this."""
    if action not in _FOLLOWING:
        return set()
    found = msgspec.json.decode(reply, type=_Reply)
    if found.shell is not None:
        return {f"shell:{found.shell.id}"}
    task_id = found.task.id if found.task else found.agent.task_id if found.agent else None
    return {f"task:{task_id}"} if task_id else set()


def gone(notification: Notification) -> str:
    """The topic that has come to its end with this; "" if none has."""
    if notification.action != "task.deleted":
        return ""
    payload = notification.payload
    task = payload.get("task") if isinstance(payload, dict) else None
    return f"task:{task.get('id')}" if isinstance(task, dict) else ""


def batches(topics: Sequence[str]) -> Iterator[list[str]]:
    """The topics in as many requests as they need."""
    rest = iter(topics)
    while batch := list(islice(rest, TOPICS_PER_REQUEST)):
        yield batch
