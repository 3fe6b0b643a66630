"""The credentials of the settings: which an agent is given for its task, how, and that it is written down."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType

import msgspec
from anyio import to_thread

from kandev_host.errors import Conflict, Forbidden, SettingsError, ValidationFailed
from kandev_host.interfaces import AgentType, Mount, Principal
from kandev_host.journal import Journal
from kandev_host.models import AgentInstance, Task
from kandev_host.protocol.actions.credentials import CredentialWay
from kandev_host.protocol.notifications import CredentialNotice
from kandev_host.secrets import register
from kandev_host.services.credentials.files import check_login, check_network, mounts_of
from kandev_host.services.credentials.grants import Grant, grant_of
from kandev_host.services.credentials.handed import Handed
from kandev_host.services.credentials.shown import UNSET, own
from kandev_host.services.credentials.uses import Allowance, Told, Uses, credential_event, log_refusal
from kandev_host.services.forwarding.brokerage import Brokerage, Brokered
from kandev_host.services.named import check_names
from kandev_host.settings import CredentialSettings

SCOPE = "tasks:credentials"
HANDED = "handed out"


class _Choice(msgspec.Struct):
    """What is being put together for one agent."""

    agent: AgentInstance
    task: Task
    env: dict[str, str] = msgspec.field(default_factory=dict)
    mounts: list[Mount] = msgspec.field(default_factory=list)
    secrets: dict[str, str] = msgspec.field(default_factory=dict)
    grants: list[Grant] = msgspec.field(default_factory=list)
    notices: list[CredentialNotice] = msgspec.field(default_factory=list)

    def note(self, name: str, way: CredentialWay, what: str, reason: str, *, allowed: bool = True) -> None:
        self.notices.append(
            CredentialNotice(
                name=name,
                way=way,
                what=what,
                verb=None,
                allowed=allowed,
                reason=reason,
                sent_bytes=0,
                received_bytes=0,
                task_id=self.task.id,
                agent_id=self.agent.id,
            )
        )

    def refuse(self, name: str, settings: CredentialSettings, reason: str) -> None:
        """Note all that this credential would have handed out; of a repository of the task's, the task tells."""
        if settings.git is not None:
            self.note(name, "git", settings.repository or "", reason, allowed=False)
        for variable in settings.variables or ():
            self.note(name, "variable", variable, reason, allowed=False)
        for path in settings.files or ():
            self.note(name, "file", path, reason, allowed=False)

    def refusals(self, name: str, settings: CredentialSettings, reason: str) -> list[CredentialNotice]:
        """What is to be written down where this one keeps the agent from starting: nothing was handed out then."""
        self.notices = [notice for notice in self.notices if not notice.allowed]
        if not any(notice.name == name for notice in self.notices):
            self.refuse(name, settings, reason)
        return self.notices


class Credentials:
    """Use as an async context manager: leaving it ends what is served to agents."""

    def __init__(
        self,
        settings: Mapping[str, CredentialSettings],
        journal: Journal,
        private: Path | None = None,
    ) -> None:
        """`private` is the host's own folder. Raises `SettingsError` for a repository that none can be used for."""
        check_repositories(settings)
        self._settings = settings
        self._journal = journal
        self._private = None if private is None else private.resolve()
        self._brokerage = Brokerage()

    async def __aenter__(self) -> Credentials:
        await self._brokerage.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._brokerage.__aexit__(kind, error, trace)

    def check(self, principal: Principal, names: Sequence[str]) -> tuple[str, ...]:
        """Each of them once. Raises `Forbidden` for anybody but a user, `ValidationFailed` for one that is not there.

        Who is in a jail must not be able to hand itself what is outside.
        """
        if names and principal.kind not in ("user", "host"):
            raise Forbidden(SCOPE)
        return check_names("credentials", names, self._settings)

    def check_repository(self, principal: Principal) -> None:
        """Raise `Forbidden` for anybody but a user who names the repository of a task, where a credential follows it.

        It may be that of an agent type: its agents would be served whatever the user can log in to.
        """
        follows = any(table.git is not None and table.repository is None for table in self._settings.values())
        if follows and principal.kind not in ("user", "host"):
            raise Forbidden(SCOPE)

    async def of(self, agent_type: AgentType, agent: AgentInstance, task: Task) -> Handed:
        """What an agent that starts now is handed, written down before; until `release` it is served what it may use.

        Raises `Conflict` for what cannot be had or must not be given to it, `ValidationFailed` for a name that is gone
        or a repository that is none, and what keeps it from being written.
        """
        choice = _Choice(agent, task)
        try:
            await to_thread.run_sync(_own, choice, agent_type, self._private)
        except (Conflict, ValidationFailed):
            await self._record([notice for notice in choice.notices if not notice.allowed], task)
            raise
        for name in check_names("credentials", (*agent_type.credentials, *task.credentials), self._settings):
            try:
                await self._choose(choice, name, self._settings[name], agent_type)
            except (Conflict, ValidationFailed) as error:
                await self._record(choice.refusals(name, self._settings[name], error.message), task)
                raise
        await self._record(choice.notices, task)
        for value, why in choice.secrets.items():
            register(value, why)
        uses = [self._uses(grant, task, agent.id) for grant in choice.grants]
        brokered = await self._brokerage.open(agent.id, uses)
        return Handed(
            env=choice.env,
            mounts=tuple(choice.mounts),
            allow=brokered.allow,
            git_config=brokered.config,
            secrets=frozenset(choice.secrets),
        )

    async def record_servers(
        self, agent: AgentInstance, task: Task, secrets: Sequence[tuple[str, str, bool]], *, refused: bool = False
    ) -> None:
        """Write down what its MCP servers are given, before they are; of those that are `refused`, what is missing."""
        choice = _Choice(agent, task)
        for server, what, there in secrets:
            if not (there and refused):
                choice.note(f"MCP server {server}", "variable", what, HANDED if there else UNSET, allowed=there)
        await self._record(choice.notices, task)

    @asynccontextmanager
    async def cloning(self, name: str, repository: str, task: Task) -> AsyncIterator[Brokered]:
        """Fetch of what the workspace of a task is cloned from, until the context is left. `name` is of the table.

        Raises `ValidationFailed` for a repository that no log-in is sent to.
        """
        owner = f"the clone of task {task.id}"
        try:
            grant = grant_of(name, repository, push=False)
            yield await self._brokerage.open(owner, [self._uses(grant, task, None)])
        finally:
            self._brokerage.close(owner)

    def release(self, agent_id: str) -> None:
        """It has ended: nothing is served to it any more."""
        self._brokerage.close(agent_id)

    async def _choose(self, choice: _Choice, name: str, settings: CredentialSettings, agent_type: AgentType) -> None:
        if settings.agent_types is not None and agent_type.name not in settings.agent_types:
            choice.refuse(name, settings, f"not for the agent type {agent_type.name}")
            raise Conflict(
                f"The credential {name!r} is for {', '.join(settings.agent_types) or 'no agent type'}: add "
                f"{agent_type.name!r} to agent_types of [credentials.{name}], or take it from the task",
                state="agent_type",
            )
        if settings.git is not None:
            choice.grants.append(_grant(name, settings, choice.task))
        for variable in settings.variables or ():
            value = os.environ.get(variable)
            if not value:
                choice.note(name, "variable", variable, UNSET, allowed=False)
                raise Conflict(
                    f"The credential {name!r} needs the variable {variable}; set it for the host", state="unset"
                )
            choice.env[variable] = value
            choice.secrets[value] = f"the variable {variable}"
            choice.note(name, "variable", variable, HANDED)
        if settings.files is not None:
            if not settings.open_network:
                check_network(name, agent_type)
            mounts, secrets = await to_thread.run_sync(mounts_of, name, settings.files, self._private)
            choice.mounts += mounts
            choice.secrets |= dict.fromkeys(secrets, f"in a file of the credential {name}")
            for path in settings.files:
                choice.note(name, "file", path, HANDED)

    def _uses(self, grant: Grant, task: Task, agent_id: str | None) -> Uses:
        return Uses(grant, task.id, agent_id, self._told(task), Allowance())

    def _told(self, task: Task) -> Told:
        async def tell(notice: CredentialNotice) -> None:
            log_refusal(notice)
            await self._journal.record(credential_event(notice, task.board_id))

        return tell

    async def _record(self, notices: Sequence[CredentialNotice], task: Task) -> None:
        if notices:
            for notice in notices:
                log_refusal(notice)
            await self._journal.record(*(credential_event(notice, task.board_id) for notice in notices))


def check_repositories(settings: Mapping[str, CredentialSettings]) -> None:
    """Raise `SettingsError` for a repository that no log-in can be used for."""
    for name, table in settings.items():
        if table.repository is not None:
            try:
                grant_of(name, table.repository, push=False, field="repository")
            except ValidationFailed as error:
                raise SettingsError(f"[credentials.{name}] repository: {error.message}") from error


def _grant(name: str, settings: CredentialSettings, task: Task) -> Grant:
    repository = settings.repository or task.repository_url
    if repository is None:
        raise Conflict(
            f"The credential {name!r} is for the repository of the task, which has none: give the task one, or name "
            f"one in [credentials.{name}] repository",
            state="no_repository",
        )
    return grant_of(name, repository, push=settings.git == "push")


def _own(choice: _Choice, agent_type: AgentType, private: Path | None) -> None:
    """What its type takes by itself, as its plugin and the settings say, is written down as well. Blocks.

    Raises `Conflict` and `ValidationFailed` for a file that it must not have.
    """
    for each in own(agent_type):
        what = each.what or ""
        if each.way == "file" and each.missing is None:
            try:
                check_login(what, agent_type, private)
            except (Conflict, ValidationFailed) as error:
                choice.note(each.name, each.way, what, error.message, allowed=False)
                raise
        choice.note(each.name, each.way, what, each.missing or HANDED, allowed=each.missing is None)
