"""Defaults < TOML file < environment < flags: one `Settings`, and where each of its values came from.

Every error is one line that names the key, the place it stands in, and what was expected.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from kandev_host.errors import SettingsError
from kandev_host.settings import Settings
from kandev_host.settings.environment import from_environment
from kandev_host.settings.keys import (
    Entry,
    KeyPath,
    Text,
    children,
    convert,
    dotted,
    is_raw,
    struct_of,
    table_of,
    unknown,
)

DATA_MODE = 0o700
MISTAKES = 10
_HEADER = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]\s*(?:#.*)?$")
_KEY = re.compile(r"\s*([\w.\"'-]+)\s*=")
S = TypeVar("S")


class Loaded(msgspec.Struct, frozen=True):
    """`sources` says where a value came from, by key path (else it is a default); `notes` are for people."""

    settings: Settings
    data_dir: Path
    config_path: Path | None = None
    sources: Mapping[KeyPath, str] = msgspec.field(default_factory=dict)
    notes: tuple[str, ...] = ()


def load(
    *,
    config: Path | None = None,
    data_dir: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Loaded:
    """Read all layers. `flags` maps dotted keys to values (None is unset). Creates nothing.

    Raises `SettingsError`, which names all mistakes of the file that are mistakes alone, MISTAKES of them at most.
    """
    home = data_home(data_dir, environ)
    path = config_file(config, home, environ)
    entries = _entries_of(path) if path else []
    found, notes = from_environment(environ, _agent_names(entries))
    entries += found
    entries += [_flag(key, value) for key, value in (flags or {}).items() if value is not None]
    merged: dict[str, Any] = {}
    sources: dict[KeyPath, str] = {}
    for entry in entries:
        table = merged
        for name in entry.path[:-1]:
            table = table.setdefault(name, {})
        table[entry.path[-1]] = entry.checked()
        sources[entry.path] = entry.source
    with _told_by_line(path):
        settings = _whole(merged, path, sources)
    return Loaded(settings, home, path, sources, tuple(notes))


def _whole(merged: Mapping[str, Any], path: Path | None, sources: Mapping[KeyPath, str]) -> Settings:
    """Raises `SettingsError` for values that are right alone and wrong together, naming their table if it is one's."""
    try:
        return msgspec.convert(merged, Settings)
    except msgspec.ValidationError as error:
        for at, kind, content in _tables(merged):
            try:
                msgspec.convert(content, kind)
            except msgspec.ValidationError as inner:
                of = {source for key, source in sources.items() if key[: len(at)] == at}
                source = of.pop() if len(of) == 1 else path or "settings"
                raise SettingsError(f"{source}: {dotted(at)}: {str(inner).partition(' - at')[0]}") from error
        raise SettingsError(f"{path or 'settings'}: {str(error).replace('$.', '').replace('`', '')}") from error


def _tables(merged: Mapping[str, Any]) -> Iterator[tuple[KeyPath, Any, Any]]:
    """Each table with its type, those that users name one by one."""
    known = children(Settings)
    for name, content in merged.items():
        kind, inner = known[name], table_of(known[name])
        if struct_of(kind) is not None:
            yield (name,), kind, content
        elif inner is not None:
            yield from (((name, each), inner, of) for each, of in content.items())


def data_home(data_dir: Path | None = None, environ: Mapping[str, str] = os.environ) -> Path:
    """The data folder: as given, else KANDEV_HOME, else ~/.kandev. Absolute; it may not exist yet."""
    chosen = data_dir or Path(environ.get("KANDEV_HOME") or "~/.kandev")
    try:
        return Path(os.path.abspath(chosen.expanduser()))
    except RuntimeError as error:
        raise SettingsError(f"no home folder is known for this user ({error}); set KANDEV_HOME to a folder") from error


def prepare_data_dir(path: Path) -> Path:
    """Create the data folder with mode 0700; refuse one that others own or may enter. Raises `SettingsError`."""
    try:
        path.mkdir(mode=DATA_MODE, parents=True, exist_ok=True)
        status = path.stat()
    except OSError as error:
        raise SettingsError(f"cannot make the data folder {path}: {error.strerror}; set KANDEV_HOME") from error
    if status.st_uid != os.geteuid():
        raise SettingsError(f"the data folder {path} belongs to uid {status.st_uid}, not to you; set KANDEV_HOME")
    mode = status.st_mode & 0o777
    if mode & ~DATA_MODE:
        raise SettingsError(f"the data folder {path} is open to others (mode {mode:04o}): chmod 700 {path}")
    return path


def config_file(config: Path | None, home: Path, environ: Mapping[str, str] = os.environ) -> Path | None:
    """The settings file: --config, else KANDEV_CONFIG, else config.toml of the data folder if there is one."""
    asked = config or (Path(environ["KANDEV_CONFIG"]) if environ.get("KANDEV_CONFIG") else None)
    if asked is not None:
        if not _is_file(asked):
            raise SettingsError(f"no settings file {asked}; write one with: kandev-host config init")
        return asked
    usual = home / "config.toml"
    return usual if _is_file(usual) else None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except PermissionError as error:  # as with the HOME of another user, which sudo -u leaves in place
        raise SettingsError(f"cannot look at {path}: {error.strerror}; is HOME yours? Else set KANDEV_HOME") from error


def decode_table(kind: str, name: str, table: Mapping[str, Any], settings: type[S]) -> S:
    """A provider's raw table as its own settings type. Raises `SettingsError` naming the key and its nearest."""
    checked: dict[str, Any] = {}
    known = children(settings)
    for key, value in table.items():
        path = (kind, name, key)
        source = value.source if isinstance(value, Text) else f"[{kind}.{name}]"
        if key not in known:
            raise unknown(path, source, known)
        checked[key] = convert(Entry(path, value, source), known[key])
    try:
        return msgspec.convert(checked, settings)
    except msgspec.ValidationError as error:
        raise SettingsError(f"[{kind}.{name}]: {error}") from error


@contextmanager
def _told_by_line(path: Path | None) -> Iterator[None]:
    """An error of the file says in which line."""
    try:
        yield
    except SettingsError as error:
        place, message = _placed(path, str(error))
        if path is None or not place:
            raise
        raise SettingsError(f"{path}, {place}: {message}") from error


def _placed(path: Path | None, message: str) -> tuple[str, str]:
    """Where in the file that is, as `line 3`, or nothing, and the rest of the message."""
    start = f"{path}: "
    key = message.removeprefix(start).partition(" is not a setting")[0].partition(": ")[0]
    if path is None or not message.startswith(start) or not re.fullmatch(r"[\w.@/-]+", key):
        return "", message.removeprefix(start)
    line = line_of(path.read_text(encoding="utf-8"), tuple(key.split(".")))
    return "" if line is None else f"line {line}", message.removeprefix(start)


def _together(path: Path, mistakes: Sequence[SettingsError]) -> SettingsError:
    """All of them as one, by their lines."""
    placed = [_placed(path, str(mistake)) for mistake in mistakes]
    if len(placed) == 1:
        place, message = placed[0]
        return SettingsError(f"{path}{place and ', '}{place}: {message}")
    placed.sort(key=lambda each: int(each[0].removeprefix("line ") or 0))
    told = [f"({number}) {place}{place and ': '}{message}" for number, (place, message) in enumerate(placed, start=1)]
    more = f" and {len(told) - MISTAKES} more" if len(told) > MISTAKES else ""
    return SettingsError(f"{path}: {len(told)} mistakes: {' '.join(told[:MISTAKES])}{more}")


def line_of(text: str, path: KeyPath) -> int | None:
    """Where a TOML file sets this key, or begins its table; None where that is not to be seen without a parser."""
    table: KeyPath = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if found := _HEADER.match(line):
            table = _names(found[1])
            if table == path:
                return number
        elif (found := _KEY.match(line)) and (*table, *_names(found[1])) == path:
            return number
    return None


def _names(dotted_key: str) -> KeyPath:
    return tuple(part.strip().strip("\"'") for part in dotted_key.split("."))


def _flag(key: str, value: Any) -> Entry:
    path = tuple(key.split("."))
    return Entry(path, value, f"--{path[-1].replace('_', '-')}")


def _agent_names(entries: list[Entry]) -> set[str]:
    return {entry.path[1] for entry in entries if entry.path[0] == "agents"}


def _entries_of(path: Path) -> list[Entry]:
    """Raises `SettingsError`."""
    entries, mistakes = list[Entry](), list[SettingsError]()
    for found in _from_file(path):
        try:
            if isinstance(found, SettingsError):
                raise found
            found.checked()
            entries.append(found)
        except SettingsError as error:
            mistakes.append(error)
    if mistakes:
        raise _together(path, mistakes)
    return entries


def _from_file(path: Path) -> Iterator[Entry | SettingsError]:
    """What is in it, in order, and what should not be. Raises `SettingsError` for what cannot be read at all."""
    try:
        if path.stat().st_mode & 0o002:
            # Who may write this file chooses the programs that the host starts.
            raise SettingsError(f"{path} may be written by anyone: chmod o-w {path}")
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # also numbers and nesting that the parser gives up on
        raise SettingsError(f"{path}: not valid TOML: {error}") from error
    yield from _flat(table, children(Settings), (), str(path))


def _flat(table: Any, known: Mapping[str, Any], path: KeyPath, source: str) -> Iterator[Entry | SettingsError]:
    if not isinstance(table, dict):
        yield SettingsError(f"{source}: {dotted(path)}: expected a table, [{dotted(path)}]")
        return
    for key, value in table.items():
        here, kind = (*path, key), known.get(key)
        if kind is None:
            yield unknown(here, source, known)
        elif struct_of(kind) is not None:
            yield from _flat(value, children(kind), here, source)
        elif (inner := table_of(kind)) is not None:
            yield from _flat(value, dict.fromkeys(value, inner) if isinstance(value, dict) else {}, here, source)
        elif is_raw(kind):
            yield from _raw(value, here, source)
        else:
            yield Entry(here, value, source)


def _raw(tables: Any, path: KeyPath, source: str) -> Iterator[Entry | SettingsError]:
    """Those of providers, by name: what is in them is for their plugins to say."""
    if not isinstance(tables, dict):
        yield SettingsError(f"{source}: {dotted(path)}: expected a table, [{dotted(path)}]")
        return
    for name, content in tables.items():
        named = (*path, name)
        if not isinstance(content, dict):
            yield SettingsError(f"{source}: {dotted(named)}: expected a table, [{dotted(named)}]")
        elif content:
            yield from (Entry((*named, key), value, source) for key, value in content.items())
        else:
            yield Entry(named, {}, source)
