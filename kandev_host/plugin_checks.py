"""What a plugin may look like: known hooks with known arguments, marked, and returning what they promise."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kandev_host import hookspecs
from kandev_host.errors import PluginError
from kandev_host.interfaces import Decision, LaunchExtras

KNOWN: Mapping[str, Callable[..., Any]] = {
    name: function for name, function in vars(hookspecs).items() if name.startswith("kandev_")
}

ANSWERS: Mapping[str, type[Any]] = {
    "kandev_permission_policy": Decision,
    "kandev_prepare_launch": LaunchExtras,
    "kandev_turn_policy": Decision,
}
EFFECTS = ("allow", "ask", "deny")


def check_hooks(plugin: Any, name: str) -> None:
    """Refuse a hook that would never be called, or not with these arguments. Raises `PluginError` with the fix."""
    home = plugin.__name__ if inspect.ismodule(plugin) else None
    fix = f'fix the plugin, or block it: [plugins] disabled = ["{name}"]'
    for attribute, value in inspect.getmembers(plugin, inspect.isroutine):
        marks = getattr(value, f"{hookspecs.PROJECT}_impl", None)
        ours = attribute.startswith("kandev_") and (home is None or getattr(value, "__module__", home) == home)
        if marks is None and not ours:
            continue
        hook = (marks or {}).get("specname") or attribute
        if hook not in KNOWN:
            close = difflib.get_close_matches(hook, list(KNOWN), n=1)
            meant = f"did you mean {close[0]}?" if close else f"the hooks are {', '.join(KNOWN)}"
            raise PluginError(f"plugin {name!r}: {hook} is not a hook; {meant} ({fix})")
        if marks is None:
            raise PluginError(f"plugin {name!r}: {hook} lacks @hookimpl ({fix})")
        if marks.get("wrapper") or marks.get("hookwrapper"):
            raise PluginError(f"plugin {name!r}: {hook} is a wrapper; hooks return data here ({fix})")
        _check_arguments(value, KNOWN[hook], f"plugin {name!r}: {hook}", fix)


def items_of(returned: Any, kind: type[Any], hook: str) -> list[Any]:
    """A hook returns several, one, or none. Raises `TypeError` for anything else than `kind`."""
    if returned is None:
        return []
    several = isinstance(returned, Iterable) and not isinstance(returned, kind | Mapping | str)
    items = list(returned) if several else [returned]
    for item in items:
        if not isinstance(item, kind):
            raise TypeError(f"{hook} returned {type(item).__name__}, not {kind.__name__}")
    return items


def answer_of(returned: Any, hook: str) -> Any:
    """What a hook that is called per request returned. Raises `TypeError` for what would not be understood."""
    kind = ANSWERS[hook]
    if returned is not None and not isinstance(returned, kind):
        raise TypeError(f"{hook} returned {type(returned).__name__}, not {kind.__name__}")
    if isinstance(returned, Decision) and returned.effect not in EFFECTS:
        raise TypeError(f"{hook} decided {returned.effect!r}; there are {', '.join(EFFECTS)}")
    return returned


def _check_arguments(implementation: Callable[..., Any], spec: Callable[..., Any], what: str, fix: str) -> None:
    given = list(inspect.signature(spec).parameters)
    taken = [item.name for item in inspect.signature(implementation).parameters.values() if item.default is item.empty]
    wrong = [item for item in taken if item not in given]
    if wrong:
        raise PluginError(f"{what} takes {wrong[0]!r}; the hook gives ({', '.join(given)}) ({fix})")
