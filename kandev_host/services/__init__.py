"""What the host does, without a socket in sight: plain classes over store, journal, runtimes and supervisor.

Every action's method takes `(principal, request)` and answers a response struct, or raises a `KandevError`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from kandev_host.audit.log import Audit, NoAudit
from kandev_host.backups.making import Origin
from kandev_host.interfaces import AgentType, Authenticator, Bus, Runtime, Store, Telemetry, Upkeep
from kandev_host.journal import Journal
from kandev_host.models import new_id
from kandev_host.services.adoption import Adoption
from kandev_host.services.agent_reading import AgentReading
from kandev_host.services.agent_tokens import AgentTokens
from kandev_host.services.agent_types import AgentTypeService
from kandev_host.services.agents import AgentService
from kandev_host.services.audit import AuditService
from kandev_host.services.backups import BackupService
from kandev_host.services.boards import BoardService
from kandev_host.services.captures import CaptureService
from kandev_host.services.columns import ColumnService
from kandev_host.services.commits import CommitService
from kandev_host.services.credentials.choice import Credentials
from kandev_host.services.detail import Details, Running
from kandev_host.services.directories import Directories
from kandev_host.services.elicitations import ElicitationService
from kandev_host.services.health import Health, Problem
from kandev_host.services.holders import Holders, add_shells, workspace_holders
from kandev_host.services.info import InfoService, Plugins
from kandev_host.services.launcher import Launcher
from kandev_host.services.launches import PrepareLaunch
from kandev_host.services.locks import Locks
from kandev_host.services.looks import WorkspaceLooks
from kandev_host.services.mcp import McpServers
from kandev_host.services.orchestration.assembly import Chance, build_orchestration
from kandev_host.services.orchestration.dispatcher import Dispatcher
from kandev_host.services.orchestration.lease import Leases
from kandev_host.services.orchestration.service import OrchestratorService
from kandev_host.services.ownership import Ownership
from kandev_host.services.permissions import PermissionService
from kandev_host.services.prompt_queue import PromptQueueService
from kandev_host.services.reach import Reach
from kandev_host.services.recovery import Recovery
from kandev_host.services.runs import LiveRuns
from kandev_host.services.search import SearchService
from kandev_host.services.session_rows import SessionRows
from kandev_host.services.sessions import SessionService
from kandev_host.services.setups import Setups
from kandev_host.services.shells.audience import Audiences
from kandev_host.services.shells.changes import Changes
from kandev_host.services.shells.service import ShellService
from kandev_host.services.snapshots import SnapshotService
from kandev_host.services.supervision import Supervisor
from kandev_host.services.tasks import TaskService
from kandev_host.services.usage import UsageService
from kandev_host.services.users import UserService
from kandev_host.services.watched import Writes
from kandev_host.services.workspace_keeping import WorkspaceKeeping
from kandev_host.services.workspace_reading import WorkspaceReading
from kandev_host.services.workspace_retention import WorkspaceRetention
from kandev_host.services.workspaces import WorkspaceService
from kandev_host.sessions.capture import Captures
from kandev_host.sessions.permissions import PermissionBroker
from kandev_host.settings import Settings
from kandev_host.settings.environment import chosen

__all__ = ["Services", "build_services"]


class Services(msgspec.Struct, frozen=True, kw_only=True):
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
    ownership: Ownership
    agent_tokens: AgentTokens
    audit: AuditService
    boards: BoardService
    columns: ColumnService
    tasks: TaskService
    agents: AgentService
    agent_reading: AgentReading
    prompt_queue: PromptQueueService
    captures: CaptureService
    session_rows: SessionRows
    agent_sessions: SessionService
    permissions: PermissionService
    elicitations: ElicitationService
    workspaces: WorkspaceService
    workspace_reading: WorkspaceReading
    workspace_keeping: WorkspaceKeeping
    workspace_retention: WorkspaceRetention
    holders: Holders
    shells: ShellService
    snapshots: SnapshotService
    looks: WorkspaceLooks
    commits: CommitService
    orchestrator: OrchestratorService
    usage: UsageService
    search: SearchService
    info: InfoService
    health: Health
    running: Running
    backups: BackupService
    recovery: Recovery
    dispatcher: Dispatcher
    launcher: Launcher
    credentials: Credentials
    telemetry: Sequence[Telemetry]
    authenticator: Authenticator | None

    @property
    def audiences(self) -> Audiences:
        """Who follows which shell; the gateway tells it."""
        return self.shells.audiences

    async def __aenter__(self) -> Services:
        await self.users.ensure_local()
        await self.agent_types.load()
        await self.broker.rules.load()
        await self.credentials.__aenter__()
        await self.launcher.__aenter__()
        await self.looks.__aenter__()
        await self.shells.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.snapshots.close()
        self.looks.close()
        await self.shells.__aexit__(kind, error, trace)
        await self.looks.__aexit__(kind, error, trace)
        await self.launcher.__aexit__(kind, error, trace)
        await self.credentials.__aexit__(kind, error, trace)


def build_services(
    settings: Settings,
    *,
    store: Store,
    journal: Journal,
    bus: Bus,
    runtimes: Mapping[str, Runtime],
    installed: Collection[str] = (),
    agent_types: Mapping[str, AgentType],
    broker: PermissionBroker,
    supervisor: Supervisor,
    prepare_launch: Sequence[PrepareLaunch] = (),
    plugins: Plugins = tuple,
    given: Chance | None = None,
    private: Path | None = None,
    captures: Captures | None = None,
    telemetry: Sequence[Telemetry] = (),
    authenticator: Authenticator | None = None,
    upkeep: Upkeep | None = None,
    writes: Writes | None = None,
    audit: Audit | None = None,
) -> Services:
    """Tie the services together, and tell the supervisor whom to tell how runs end.

    `installed` are the runtimes that could be opened, `private` is the host's own folder, `upkeep` that of the store,
    and `writes` what it says of its writes. Raises `SettingsError` for a directory that no agent may be shown.
    """
    default_runtime = settings.use.runtime
    locks = Locks()
    runs = LiveRuns(store)
    reach = Reach()
    users = UserService(store, journal)
    usage = UsageService(store)
    credentials = Credentials(settings.credentials, journal, private)
    agent_tokens = AgentTokens()
    setups = Setups(settings.repositories, journal)
    workspaces = WorkspaceService(
        store, journal, runtimes, settings.workspace, captures, setups, credentials, installed
    )
    holders = workspace_holders(store, runs)
    types = AgentTypeService(
        store,
        journal,
        locks,
        agent_types,
        runtimes=runtimes,
        default_runtime=default_runtime,
        reach=reach,
        credentials=settings.credentials,
        installed=installed,
    )
    mcp, directories = McpServers(settings.mcp), Directories(settings.directories, private)
    tasks = TaskService(
        store, journal, locks, runs, workspaces, types, mcp=mcp, directories=directories, credentials=credentials
    )
    snapshots = SnapshotService(
        store,
        journal,
        locks=locks,
        runs=runs,
        workspaces=workspaces,
        settings=settings.snapshots,
        diff_limit_bytes=settings.workspace.diff_limit_bytes,
    )
    launcher = Launcher(
        journal,
        supervisor,
        workspaces=workspaces,
        prepare_launch=prepare_launch,
        mcp=mcp,
        directories=directories,
        credentials=credentials,
        tokens=agent_tokens,
        before=snapshots.at_start,
    )
    agents = AgentService(
        store,
        journal,
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
        permissions=settings.permissions,
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
    looks = WorkspaceLooks(workspaces, settings.snapshots)
    changes = supervisor.looks = Changes(looks if settings.shells.audit_files else None)
    shells = ShellService(
        store,
        journal,
        runs=runs,
        locks=locks,
        workspaces=workspaces,
        settings=settings.shells,
        default_runtime=default_runtime,
        kept_s=settings.journal.events_kept_s,
        changes=changes,
    )
    orchestration.recovery.shells = shells.reconcile
    orchestration.recovery.take_over = Adoption(
        store,
        journal,
        supervisor,
        agents=agents,
        launcher=launcher,
        usage=usage,
        permissions=settings.permissions,
    ).take_over
    snapshots.quiet = shells.quiet.of
    add_shells(holders, shells)
    supervisor.on_turn_end = snapshots.first(supervisor.on_turn_end)
    keeping = WorkspaceKeeping(store, workspaces, holders=holders, locks=locks, runs=runs)
    origin = Origin(upkeep, settings.use.store, private) if upkeep is not None and private is not None else None
    backups = BackupService(settings.backup, store, origin, settings.use.store, audit or NoAudit())
    running = Running()
    health = Health(
        journal,
        runtimes,
        writes=writes or Writes(),
        needed={default_runtime, *chosen(settings.runtime)},
        folder=private,
        low_bytes=lambda: settings.server.disk_low_bytes,
        others=lambda: _told(backups, running, plugins),
    )
    details = Details(
        settings=settings,
        store=store,
        journal=journal,
        bus=bus,
        upkeep=upkeep,
        health=health,
        backups=backups,
        live_agents=lambda: len(supervisor.runs),
        running=running,
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
        ownership=Ownership(store),
        agent_tokens=agent_tokens,
        audit=AuditService(store),
        boards=BoardService(store, journal, locks=locks, users=users, runs=runs, workspaces=workspaces),
        columns=ColumnService(store, journal, locks),
        tasks=tasks,
        agents=agents,
        agent_reading=AgentReading(store, supervisor, usage),
        prompt_queue=PromptQueueService(store, journal, supervisor, launcher, locks=locks),
        captures=CaptureService(store, captures),
        session_rows=SessionRows(store, journal, supervisor, locks),
        agent_sessions=SessionService(store, supervisor, types=types, launcher=launcher, reach=reach, usage=usage),
        permissions=PermissionService(store, journal, broker),
        elicitations=ElicitationService(store, broker.elicitations),
        workspaces=workspaces,
        workspace_reading=WorkspaceReading(workspaces, holders),
        workspace_keeping=keeping,
        workspace_retention=WorkspaceRetention(store, workspaces, keeping, settings.workspace),
        holders=holders,
        shells=shells,
        snapshots=snapshots,
        looks=looks,
        commits=CommitService(store, journal, workspaces=workspaces, settings=settings.snapshots),
        orchestrator=orchestration.service,
        usage=usage,
        search=SearchService(store),
        info=InfoService(
            journal,
            health,
            details,
            default_runtime=default_runtime,
            agents=agents,
            plugins=plugins,
            limits=lambda: limits_told(settings),
        ),
        health=health,
        running=running,
        backups=backups,
        recovery=orchestration.recovery,
        dispatcher=orchestration.dispatcher,
        launcher=launcher,
        credentials=credentials,
        telemetry=telemetry,
        authenticator=authenticator,
    )


def _told(backups: BackupService, running: Running, plugins: Plugins) -> Iterator[Problem]:
    """What parts know of themselves: asked at each health.check, so nothing is worked out here."""
    if backups.problem is not None:
        yield Problem("backup", f"The last automatic backup failed: {backups.problem}", "kandev-host backup create")
    if running.problem is not None:
        yield Problem(
            "settings", f"The old settings hold: {running.problem}", "mend the settings, then: kandev-host reload"
        )
    for plugin in plugins():
        if plugin.state == "broken":
            fix = f'mend it, or [plugins] disabled = ["{plugin.name}"]'
            yield Problem("plugin", f"The plugin {plugin.name} is broken: {plugin.reason}", fix)


def limits_told(settings: Settings) -> dict[str, Any]:
    """The bounds that a client should know."""
    gateway = msgspec.to_builtins(settings.gateway)
    told = {key: value for key, value in gateway.items() if key not in {"origins", "hosts", "query_token"}}
    return {**told, "diff_limit_bytes": settings.workspace.diff_limit_bytes, "page_limit": 500}
