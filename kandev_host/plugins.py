"""Plugins: found through entry points of group `kandev`, checked, collected by name.

A misspelt hook, a duplicate name or an unknown selected name stops the start (`PluginError`, with the fix). A plugin
that raises, or does not answer in time, is listed as broken, with its reason, and the host goes on; unless the settings
select something of it. Those that come with the host are called directly, others in a thread of their own (`bounded`).
"""

from __future__ import annotations

import difflib
import inspect
import logging
from collections.abc import Callable, Iterable
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

import msgspec
import pluggy
from msgspec.structs import replace

from kandev_host import hookspecs
from kandev_host.bounded import FAULTS, in_thread
from kandev_host.errors import PluginError
from kandev_host.interfaces import Action, AgentType, Provider, Route
from kandev_host.plugin_calls import PluginCall, describe, handler_of, named
from kandev_host.plugin_checks import KNOWN, answer_of, check_hooks, items_of
from kandev_host.settings import PluginsSettings
from kandev_host.version import __version__

log = logging.getLogger(__name__)

GROUP = "kandev"
CORE = "core"
HOST_DISTRIBUTION = "kandev-host"
State = Literal["active", "disabled", "broken", "unavailable"]
# Provider hooks, and the word of [use] for what they provide.
PROVIDERS = {
    "kandev_runtimes": "runtime",
    "kandev_stores": "store",
    "kandev_buses": "bus",
    "kandev_authenticators": "authenticator",
    "kandev_telemetry": "telemetry",
    "kandev_prices": "prices",
}


class PluginInfo(msgspec.Struct):
    """One line of `kandev-host plugins`. `provides` maps a kind (runtime, agent, action…) to names."""

    name: str
    distribution: str | None = None
    version: str | None = None
    provides: dict[str, list[str]] = msgspec.field(default_factory=dict)
    state: State = "active"
    reason: str | None = None

    def told(self) -> dict[str, Any]:
        """As host.info tells it."""
        return {name: getattr(self, name) for name in self.__struct_fields__}


class Plugins:
    """What the plugins bring, by name. Actions and the like are collected once services stand."""

    def __init__(self, manager: pluggy.PluginManager, infos: list[PluginInfo], settings: PluginsSettings) -> None:
        self._manager = manager
        self._settings = settings
        self._infos = {info.name: info for info in sorted(infos, key=lambda info: (info.name != CORE, info.name))}
        self.agent_types: dict[str, AgentType] = {}
        self.providers: dict[str, dict[str, Provider[Any, Any]]] = {kind: {} for kind in PROVIDERS.values()}
        owners: dict[tuple[str, str], str] = {}
        for item, plugin in self._collect("kandev_agent_types", AgentType):
            self._own(owners, plugin, "agent", item.name)
            self.agent_types[item.name] = item
        for hook, kind in PROVIDERS.items():
            for provider, plugin in self._collect(hook, Provider):
                self._own(owners, plugin, kind, provider.name)
                self.providers[kind][provider.name] = provider
        self._owners = owners
        self._drop_broken(owners)
        self._note_other_hooks()
        self._mark_unavailable()

    @property
    def infos(self) -> list[PluginInfo]:
        """Every plugin found, the core first, then by name."""
        return list(self._infos.values())

    def provider(self, kind: str, name: str) -> Provider[Any, Any]:
        """The selected provider. Raises `PluginError` if it is unknown, not installed, or its plugin is broken."""
        found = self.providers[kind].get(name)
        if found is None:
            raise PluginError(self._unknown(kind, name))
        if found.missing:
            raise PluginError(
                f'[use] {kind} = "{name}" needs a library that is not installed: {install(found.missing)}'
            )
        return found

    def third_party(self, kind: str, name: str) -> str | None:
        """The plugin that provides it, if that is none of the host's own."""
        plugin = self._owners.get((kind, name))
        return None if plugin is None or self._is_ours(plugin) else plugin

    def _is_ours(self, plugin: str) -> bool:
        return self._infos[plugin].distribution == HOST_DISTRIBUTION

    def actions(self, services: Any) -> list[Action[Any]]:
        """Every action of every plugin, the core's first. Raises `PluginError` for a name that two plugins claim."""
        owners: dict[tuple[str, str], str] = {}
        actions = []
        for action, plugin in self._collect("kandev_actions", Action, services=services):
            self._own(owners, plugin, "action", action.name)
            actions.append(action if self._is_ours(plugin) else self._bounded(action, plugin))
        return actions

    def _bounded(self, action: Action[Any], plugin: str) -> Action[Any]:
        timeout_s, failed = self._settings.hook_timeout_s, partial(self.broken, plugin)
        return replace(action, handler=handler_of(plugin, action.name, action.handler, timeout_s, failed))

    def routes(self, services: Any) -> list[Route]:
        """Extra HTTP routes. Raises `PluginError` for a path that two plugins claim."""
        from kandev_host.gateway.guard import HTTP_ANSWERS

        owners: dict[tuple[str, str], str] = {}
        routes = []
        for route, plugin in self._collect("kandev_routes", Route, services=services):
            what = f"{route.method} {route.path}"
            self._own(owners, plugin, "route", what)
            if not self._is_ours(plugin):
                handler = named(what, route.handler, partial(self.broken, plugin), HTTP_ANSWERS)
                route = replace(route, handler=handler)  # noqa: PLW2901
            routes.append(route)
        return routes

    def lifespans(self, services: Any) -> list[tuple[str, Any]]:
        """Background work, each with the name of its plugin."""
        return [(plugin, item) for item, plugin in self._collect("kandev_lifespan", object, services=services)]

    def per_request(self, hook: str) -> list[tuple[str, Callable[..., Any]]]:
        """The implementations of a hook that is called while the host runs, each with the name of its plugin.

        They take the hook's arguments by position, all of them; those of third parties are to be awaited. One that
        raises, or is not done in time, is noted, and raises `Unavailable`.
        """
        return [(impl.plugin_name, self._contained(impl, hook)) for impl in self._implementations(hook)]

    def _contained(self, impl: pluggy.HookImpl, hook: str) -> Callable[..., Any]:
        names = tuple(inspect.signature(getattr(hookspecs, hook)).parameters)
        by_keyword = _by_keyword(impl)

        def call(*values: Any) -> Any:
            return answer_of(by_keyword(**dict(zip(names, values, strict=True))), hook)

        if self._is_ours(impl.plugin_name):
            return call
        failed = partial(self.broken, impl.plugin_name)
        return PluginCall(impl.plugin_name, hook, call, timeout_s=self._settings.hook_timeout_s, failed=failed)

    def broken(self, plugin: str, reason: str) -> None:
        """Note that a plugin failed; a failure of the core itself is the host's. Raises `PluginError` for that."""
        if plugin == CORE:
            raise PluginError(f"the host's own plugin failed: {reason}")
        log.warning("plugin %s is broken: %s", plugin, reason)
        info = self._infos[plugin]
        info.state, info.reason = "broken", reason

    def _implementations(self, hook: str) -> list[pluggy.HookImpl]:
        """Oldest registration first: the core, then by name."""
        implementations: list[pluggy.HookImpl] = getattr(self._manager.hook, hook).get_hookimpls()
        return [impl for impl in implementations if self._infos[impl.plugin_name].state == "active"]

    def _collect(self, hook: str, kind: type[Any], **arguments: Any) -> Iterable[tuple[Any, str]]:
        for impl in self._implementations(hook):
            try:
                items = self._called(impl, kind, hook, arguments)
            except FAULTS as error:  # a plugin's own fault, of any kind, is contained here
                self.broken(impl.plugin_name, f"{hook}: {describe(error)}")
                continue
            for item in items:
                yield item, impl.plugin_name

    def _called(self, impl: pluggy.HookImpl, kind: type[Any], hook: str, arguments: dict[str, Any]) -> list[Any]:
        def items() -> list[Any]:
            return items_of(_by_keyword(impl)(**arguments), kind, hook)

        if self._is_ours(impl.plugin_name):
            return items()
        return in_thread(items, self._settings.hook_timeout_s, impl.plugin_name)

    def _own(self, owners: dict[tuple[str, str], str], plugin: str, kind: str, name: str) -> None:
        first = owners.setdefault((kind, name), plugin)
        names = self._infos[plugin].provides.setdefault(kind, [])
        if first != plugin or name in names:
            raise PluginError(
                f"{kind} {name!r} is provided by plugin {first!r} and by plugin {plugin!r};"
                f' block one of them: [plugins] disabled = ["{plugin}"]'
            )
        names.append(name)

    def _unknown(self, kind: str, name: str) -> str:
        known = sorted(self.providers[kind])
        close = difflib.get_close_matches(name, known, n=1)
        near = f"; did you mean {close[0]!r}?" if close else ""
        lost = "".join(
            f"; plugin {info.name!r} is {info.state}" + (f" ({info.reason})" if info.reason else "")
            for info in self.infos
            if info.state in ("broken", "disabled")
        )
        return f'[use] {kind} = "{name}": no plugin provides it; there are {", ".join(known) or "none"}{near}{lost}'

    def _drop_broken(self, owners: dict[tuple[str, str], str]) -> None:
        for (kind, name), plugin in owners.items():
            info = self._infos[plugin]
            if info.state == "broken":
                info.provides.clear()
                (self.agent_types if kind == "agent" else self.providers[kind]).pop(name)

    def _note_other_hooks(self) -> None:
        collected = {"kandev_agent_types", *PROVIDERS}
        for hook in KNOWN.keys() - collected:
            for impl in self._implementations(hook):
                self._infos[impl.plugin_name].provides.setdefault("hooks", []).append(hook)
        for info in self._infos.values():
            info.provides.get("hooks", []).sort()

    def _mark_unavailable(self) -> None:
        missing = {
            (kind, provider.name): provider.missing
            for kind, providers in self.providers.items()
            for provider in providers.values()
            if provider.missing
        }
        for info in self._infos.values():
            names = [(kind, name) for kind, provided in info.provides.items() for name in provided]
            if info.state == "active" and names and all(name in missing for name in names):
                info.state, info.reason = "unavailable", install(missing[names[0]] or "")


def load_plugins(settings: PluginsSettings | None = None, *, found: Iterable[EntryPoint] | None = None) -> Plugins:
    """Import, check and collect all plugins that are not disabled. Raises `PluginError`."""
    settings = settings or PluginsSettings()
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    from kandev_host import core

    manager.register(core, CORE)
    infos = [PluginInfo(CORE, HOST_DISTRIBUTION, __version__)]
    blocked = set(settings.disabled)
    points = _distinct(entry_points(group=GROUP) if found is None else found)
    for name, point in sorted(points.items()):
        owner = point.dist
        info = PluginInfo(name, owner.name if owner else None, owner.version if owner else None)
        infos.append(info)
        if name in blocked:
            info.state, info.reason = "disabled", "by [plugins] disabled"
        else:
            _register(manager, point, info, settings.start_timeout_s)
    unknown = blocked - points.keys()
    if unknown:
        raise PluginError(
            f"[plugins] disabled names {sorted(unknown)[0]!r}; the plugins are {', '.join(sorted(points))}"
        )
    return Plugins(manager, infos, settings)


def provider_settings(found: Iterable[EntryPoint] | None = None) -> dict[tuple[str, str], type[Any]]:
    """The settings type of every provider that has one, by (kind, name). Raises `PluginError`."""
    providers = load_plugins(found=found).providers
    return {
        (kind, name): provider.settings
        for kind, named in providers.items()
        for name, provider in sorted(named.items())
        if provider.settings is not None
    }


def install(extra: str) -> str:
    """The command that brings a missing extra, given as `docker` or `kandev-host[docker]`."""
    return f"pip install '{extra if '[' in extra else f'kandev-host[{extra}]'}'"


def _distinct(found: Iterable[EntryPoint]) -> dict[str, EntryPoint]:
    points: dict[str, EntryPoint] = {}
    for point in found:
        other = points.setdefault(point.name, point)
        if other is not point or point.name == CORE:
            owners = [item.dist.name if item.dist else item.value for item in (other, point)]
            first = "the host itself" if point.name == CORE else owners[0]
            raise PluginError(f"plugin {point.name!r} comes from {first} and from {owners[1]}; uninstall one of them")
    return points


def _register(manager: pluggy.PluginManager, point: EntryPoint, info: PluginInfo, timeout_s: float) -> None:
    def loaded() -> Any:
        plugin = point.load()
        check_hooks(plugin, info.name)
        return plugin

    try:
        plugin = loaded() if info.distribution == HOST_DISTRIBUTION else in_thread(loaded, timeout_s, info.name)
    except PluginError:
        raise
    except FAULTS as error:  # whatever an import does, it is the plugin's fault
        info.state, info.reason = "broken", f"{point.value}: {describe(error)}"
        log.warning("plugin %s is broken: %s", info.name, info.reason)
        return
    if manager.is_blocked(info.name) or manager.get_name(plugin) is not None:
        raise PluginError(f"plugin {info.name!r} is the same object as plugin {manager.get_name(plugin)!r}")
    manager.register(plugin, info.name)


def _by_keyword(impl: pluggy.HookImpl) -> Callable[..., Any]:
    def call(**arguments: Any) -> Any:
        return impl.function(*(arguments[name] for name in impl.argnames))

    return call
