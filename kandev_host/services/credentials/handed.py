"""What an agent that starts is handed of the user's credentials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kandev_host.interfaces import Mount

COUNT = "GIT_CONFIG_COUNT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Handed:
    """`env`, `mounts` and `allow` go into its `ProcessSpec`, `git_config` into the environment of its git; `secrets`
    are the values of it that nobody else is to see."""

    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    mounts: tuple[Mount, ...] = ()
    allow: tuple[str, ...] = ()
    git_config: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    secrets: frozenset[str] = field(default=frozenset(), repr=False)

    def over(self, env: Mapping[str, str]) -> dict[str, str]:
        """That environment with what is handed out; settings of git go behind those that are there (git-config)."""
        found = {**env, **self.env}
        if not self.git_config:
            return found
        first = int(found.get(COUNT, "0")) if found.get(COUNT, "0").isdecimal() else 0
        for index, (key, value) in enumerate(self.git_config, first):
            found[f"GIT_CONFIG_KEY_{index}"] = key
            found[f"GIT_CONFIG_VALUE_{index}"] = value
        return {**found, COUNT: str(first + len(self.git_config))}


NOTHING = Handed()
