"""What the settings select: found among the plugins, with its own table of the settings decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

from kandev_host.bounded import FAULTS, in_thread
from kandev_host.errors import PluginError, SettingsError, StartupError
from kandev_host.interfaces import Environment, Upkeep
from kandev_host.plugin_calls import describe
from kandev_host.plugins import Plugins
from kandev_host.settings import Settings
from kandev_host.settings.environment import chosen
from kandev_host.settings.load import decode_table


def opening(
    plugins: Plugins, settings: Settings, kind: str, name: str, environment: Environment
) -> Callable[[], AbstractAsyncContextManager[Any]]:
    """What opens the provider. Raises `PluginError` when it cannot be had, `SettingsError` for a wrong table."""
    provider = plugins.provider(kind, name)
    return partial(provider.open, _table(plugins, settings, kind, name), environment)


def upkeep_of(plugins: Plugins, settings: Settings, environment: Environment) -> Upkeep | None:
    """What backs up and checks the selected store; None where the store brings nothing for that."""
    name = settings.use.store
    provider = plugins.provider("store", name)
    return None if provider.upkeep is None else provider.upkeep(_table(plugins, settings, "store", name), environment)


def has_no_library(plugins: Plugins, settings: Settings) -> bool:
    """Are the prices of the settings known, but not installed? The host then starts without: turns stay unpriced."""
    found = plugins.providers["prices"].get(settings.use.prices)
    return found is not None and found.missing is not None


def check_selected(plugins: Plugins, settings: Settings) -> None:
    """Raise what opening the selected providers would, without opening one."""
    for kind, name in _selected(plugins, settings):
        table, check = _table(plugins, settings, kind, name), plugins.provider(kind, name).check
        if check is not None:
            _checked(plugins, settings, kind, name, partial(check, table))


def _checked(plugins: Plugins, settings: Settings, kind: str, name: str, check: Callable[[], None]) -> None:
    """That of a third party is bounded, and what it raises otherwise is its fault."""
    plugin = plugins.third_party(kind, name)
    if plugin is None:
        check()
        return
    try:
        in_thread(check, settings.plugins.start_timeout_s, plugin)
    except StartupError:
        raise
    except FAULTS as error:
        raise PluginError(
            f"[{kind}.{name}] cannot be checked: plugin {plugin!r}: {describe(error)}; mend or update the plugin"
        ) from error


def _selected(plugins: Plugins, settings: Settings) -> Iterator[tuple[str, str]]:
    for kind in ("store", "bus", "runtime", "authenticator"):
        yield kind, getattr(settings.use, kind)
    if not has_no_library(plugins, settings):
        yield "prices", settings.use.prices
    yield from (("telemetry", name) for name in settings.use.telemetry)
    yield from (("runtime", name) for name in chosen(settings.runtime) if name != settings.use.runtime)


def _table(plugins: Plugins, settings: Settings, kind: str, name: str) -> Any:
    provider = plugins.provider(kind, name)
    raw = getattr(settings, kind).get(name, {})
    if provider.settings is not None:
        return decode_table(kind, name, raw, provider.settings)
    if raw:
        raise SettingsError(f"[{kind}.{name}] has no settings; remove {sorted(raw)[0]!r}")
    return None
