"""Settings from environment variables: KANDEV_SERVER__PORT, and the names of the Kandev plan (its section 12)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from kandev_host.errors import SettingsError
from kandev_host.settings import AgentOverride, RawTables
from kandev_host.settings.keys import Entry, KeyPath, Text, all_keys, children

PREFIX = "KANDEV_"
NOT_SETTINGS = {
    "KANDEV_HOME": "the data folder",
    "KANDEV_CONFIG": "the settings file",
    "KANDEV_BWRAP": "the bwrap to try first",
    "KANDEV_URL": "the host that the command line talks to",
    "KANDEV_TOKEN": "the token that the command line sends",
}
ALIASES: dict[str, KeyPath] = {
    "SERVER_HOST": ("server", "host"),
    "SERVER_PORT": ("server", "port"),
    "LOG_LEVEL": ("log", "level"),
    "LOG_FORMAT": ("log", "format"),
    "LOG_OUTPUT_PATH": ("log", "path"),
    "NATS_URL": ("bus", "nats", "url"),
    "DOCKER_HOST": ("runtime", "docker", "socket"),
    "JWT_SECRET": ("authenticator", "users", "secret"),
    "TOKEN_DURATION": ("authenticator", "users", "token_lifetime_s"),
    "DB_HOST": ("store", "postgresql", "host"),
    "DB_PORT": ("store", "postgresql", "port"),
    "DB_USER": ("store", "postgresql", "user"),
    "DB_PASSWORD": ("store", "postgresql", "password"),
    "DB_NAME": ("store", "postgresql", "database"),
    "DB_SSL_MODE": ("store", "postgresql", "ssl_mode"),
}
MEANINGLESS = {
    "NATS_CLUSTER_ID": "it named a cluster of NATS Streaming, which JetStream replaced",
    "NATS_CLIENT_ID": "it named a client of NATS Streaming, which JetStream replaced",
    "DOCKER_API_VERSION": "the version of its API is agreed upon with the engine",
    "DOCKER_DEFAULT_NETWORK": "what an agent may reach is said by the network and allow of its type",
    "DOCKER_VOLUME_BASE_PATH": "workspaces are kept under KANDEV_HOME, never in a shared folder",
}
_WORDS = (("log", "level"), ("log", "format"))
# What these were set to for other programs, often enough, in the spelling of those.
_SPELLINGS = {"warn": "warning", "critical": "error", "fatal": "error", "trace": "debug", "console": "text"}


def from_environment(environ: Mapping[str, str], agent_names: Iterable[str]) -> tuple[list[Entry], list[str]]:
    """Entries of KANDEV_… and of the plan's names (which KANDEV_… beats), and notes on what has no effect.

    `agent_names` are the tables in the file: KANDEV_AGENTS__MY_AGENT__… finds `my-agent` among them.
    """
    by_variable = {_as_variable(name): name for name in agent_names}
    entries = [_own(name, value, by_variable) for name, value in sorted(environ.items()) if _is_own(name)]
    taken = {entry.path for entry in entries}
    notes = [f"{name} has no effect: {why}" for name, why in MEANINGLESS.items() if environ.get(name)]
    aliases = []
    for name, path in ALIASES.items():
        value = environ.get(name)
        if value and path not in taken:
            spelled = _SPELLINGS.get(value.lower(), value.lower()) if path in _WORDS else value
            aliases.append(_alias(name, path, spelled))
            if len(path) == 3:
                notes.append(f"{name} is kept in [{path[0]}.{path[1]}]; [use] {path[0]} alone selects what is used")
    return aliases + entries, notes


def chosen(tables: RawTables) -> list[str]:
    """The provider tables that somebody wrote for kandev-host: not those that hold only what the plan's names brought.

    DOCKER_HOST is set on many machines, for other programs.
    """
    return [
        name
        for name, table in tables.items()
        if not table or any(not (isinstance(value, Text) and value.source in ALIASES) for value in table.values())
    ]


def variable(path: KeyPath) -> str:
    """The variable of a key: KANDEV_SERVER__PORT."""
    return PREFIX + "__".join(_as_variable(part).upper() for part in path)


def _is_own(name: str) -> bool:
    return name.startswith(PREFIX) and name not in NOT_SETTINGS


def _alias(name: str, path: KeyPath, value: str) -> Entry:
    entry = Entry(path, value, name, text=True)
    try:
        entry.checked()
    except SettingsError as error:
        raise SettingsError(f"{error}; unset it, or set {variable(path)}, which goes before it") from error
    return entry


def _own(name: str, value: str, agents: Mapping[str, str]) -> Entry:
    path = tuple(part.lower() for part in name.removeprefix(PREFIX).split("__"))
    if len(path) == 3 and path[0] == "agents":
        path = (path[0], agents.get(path[1], path[1].replace("_", "-")), path[2])
    entry = Entry(path, value, name, text=True)
    if len(path) < 2 or not all(path):
        raise _unknown(name)
    try:
        entry.checked()
    except SettingsError as error:
        if "is not a setting" in str(error):
            raise _unknown(name) from error
        raise
    return entry


def _unknown(name: str) -> SettingsError:
    known = {_bare(variable(path)): variable(path) for path in all_keys()} | {
        _bare(item): item for item in NOT_SETTINGS
    }
    if name.startswith(f"{PREFIX}AGENTS__"):
        start = name.rpartition("__")[0]
        known = {_bare(f"{start}_{key.upper()}"): f"{start}__{key.upper()}" for key in children(AgentOverride)}
    match = difflib.get_close_matches(_bare(name), list(known), n=1)
    hint = f"; did you mean {known[match[0]]}?" if match else "; see: kandev-host config init --stdout"
    return SettingsError(f"{name} is not a setting{hint}")


def _bare(name: str) -> str:
    """What tells one variable from another."""
    return name.removeprefix(PREFIX).replace("__", "_")


def _as_variable(name: str) -> str:
    return name.replace("-", "_").lower()
