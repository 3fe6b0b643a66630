"""The settings read again while the host runs: all of what can be taken over is, or, if anything is wrong, nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import anyio
import anyio.to_thread
import msgspec

from kandev_host.agent_types import effective
from kandev_host.errors import SettingsError, StartupError
from kandev_host.gateway.app import Gateway
from kandev_host.interfaces import AgentType
from kandev_host.models import now
from kandev_host.retention import Retention
from kandev_host.services import Services
from kandev_host.settings import JournalSettings, Settings
from kandev_host.settings.keys import dotted
from kandev_host.settings.live import difference, is_live, take_over
from kandev_host.settings.load import Loaded

log = logging.getLogger(__name__)

READ_S = 45.0  # a file may lie on a share that is gone, a plugin may hang


def retention(settings: JournalSettings) -> Retention:
    """As the settings say it."""
    return Retention(settings.events_kept_s, settings.events_limit_bytes, settings.trim_interval_s)


class Reloads(msgspec.Struct, frozen=True, kw_only=True):
    """`settings` are those that the host runs with, and what it takes over is changed in them, and then `noted`.

    `check` raises what the next start would: the host that runs is not told settings that would keep it from starting.
    """

    settings: Settings
    services: Services
    gateway: Gateway
    retention: Retention
    given: Mapping[str, AgentType]
    noted: Callable[[Settings], None]
    check: Callable[[Settings], None]

    async def reload(self, load: Callable[[], Loaded]) -> bool:
        """Read the settings again. False when they are wrong, and the old ones hold; the log and host.info say why."""
        running = self.services.running
        try:
            with anyio.fail_after(READ_S):
                loaded = await anyio.to_thread.run_sync(load, abandon_on_cancel=True)
                if running.settings_path is not None and loaded.config_path is None:
                    # What it forbade would be allowed, and nobody would hear of it.
                    raise SettingsError(
                        f"{running.settings_path} is gone: put it back, or an empty one for the defaults"
                    )
                await anyio.to_thread.run_sync(self.check, loaded.settings, abandon_on_cancel=True)
            self._check(loaded.settings)
        except Exception as error:  # whatever is wrong with them, the host that runs goes on
            foreseen = isinstance(error, StartupError)
            problem = str(error) if foreseen else f"they cannot be read ({type(error).__name__}); the host's log has it"
            running.problem, running.changed = problem, []
            log.error("The settings were not reloaded, the old ones hold: %s", problem, exc_info=not foreseen)
            return False
        else:
            running.problem, running.loaded_at = None, now()
            running.settings_path = str(loaded.config_path) if loaded.config_path else None
            self._take(loaded.settings)
            return True
        finally:
            running.loads += 1

    def _check(self, new: Settings) -> None:
        """Raises `SettingsError` for what needs something that only a restart brings."""
        effective(self.given, new.agents)
        for name, override in new.agents.items():
            for kind, wanted, known in (
                ("directories", override.directories, self.settings.directories),
                ("credentials", override.credentials, self.settings.credentials),
            ):
                missing = [each for each in wanted or () if each not in known]
                if missing:
                    raise SettingsError(
                        f"[agents.{name}] names [{kind}.{missing[0]}], which is new: that needs a restart"
                    )

    def _take(self, new: Settings) -> None:
        running, services = self.services.running, self.services
        differ = difference(self.settings, new)
        live = [path for path in differ if is_live(path)]
        take_over(self.settings, new, live)
        self.noted(self.settings)
        tables = {path[0] for path in live}
        if "log" in tables:
            logging.getLogger().setLevel(self.settings.log.level.upper())
        if "gateway" in tables:
            self.gateway.reload()
        if "journal" in tables:
            kept = retention(self.settings.journal)
            self.retention.kept_s, self.retention.limit_bytes = kept.kept_s, kept.limit_bytes
            self.retention.interval_s = kept.interval_s
        if "rules" in tables:
            services.broker.rules.reload(self.settings.rules)
        if "agents" in tables:
            services.agent_types.reload(effective(self.given, self.settings.agents))
        if tables & {"orchestrator", "agents"}:
            services.dispatcher.mark()
        running.changed = [dotted(path) for path in live]
        running.restart = [dotted(path) for path in differ if path not in live]
        log.info("The settings were reloaded; changed: %s", ", ".join(running.changed) or "nothing")
        if running.restart:
            log.warning("Only a restart makes these true: %s", ", ".join(running.restart))
