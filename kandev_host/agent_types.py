"""The agents that can be started: what plugins bring, changed and added to by the settings."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec.structs import replace

from kandev_host.errors import SettingsError
from kandev_host.interfaces import AgentType
from kandev_host.settings import AgentOverride


def effective(found: Mapping[str, AgentType], overrides: Mapping[str, AgentOverride]) -> dict[str, AgentType]:
    """Every agent type by name; tables of `env`, `files` and `options` add to the plugin's, everything else replaces
    it.

    Raises `SettingsError` for a new one without a command, or for a log-in file that it does not have.
    """
    types = dict(found)
    for name, override in overrides.items():
        types[name] = _changed(name, types.get(name), override)
    return dict(sorted(types.items()))


def _changed(name: str, known: AgentType | None, override: AgentOverride) -> AgentType:
    set_fields = {key: value for key, value in msgspec.structs.asdict(override).items() if value is not None}
    if known is None:
        if not override.command:
            raise SettingsError(f'[agents.{name}] is no known agent; to add it, give it a command = ["…"]')
        known = AgentType(name=name, command=override.command)
    # By key: a variable of the user's must not drop those that make the agent ask.
    if override.env is not None:
        set_fields["env"] = {**known.env, **override.env}
    if override.files is not None:
        set_fields["files"] = {**known.files, **override.files}
    if override.options is not None:
        set_fields["options"] = {**known.options, **override.options}
    changed = replace(known, **set_fields)
    strangers = sorted(set(changed.share_login) - set(changed.login_files))
    if strangers:
        offered = ", ".join(changed.login_files) or "none"
        raise SettingsError(f"[agents.{name}] share_login names {strangers[0]!r}; its login_files are: {offered}")
    return changed
