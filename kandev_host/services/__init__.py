"""What the host does, without a socket in sight: plain classes over store, journal, runtimes and supervisor.

Every action's method takes `(principal, request)` and answers a response struct, or raises a `KandevError`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import msgspec

from kandev_host.interfaces import AgentType, Bus, Runtime, Store
from kandev_host.journal import Journal
from kandev_host.models import new_id
from kandev_host.services.agent_types import AgentTypeService
from kandev_host.services.agents import AgentService
from kandev_host.services.boards import BoardService
from kandev_host.services.columns import ColumnService
from kandev_host.services.info import InfoService
from kandev_host.services.launcher import Launcher
from kandev_host.services.launches import PrepareLaunch
from kandev_host.services.locks import Locks
from kandev_host.services.orchestration.assembly import Chance, build_orchestration
from kandev_host.services.orchestration.dispatcher import Dispatcher
from kandev_host.services.orchestration.lease import Leases
from kandev_host.services.orchestration.service import OrchestratorService
from kandev_host.services.permissions import PermissionService
from kandev_host.services.reach import Reach
from kandev_host.services.recovery import Recovery
from kandev_host.services.runs import LiveRuns
from kandev_host.services.search import SearchService
from kandev_host.services.supervision import Supervisor
from kandev_host.services.tasks import TaskService
from kandev_host.services.usage import UsageService
from kandev_host.services.users import UserService
from kandev_host.services.workspaces import WorkspaceService
from kandev_host.sessions.permissions import PermissionBroker
from kandev_host.settings import Settings

__all__ = ["Services", "build_services"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything that actions and plugins may use. Enter it (`async with services`) before the gateway opens.

    Entering makes the local user and begins to accept launches; leaving ends what is still being launched. The
    `dispatcher` is entered after that, once `recovery.reconcile` has been through.
    """

    settings: Settings
    store: Store
    journal: Journal
    bus: Bus
    runtimes: Mapping[str, Runtime]
    agent_types: AgentTypeService
    broker: PermissionBroker
    supervisor: Supervisor
    users: UserService
    boards: BoardService
    columns: ColumnService
    tasks: TaskService
    agents: AgentService
    permissions: PermissionService
    workspaces: WorkspaceService
    orchestrator: OrchestratorService
    usage: UsageService
    search: SearchService
    info: InfoService
    recovery: Recovery
    dispatcher: Dispatcher
    launcher: Launcher

    async def __aenter__(self) -> Services:
        await self.users.ensure_local()
        await self.agent_types.load()
        await self.launcher.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.launcher.__aexit__(kind, error, trace)


def build_services(
    settings: Settings,
    *,
    store: Store,
    journal: Journal,
    bus: Bus,
    runtimes: Mapping[str, Runtime],
    agent_types: Mapping[str, AgentType],
    broker: PermissionBroker,
    supervisor: Supervisor,
    prepare_launch: Sequence[PrepareLaunch] = (),
    plugins: Callable[[], Sequence[dict[str, Any]]] = tuple,
    given: Chance | None = None,
) -> Services:
    """Tie the services together, and tell the supervisor whom to tell how runs end."""
    default_runtime = settings.use.runtime
    locks = Locks()
    runs = LiveRuns(store)
    reach = Reach()
    users = UserService(store, journal)
    usage = UsageService(store)
    workspaces = WorkspaceService(store, journal, runtimes, settings.workspace)
    types = AgentTypeService(
        store, journal, locks, agent_types, runtimes=runtimes, default_runtime=default_runtime, reach=reach
    )
    tasks = TaskService(store, journal, locks, runs, workspaces, types)
    launcher = Launcher(journal, supervisor, workspaces=workspaces, prepare_launch=prepare_launch)
    agents = AgentService(
        store,
        supervisor,
        types=types,
        locks=locks,
        runs=runs,
        tasks=tasks,
        workspaces=workspaces,
        launcher=launcher,
        usage=usage,
        leases=Leases(new_id(), settings.orchestrator.ageing_s),
        reach=reach,
    )
    orchestration = build_orchestration(
        settings.orchestrator,
        store=store,
        journal=journal,
        bus=bus,
        runtimes=runtimes,
        locks=locks,
        runs=runs,
        tasks=tasks,
        workspaces=workspaces,
        agents=agents,
        launcher=launcher,
        supervisor=supervisor,
        reach=reach,
        given=given or Chance(),
    )
    types.on_change = orchestration.dispatcher.mark  # what waited for an agent to be enabled
    return Services(
        settings=settings,
        store=store,
        journal=journal,
        bus=bus,
        runtimes=runtimes,
        agent_types=types,
        broker=broker,
        supervisor=supervisor,
        users=users,
        boards=BoardService(store, journal, locks=locks, users=users, runs=runs, workspaces=workspaces),
        columns=ColumnService(store, journal, locks),
        tasks=tasks,
        agents=agents,
        permissions=PermissionService(store, broker),
        workspaces=workspaces,
        orchestrator=orchestration.service,
        usage=usage,
        search=SearchService(store),
        info=InfoService(
            journal,
            runtimes,
            default_runtime=default_runtime,
            agents=agents,
            plugins=plugins,
            limits=limits_told(settings),
        ),
        recovery=orchestration.recovery,
        dispatcher=orchestration.dispatcher,
        launcher=launcher,
    )


def limits_told(settings: Settings) -> dict[str, Any]:
    """The bounds that a client should know."""
    gateway = msgspec.to_builtins(settings.gateway)
    told = {key: value for key, value in gateway.items() if key not in {"origins", "query_token"}}
    return {**told, "diff_limit_bytes": settings.workspace.diff_limit_bytes, "page_limit": 500}
