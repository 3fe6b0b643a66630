"""The host: every floor opened bottom-up on one exit stack, and closed top-down."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, cast
from urllib.parse import quote

import anyio
import anyio.to_thread

from kandev_host import preflight, secrets, tracing
from kandev_host.agent_types import effective
from kandev_host.audit.log import AuditLog
from kandev_host.bounded import FAULTS
from kandev_host.errors import PluginError, PluginFailed, StartupError
from kandev_host.gateway.app import Gateway
from kandev_host.gateway.certificate import Certificate
from kandev_host.gateway.listening import check_address, check_authentication
from kandev_host.interfaces import AgentType, Authenticator, Bus, Environment, Prices, Runtime, Store, Telemetry
from kandev_host.journal import Journal
from kandev_host.log_lines import sent_to
from kandev_host.metering import metering
from kandev_host.plugin_calls import describe
from kandev_host.plugin_contexts import OwnTask, StopTime, bounded
from kandev_host.plugins import Plugins, install, load_plugins
from kandev_host.presence import announced, only_host
from kandev_host.reloading import Reloads, retention
from kandev_host.retention import Retention
from kandev_host.selection import has_no_library, opening, upkeep_of
from kandev_host.services import Services, build_services
from kandev_host.services.image_pulls import ImagePulls
from kandev_host.services.network_log import NetworkLog
from kandev_host.services.watched import WatchedBus, WatchedStore, Writes
from kandev_host.sessions.capture import Captures
from kandev_host.sessions.permissions import PermissionBroker
from kandev_host.sessions.pricing import Pricing
from kandev_host.sessions.rulebook import RuleBook
from kandev_host.sessions.supervisor import AgentSupervisor
from kandev_host.settings import Settings
from kandev_host.settings.environment import chosen
from kandev_host.settings.live import own
from kandev_host.settings.load import prepare_data_dir
from kandev_host.telemetry import FanOut
from kandev_host.version import __version__

log = logging.getLogger(__name__)
DESCRIPTORS = 65_536
T = TypeVar("T")


class Host:
    """Use as an async context manager, in the main thread's event loop. Raises `StartupError` when it cannot start.

    Leaving it refuses sockets, stops agents, drains the journal and closes the store, in that order.
    """

    def __init__(self, settings: Settings, data_dir: Path, *, queue: bool = True, answers: bool = False) -> None:
        """Without `queue` nothing is started that nobody asks for.

        One that only `answers` a question of its own process is nobody else's host, and starts nothing at all: what a
        host that died left is for the next one that does. `ends` says why it is left, for the log.
        """
        self.settings = own(settings)
        self.reloads: Reloads
        self._queue = queue
        self._answers = answers
        self.data_dir = data_dir
        self.token_path = data_dir / "token"
        self.recovered: dict[str, Any] = {}
        self.ends = "it is not needed any more"
        self.plugins: Plugins
        self.services: Services
        self.telemetry = FanOut()
        self.audit: AuditLog
        self._environment = Environment(str(data_dir), __version__)
        self._gateway: Gateway
        self._stack = AsyncExitStack()

    @property
    def url(self) -> str:
        """Where the gateway listens, as in http://127.0.0.1:8080."""
        return self._gateway.url

    async def __aenter__(self) -> Host:
        try:
            await self._open()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._gateway.ready = False
        self._note("Stops: %s", self.ends if kind is None else kind.__name__)
        # Each floor shields its own clean-up; a scope around them all would be left in the wrong order.
        await self._stack.__aexit__(kind, error, trace)

    async def _open(self) -> None:
        check_address(self.settings.server)
        certificate = Certificate.of(self.settings.server)
        _watch_children_by_pidfd()
        _take_all_descriptors()
        stack, settings = self._stack, self.settings
        stack.enter_context(secrets.in_use())
        prepare_data_dir(self.data_dir)
        stack.enter_context(only_host(self.data_dir))
        self._note("Starts: version %s, pid %s, data in %s", __version__, os.getpid(), self.data_dir)
        # In a thread: an import that hangs must not keep a second signal from ending the host.
        self.plugins = plugins = await anyio.to_thread.run_sync(load_plugins, settings.plugins, abandon_on_cancel=True)
        self._stop_time = StopTime(settings.plugins.stop_timeout_s)
        agent_types = effective(plugins.agent_types, settings.agents)
        self.telemetry = FanOut(await self._sinks())
        stack.enter_context(sent_to(self.telemetry))
        stack.enter_context(tracing.using(self.telemetry.tracer))
        meter = metering(self.telemetry, settings.use.telemetry, agent_types)
        writes = Writes()
        provided = await self._provided("store", settings.use.store)
        store = cast("Store", WatchedStore(meter.store(provided), writes))
        bus = WatchedBus(meter.bus(await self._provided("bus", settings.use.bus)))
        self.audit = audit = AuditLog.of_folder(self.data_dir)
        kept = retention(settings.journal)
        journal = await self._journal(store, bus, kept, meter.journal(settings.use.store))
        runtimes = meter.runtimes(await self._runtimes(agent_types))
        await stack.enter_async_context(NetworkLog(journal, runtimes))
        await stack.enter_async_context(ImagePulls(journal, runtimes))
        authenticator = await self._authenticator()
        check_authentication(settings.server, settings.use.authenticator, authenticator.remote)
        broker = PermissionBroker(
            store,
            journal,
            self._hooks("kandev_permission_policy"),
            settings=settings.permissions,
            rules=RuleBook(store, settings.rules),
        )
        captures = Captures.of_settings(self.data_dir / "captures", settings.session)
        stack.push_async_callback(captures.aclose)
        supervisor = AgentSupervisor(
            journal,
            broker,
            settings.session,
            turn_policies=self._hooks("kandev_turn_policy"),
            stalls=settings.orchestrator,
            priced=Pricing(await self._prices(), store, journal).priced,
            captures=captures,
            tally=meter.tally,
        )
        await stack.enter_async_context(supervisor)
        self.services = services = build_services(
            settings,
            store=store,
            journal=journal,
            bus=bus,
            runtimes=runtimes,
            installed=plugins.providers["runtime"],
            agent_types=agent_types,
            broker=broker,
            supervisor=supervisor,
            prepare_launch=self._hooks("kandev_prepare_launch"),
            captures=captures,
            plugins=lambda: plugins.infos,
            private=self.data_dir,
            telemetry=self.telemetry.sinks,
            authenticator=authenticator,
            upkeep=upkeep_of(plugins, settings, self._environment),
            writes=writes,
            audit=audit,
        )
        await stack.enter_async_context(services)
        if not self._answers:
            self.recovered = (await stack.enter_async_context(services.recovery)).first
        for plugin, lifespan in plugins.lifespans(services):
            await self._live_with(plugin, lifespan)
        self._gateway = Gateway(
            services,
            actions=meter.actions(plugins.actions(services)),
            routes=plugins.routes(services),
            authenticator=authenticator,
            server=settings.server,
            settings=settings.gateway,
            certificate=certificate,
            latency=meter.latency,
            healthy=lambda: services.health.status == "ok",
            audit=audit,
        )
        meter.watch(store=store, journal=journal, agents=supervisor, gateway=self._gateway)
        await self._gateway.start()
        services.running.addresses = [self.url]
        services.running.sockets = lambda: self._gateway.sockets
        services.running.scopes = self._gateway.scopes
        self.reloads = Reloads(
            settings=settings,
            services=services,
            gateway=self._gateway,
            retention=kept,
            given=plugins.agent_types,
            noted=audit.settings_are,
            check=partial(preflight.check, data_dir=self.data_dir),
        )
        await self._serve(services, certificate)

    async def _serve(self, services: Services, certificate: Certificate | None) -> None:
        """Sockets are answered from here on; what works by itself begins."""
        stack = self._stack
        stack.push_async_callback(self._gateway.stop)
        stack.push_async_callback(services.shells.shutdown)  # sockets wait for the commands that they asked for
        # Last, so that no agent is started for a host that cannot serve.
        if self._queue:
            await stack.enter_async_context(services.dispatcher)
            await stack.enter_async_context(services.workspace_retention)
            await stack.enter_async_context(services.backups)
        if not self._answers:
            # Commands on this machine trust the certificate in the file, whatever name it has.
            pin = f"#certificate={quote(str(certificate.path))}" if certificate is not None else ""
            stack.enter_context(announced(self.data_dir, self.url + pin))
            await stack.enter_async_context(services.health)
        self._gateway.ready = True
        active = [info.name for info in self.plugins.infos if info.state == "active"]
        self._note("Listens at %s; plugins: %s", self.url, ", ".join(active))

    def _note(self, message: str, *values: object) -> None:
        """Into the log; not of one that only answers its own process."""
        if not self._answers:
            log.info(message, *values)

    async def _journal(self, store: Store, bus: Bus, kept: Retention, journal_of: Callable[..., Journal]) -> Journal:
        """The journal, audited from its first row on."""
        settings, audit = self.settings.journal, self.audit
        await audit.look(store)
        made = journal_of(
            store,
            bus,
            retention=kept,
            limit_commits=settings.queue_commits_limit,
            limit_bytes=settings.queue_limit_bytes,
            full_timeout_s=settings.queue_timeout_s,
            drain_timeout_s=settings.drain_timeout_s,
            audit=audit,
        )
        journal = await self._stack.enter_async_context(made)
        if self._answers:
            audit.answering(journal)
        else:
            about = {"version": __version__, "authenticator": self.settings.use.authenticator}
            await self._stack.enter_async_context(audit.standing(journal, store, **about))
            if self._queue:  # those of a command that runs one agent are none of anybody's
                audit.settings_are(self.settings)
        return journal

    async def _provided(self, kind: str, name: str) -> Any:
        """Open the selected provider with its table of the settings."""
        open_it = opening(self.plugins, self.settings, kind, name, self._environment)
        plugin = self.plugins.third_party(kind, name)
        if plugin is None:
            return await self._stack.enter_async_context(open_it())
        try:
            return await self._enter(plugin, f"{kind} {name}", open_it)
        except StartupError:
            raise
        except FAULTS as error:
            self.plugins.broken(plugin, f"{kind} {name}: {describe(error)}")
            raise PluginFailed(
                f'[use] {kind} = "{name}" does not start: plugin {plugin!r}: {describe(error)};'
                f" mend or update the plugin, or choose another {kind}"
            ) from error

    async def _enter(self, plugin: str, what: str, make: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        """A context of a third party's plugin, until the host stops."""
        context = OwnTask(
            plugin,
            make,
            start_timeout_s=self.settings.plugins.start_timeout_s,
            stop_time=self._stop_time,
            failed=lambda reason: self.plugins.broken(plugin, f"{what}: {reason}"),
        )
        return await self._stack.enter_async_context(context)

    async def _sinks(self) -> list[Telemetry]:
        """The telemetry of the settings, but for what does not start: no work needs it."""
        sinks = []
        for name in self.settings.use.telemetry:
            with suppress(PluginFailed):  # noted where it failed
                sinks.append(await self._provided("telemetry", name))
        return sinks

    async def _authenticator(self) -> Authenticator:
        name = self.settings.use.authenticator
        found: Authenticator = await self._provided("authenticator", name)
        plugin = self.plugins.third_party("authenticator", name)
        if plugin is None:
            return found
        failed = partial(self.plugins.broken, plugin)
        return bounded(plugin, found, timeout_s=self.settings.plugins.hook_timeout_s, failed=failed)

    async def _runtimes(self, agent_types: dict[str, AgentType]) -> dict[str, Runtime]:
        """The default runtime, those that agents name, and those that the settings have a table for."""
        wanted = {self.settings.use.runtime: None}
        wanted |= dict.fromkeys(kind.runtime for kind in agent_types.values() if kind.runtime and kind.enabled)
        wanted |= dict.fromkeys(chosen(self.settings.runtime))
        runtimes: dict[str, Runtime] = {}
        for name in wanted:
            try:
                runtimes[name] = await self._provided("runtime", name)
            except PluginError as error:
                if name == self.settings.use.runtime:
                    raise
                log.warning("The runtime %s is not there: %s", name, error)
        return runtimes

    async def _prices(self) -> Prices:
        """Those of the settings; none if their library is not installed, or they do not start: no agent needs them."""
        name = self.settings.use.prices
        if has_no_library(self.plugins, self.settings):
            log.warning("Turns stay unpriced: [use] prices = %r needs: %s", name, install("prices"))
            name = "none"
        prices: Prices
        try:
            prices = await self._provided("prices", name)
        except PluginFailed:  # noted where it failed
            prices = await self._provided("prices", "none")
        return prices

    def _hooks(self, name: str) -> list[Any]:
        return [call for _, call in self.plugins.per_request(name)]

    async def _live_with(self, plugin: str, lifespan: Any) -> None:
        try:
            await self._enter(plugin, "kandev_lifespan", lambda: lifespan)
        except FAULTS as error:  # a plugin's own fault, of any kind, is contained here
            self.plugins.broken(plugin, f"kandev_lifespan: {describe(error)}")


def _watch_children_by_pidfd() -> None:
    """Python 3.11 starts a thread for each child unless told otherwise; later ones do not."""
    if sys.version_info < (3, 12):
        watcher = asyncio.PidfdChildWatcher()
        watcher.attach_loop(asyncio.get_running_loop())
        asyncio.set_child_watcher(watcher)


def _take_all_descriptors() -> None:
    """Of 1,024 descriptors, the usual soft limit, a thousand sockets would leave none to start an agent with.

    Jails have a limit of their own. Whoever calls select(2) needs the low limit; nothing of ours does.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
