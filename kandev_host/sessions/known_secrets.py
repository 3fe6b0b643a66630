"""Which of the values that an agent is given are secrets."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise

from kandev_host.interfaces import AgentType
from kandev_host.secrets import looks_secret, register

# What configures and opens nothing: a word, a number, a path, an address without a long part in which a key may be.
_PLAIN = re.compile(r"[A-Za-z]{1,15}|[0-9]{1,12}|[~.]?/.*|https?://[^/?#@]+(?:/[\w.-]{0,20}){0,3}")
_PLAIN_NAMES = ("_model", "_host", "_port", "_region", "_project", "_location", "_mode")


def known_secrets(agent_type: AgentType, env: Mapping[str, str], more: Collection[str] = ()) -> frozenset[str]:
    """The values that an agent of this type is given and nobody else is to see.

    Those are the values of `env` whose names look like it; what else comes from the host's environment, and `more`,
    but for models, addresses, paths, words and numbers; and the values of options of its command that are named so.
    """
    named = {value for name, value in (*env.items(), *_options(agent_type.command)) if looks_secret(name)}
    given = {*agent_type.env_required, *agent_type.env_optional}
    others = {value for name, value in env.items() if name in given and not name.lower().endswith(_PLAIN_NAMES)}
    return frozenset(
        value for value in {*named, *(each for each in {*others, *more} if not _PLAIN.fullmatch(each))} if value
    )


def _options(command: Sequence[str]) -> Iterator[tuple[str, str]]:
    """--name=value and --name value."""
    for word, following in pairwise((*command, "")):
        name, equals, value = word.partition("=")
        if name.startswith("-"):
            value = value if equals else following
            if not value.startswith(("-", "/")):
                yield name, value


def register_secrets(agent_type: AgentType, env: Mapping[str, str], more: Collection[str] = ()) -> None:
    """Before anything is started with them."""
    for value in known_secrets(agent_type, env, more):
        register(value, f"given to {agent_type.name}")
