"""Who may do what: the one place that every request passes before its handler, and every event before its socket.

A scope says what somebody may do, the ownership of a board where. What changes something on a board is for its owner;
what only reads goes by its scope, over all boards. Agents may do what is on a list, with their own task alone. What is
not known here is refused.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any

from msgspec import UNSET

from kandev_host.errors import Forbidden, KandevError, NotFound
from kandev_host.events import Event
from kandev_host.interfaces import ALL_BOARDS, Action, Principal
from kandev_host.protocol.actions import ACTIONS
from kandev_host.protocol.notifications import NOTIFICATIONS
from kandev_host.services.ownership import FIELDS, Ownership, missing

Check = Callable[[], Awaitable[None]]

# What changes something, but nothing on a board: the scope says it all. (Whose a new board is, its service sees to.)
OF_THE_HOST = frozenset(
    {"agent.type_update", "backup.create", "board.create", "orchestrator.pause", "orchestrator.resume"}
)
# What changes nothing, but shows what is typed at a terminal, or all that went over an agent's pipes.
PRIVATE = frozenset({"agent.capture", "shell.read"})
# A shell in a workspace of its own is of no task.
MAY_NAME_NOTHING = frozenset({"shell.open"})
SUBSCRIBE = "events.subscribe"
# They end in _id, and name nothing that belongs to anybody.
NO_ROWS = frozenset({"journal_id", "method_id", "option_id", "owner_id"})

# All that an agent may do, with its own task and what belongs to it; and where not all fields are for it, which.
AGENTS_MAY: dict[str, frozenset[str] | None] = {
    "agent.list": None,
    "agent.session": None,
    "agent.status": None,
    "agent.transcript": None,
    "auth.login": None,
    "auth.logout": None,
    "events.subscribe": None,
    "events.unsubscribe": None,
    "health.check": None,
    "queue.list": None,
    "task.events": None,
    "task.get": None,
    "task.subscribe": None,
    "task.unsubscribe": None,
    "task.update": frozenset({"task_id", "metadata", "expected_version"}),
    "workspace.diff": None,
    "workspace.files": None,
    "workspace.get": None,
    "workspace.read": None,
    "workspace.snapshots": None,
}
READ_SHELLS = ACTIONS["shell.read"].scope
_OF_ITSELF = frozenset({"auth.login", "auth.logout", "events.unsubscribe", "health.check"})
_TOPICS = {"task": "task_id", "agent": "agent_id", "shell": "shell_id"}


class Access:
    def __init__(self, ownership: Ownership) -> None:
        self._ownership = ownership

    def admit(self, principal: Principal, action: Action[Any], request: Any) -> Check | None:
        """Raise `Forbidden` for what this principal may not ask at all. None: it may; else what is still to be awaited.

        Whoever holds `*` is asked for nothing but the scope.
        """
        scope = action.scope
        if scope and not principal.may(scope):
            raise Forbidden(scope)
        if principal.kind == "agent":
            return self._admit_agent(principal, action, request)
        shells = _shells(principal, request) if action.name == SUBSCRIBE else []
        if principal.may(ALL_BOARDS):
            return None
        if action.for_owners:
            return self._of_owner(principal, action, request)
        return (lambda: self._follow_all(principal, shells)) if shells else None

    async def check_topic(self, principal: Principal, topic: str) -> None:
        """May its socket follow this topic? Raises `Forbidden`, `NotFound`. Scopes are those of the events."""
        kind, _, id = topic.partition(":")
        if principal.kind == "agent":
            if kind not in ("task", "agent"):
                raise Forbidden("tasks:read", f"An agent follows its own task: task:{principal.task_id}")
            await self._check_mine(principal, _TOPICS[kind], id)
        elif kind == "shell" and not principal.may(ALL_BOARDS):
            await self._ownership.check(principal, shell_id=id)

    async def may_follow(self, principal: Principal, topic: str) -> bool:
        """Of a topic that came with an answer which was given before."""
        try:
            await self.check_topic(principal, topic)
        except KandevError:
            return False
        return True

    def _of_owner(self, principal: Principal, action: Action[Any], request: Any) -> Check | None:
        named = _named(action, request)
        if not named:
            if action.name in MAY_NAME_NOTHING:
                return None
            raise Forbidden(ALL_BOARDS, f"{action.name} names nothing that could be yours; ask an admin")
        if "session_id" in named and "agent_id" in named:
            return lambda: self._session(principal, **named)
        return lambda: self._ownership.check(principal, **named)

    async def _session(self, principal: Principal, *, session_id: str, **named: str) -> None:
        """Beside its agent, a session may have a name that only the agent knows."""
        await self._ownership.check(principal, **named)
        with suppress(NotFound):
            await self._ownership.check(principal, session_id=session_id)

    async def _follow_all(self, principal: Principal, topics: list[str]) -> None:
        for topic in topics:
            await self.check_topic(principal, topic)

    # --- agents -------------------------------------------------------------------------------------------------------

    def _admit_agent(self, principal: Principal, action: Action[Any], request: Any) -> Check | None:
        if action.name not in AGENTS_MAY or principal.task_id is None:
            raise Forbidden(action.scope, f"{action.name} is not for agents; a person must do this")
        if action.name in _OF_ITSELF:
            return None
        fields = AGENTS_MAY[action.name]
        for field in request.__struct_fields__:
            if fields is not None and field not in fields and getattr(request, field) is not UNSET:
                raise Forbidden(
                    action.scope, f"{field} is not for agents to change; a person must do this", field=field
                )
        named, topics = _named(action, request), _topics(request)
        if not named and not topics:
            raise Forbidden(action.scope, f"An agent must say that it means its own task: task_id {principal.task_id}")
        return lambda: self._check_agent(principal, named, topics)

    async def _check_agent(self, principal: Principal, named: dict[str, str], topics: list[str]) -> None:
        for field, id in named.items():
            await self._check_mine(principal, field, id)
        await self._follow_all(principal, topics)

    async def _check_mine(self, principal: Principal, field: str, id: str) -> None:
        """Raise `NotFound`, as if it were not there, for all but what belongs to the agent's task."""
        if (await self._ownership.place(field, id)).task_id != principal.task_id:
            raise missing(field, id)


def sees(principal: Principal) -> Callable[[Event], bool] | None:
    """Which events its socket is sent, of those of its topics; None: all."""
    task_id = principal.task_id
    shown = _shown(principal.scopes)
    if principal.kind == "agent":
        return lambda event: event.task_id == task_id and event.shell_id is None and event.action in shown
    if "*" in principal.scopes:
        return None
    return lambda event: event.action in shown


@lru_cache(256)
def _shown(scopes: frozenset[str]) -> frozenset[str]:
    """The notifications of these scopes. One that is not the protocol's is a plugin's, and for `*` alone."""
    return frozenset(name for name, each in NOTIFICATIONS.items() if each.scope in scopes or "*" in scopes)


def _shells(principal: Principal, request: Any) -> list[str]:
    """The shells that it wants to follow. Whoever does reads what is typed and shown there, and slows it."""
    shells = [topic for topic in _topics(request) if topic.startswith("shell:")]
    if shells and (principal.kind != "user" or not principal.may(READ_SHELLS)):
        raise Forbidden(READ_SHELLS)
    return shells


def _topics(request: Any) -> list[str]:
    return list(getattr(request, "topics", None) or ())


def _named(action: Action[Any], request: Any) -> dict[str, str]:
    """What the request names, by its fields. Raises `Forbidden` for something that the host cannot know whose it is."""
    named: dict[str, str] = {}
    for field in getattr(request, "__struct_fields__", ()):
        value = getattr(request, field)
        if not field.endswith(("_id", "_ids")) or field in NO_ROWS or value in (None, UNSET, [], ()):
            continue
        if field not in FIELDS or not isinstance(value, str):
            raise Forbidden(ALL_BOARDS, f"The host does not know whose the {field} of {action.name} is; ask an admin")
        named[field] = value
    return named
