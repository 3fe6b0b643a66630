"""The built-in actions, one line each: a name of the protocol, and the service method that does it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from kandev_host.errors import NotFound, StartupError, Unavailable
from kandev_host.gateway.access import OF_THE_HOST, PRIVATE
from kandev_host.gateway.dispatch import SocketCall
from kandev_host.gateway.subscriptions import Followed, Subscriptions
from kandev_host.interfaces import Action, Call, Principal, Store
from kandev_host.interfaces.actions import nothing
from kandev_host.models import Task
from kandev_host.protocol.actions import ACTIONS
from kandev_host.protocol.actions.shells import ShellReply
from kandev_host.protocol.actions.tasks import (
    EventsSubscribe,
    EventsUnsubscribe,
    TaskReply,
    TaskSubscribe,
    TaskUnsubscribe,
    Unsubscribed,
)

if TYPE_CHECKING:
    from kandev_host.services import Services

Handler = Callable[[Call, Any], Any]
Method = Callable[[Principal, Any], Any]


def core_actions(services: Services) -> list[Action[Any]]:
    """Every action of the protocol that the host itself serves."""
    boards, columns, tasks, agents = services.boards, services.columns, services.tasks, services.agents
    orchestrator = services.orchestrator
    handlers: dict[str, Handler] = {
        "health.check": _plain(services.info.health),
        "host.info": _plain(services.info.info),
        "backup.create": _plain(services.backups.create),
        "backup.list": _plain(services.backups.list),
        "audit.list": _plain(services.audit.list),
        "board.list": _plain(boards.list),
        "board.create": _plain(boards.create),
        "board.get": _plain(boards.get),
        "board.update": _plain(boards.update),
        "board.delete": _plain(boards.delete),
        "column.list": _plain(columns.list),
        "column.create": _plain(columns.create),
        "column.update": _plain(columns.update),
        "column.move": _plain(columns.move),
        "column.delete": _plain(columns.delete),
        "task.list": _plain(tasks.list),
        "task.create": _plain(tasks.create),
        "task.get": _plain(tasks.get),
        "task.update": _plain(tasks.update),
        "task.delete": _plain(tasks.delete),
        "task.state": _plain(tasks.state),
        "task.move": _plain(tasks.move),
        "task.events": _plain(tasks.events),
        "agent.types": _plain(services.agent_types.list),
        "agent.type_update": _plain(services.agent_types.update),
        "agent.launch": _starting(agents.launch),
        "agent.list": _plain(services.agent_reading.list),
        "agent.status": _plain(services.agent_reading.status),
        "agent.logs": _plain(services.agent_reading.logs),
        "agent.prompt": _plain(agents.prompt),
        "agent.cancel": _plain(agents.cancel),
        "agent.resume": _plain(agents.resume),
        "agent.stop": _plain(agents.stop),
        "agent.transcript": _plain(services.agent_reading.transcript),
        "queue.list": _plain(services.prompt_queue.list),
        "queue.update": _plain(services.prompt_queue.update),
        "queue.remove": _plain(services.prompt_queue.remove),
        "agent.capture": _plain(services.captures.read),
        "agent.sessions": _plain(services.session_rows.list),
        "agent.session_delete": _plain(services.session_rows.delete),
        "agent.session": _plain(services.agent_sessions.session),
        "agent.set_option": _plain(services.agent_sessions.set_option),
        "agent.authenticate": _plain(services.agent_sessions.authenticate),
        "agent.logout": _plain(services.agent_sessions.logout),
        "permission.list": _plain(services.permissions.list),
        "permission.respond": _plain(services.permissions.respond),
        "permission.rules": _plain(services.permissions.rules),
        "permission.rule_delete": _plain(services.permissions.rule_delete),
        "elicitation.list": _plain(services.elicitations.list),
        "elicitation.respond": _plain(services.elicitations.respond),
        "orchestrator.status": _plain(orchestrator.status),
        "orchestrator.queue": _plain(orchestrator.queue),
        "orchestrator.trigger": _starting(orchestrator.trigger),
        "orchestrator.start": _starting(orchestrator.start),
        "orchestrator.stop": _plain(orchestrator.stop),
        "orchestrator.prompt": _plain(orchestrator.prompt),
        "orchestrator.complete": _plain(orchestrator.complete),
        "orchestrator.pause": _plain(orchestrator.pause),
        "orchestrator.resume": _plain(orchestrator.resume),
        "search.query": _plain(services.search.query),
        "usage.summary": _plain(services.usage.summary),
        "workspace.commits": _plain(services.commits.commits),
        "workspace.diff": _plain(services.snapshots.diff),
        "workspace.restore": _plain(services.snapshots.restore),
        "workspace.snapshot": _plain(services.snapshots.take),
        "workspace.snapshots": _plain(services.snapshots.list),
        "workspace.delete": _plain(services.workspace_keeping.delete),
        "workspace.get": _plain(services.workspace_reading.get),
        "workspace.files": _plain(services.workspace_reading.files),
        "workspace.read": _plain(services.workspace_reading.read),
        **_shells(services),
        **_subscriptions(services.store),
    }
    if handlers.keys() != ACTIONS.keys():
        raise StartupError(f"Actions without a handler or a shape: {sorted(handlers.keys() ^ ACTIONS.keys())}")
    return [_action(name, handler, FOLLOWS.get(name, nothing)) for name, handler in handlers.items()]


def _shells(services: Services) -> dict[str, Handler]:
    shells = services.shells
    return {
        "shell.open": _opening(shells.open),
        "shell.run": _plain(shells.run),
        "shell.input": _plain(shells.input),
        "shell.resize": _plain(shells.resize),
        "shell.signal": _plain(shells.signal),
        "shell.close": _plain(shells.close),
        "shell.list": _plain(shells.list),
        "shell.jobs": _plain(shells.jobs),
        "shell.read": _plain(shells.read),
        "shell.commands": _plain(shells.commands),
    }


def _task_of(reply: TaskReply) -> tuple[str, ...]:
    return (f"task:{reply.task.id}",)


def _shell_of(reply: ShellReply) -> tuple[str, ...]:
    return (f"shell:{reply.shell.id}",)


# Whoever makes a task or opens a shell follows it.
FOLLOWS: Mapping[str, Callable[[Any], tuple[str, ...]]] = {"task.create": _task_of, "shell.open": _shell_of}
# What is typed is kept nowhere, not even as a digest: passwords are typed too.
KEPT_NOWHERE = {"shell.input"}


def subscription_actions(store: Store) -> list[Action[Any]]:
    """`task.subscribe` and its kin, which need the caller's socket and a store to look tasks up in."""
    return [_action(name, handler) for name, handler in _subscriptions(store).items()]


def _action(name: str, handler: Handler, follows: Callable[[Any], tuple[str, ...]] = nothing) -> Action[Any]:
    shape = ACTIONS[name]
    keeps: Literal["response", "nothing"] = "nothing" if name in KEPT_NOWHERE else "response"
    owned = name in PRIVATE or not (shape.reads or name in OF_THE_HOST)
    return Action(name, shape.request, handler, shape.scope, shape.summary, keeps=keeps, follows=follows, owned=owned)


def _plain(method: Method) -> Handler:
    return lambda call, request: method(call.principal, request)


def _starting(method: Method) -> Handler:
    """Whoever starts a task's agent follows the task, from before the agent's first word on."""

    async def handle(call: Call, request: Any) -> Any:
        topic = f"task:{request.task_id}"
        subscriptions = _subscriptions_of(call)
        followed = topic in subscriptions.topics
        call.subscribe(topic)
        try:
            return await method(call.principal, request)
        except BaseException:
            if not followed:
                subscriptions.unfollow(topic)
            raise

    return handle


def _opening(method: Callable[..., Any]) -> Handler:
    """Whoever opens a shell hears of what it waits for."""
    return lambda call, request: method(call.principal, request, partial(_following, _subscriptions_of(call)))


@contextmanager
def _following(subscriptions: Subscriptions, topic: str) -> Iterator[None]:
    subscriptions.follow(topic)
    try:
        yield
    finally:
        subscriptions.unfollow(topic)


def _subscriptions(store: Store) -> dict[str, Handler]:
    async def known(task_id: str) -> str:
        if await store.get(Task, task_id) is None:
            raise NotFound("task", task_id)
        return f"task:{task_id}"

    async def task_subscribe(call: Call, request: TaskSubscribe) -> Followed:
        topic = await known(request.task_id)
        return await _subscriptions_of(call).subscribe([topic], request.after_seq, request.journal_id)

    async def task_unsubscribe(call: Call, request: TaskUnsubscribe) -> Unsubscribed:
        return await _subscriptions_of(call).unsubscribe([f"task:{request.task_id}"])

    async def events_subscribe(call: Call, request: EventsSubscribe) -> Followed:
        topics = list(dict.fromkeys(request.topics))
        for topic in topics:
            if topic.startswith("task:"):
                await known(topic.removeprefix("task:"))
        return await _subscriptions_of(call).subscribe(topics, request.after_seq, request.journal_id)

    async def events_unsubscribe(call: Call, request: EventsUnsubscribe) -> Unsubscribed:
        return await _subscriptions_of(call).unsubscribe(request.topics)

    return {
        "task.subscribe": task_subscribe,
        "task.unsubscribe": task_unsubscribe,
        "events.subscribe": events_subscribe,
        "events.unsubscribe": events_unsubscribe,
    }


def _subscriptions_of(call: Call) -> Subscriptions:
    if not isinstance(call, SocketCall):
        raise Unavailable("This needs a WebSocket")
    return call.subscriptions
