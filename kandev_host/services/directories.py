"""The folders of the settings, and which of them an agent sees beside its workspace: those of its type and its task."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from kandev_host.errors import Conflict, SettingsError
from kandev_host.interfaces import AgentType, Mount, Runtime
from kandev_host.models import Task
from kandev_host.services.named import check_names
from kandev_host.settings import DirectorySettings

INSIDE = "/directories"


class Directories:
    """`private` is the host's own folder: no agent may see the token that is in it."""

    def __init__(self, settings: Mapping[str, DirectorySettings], private: Path | None = None) -> None:
        """Raises `SettingsError` for a folder that shows too much, or that an agent could move elsewhere."""
        self._settings = settings
        self._private = None if private is None else private.resolve()
        places = {name: (_real(item), item.read_only is not False) for name, item in settings.items()}
        for name, (place, _) in places.items():
            self._check(name, place)
            for other, (outer, read_only) in places.items():
                if name != other and not read_only and place.is_relative_to(outer):
                    raise SettingsError(f"[directories.{name}] lies in [directories.{other}], which agents may change")

    def check(self, names: Sequence[str]) -> tuple[str, ...]:
        """Raises `ValidationFailed` for a name that is not in the settings."""
        return check_names("directories", names, self._settings)

    def of(self, agent_type: AgentType, task: Task, runtime: Runtime) -> tuple[tuple[Mount, ...], tuple[str, ...]]:
        """How they are bound for an agent that starts now, and their paths as it sees them.

        Without a jail nothing is bound, and the paths are the user's own. Raises `ValidationFailed` for a name that is
        gone, and `Conflict` for a folder that is.
        """
        mounts, paths = [], []
        for name in self.check((*agent_type.directories, *task.directories)):
            place = _real(self._settings[name])
            try:
                self._check(name, place)
            except SettingsError as error:  # a link on the way to it leads elsewhere by now
                raise Conflict(str(error), state="private") from error
            if not place.is_dir():
                raise Conflict(f"The directory {name!r} is not there: {place} is no folder", state="missing")
            inside = f"{INSIDE}/{name}"
            mounts.append(Mount(str(place), inside, self._settings[name].read_only is not False))
            paths.append(inside if runtime.confines else str(place))
        return tuple(mounts), tuple(paths)

    def _check(self, name: str, place: Path) -> None:
        for kept, what in ((Path.home().resolve(), "your home"), (self._private, "the host's own folder")):
            if kept is not None and kept.is_relative_to(place):
                raise SettingsError(f"[directories.{name}] {place} would show {what}; name the one folder it needs")
        if self._private is not None and place.is_relative_to(self._private):
            raise SettingsError(f"[directories.{name}] {place} is in the host's own folder")


def _real(settings: DirectorySettings) -> Path:
    return Path(os.path.realpath(os.path.expanduser(settings.path or "")))
