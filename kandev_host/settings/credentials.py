"""What of the user's own log-ins agents may use, and how: an agent type or a task names a table."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Literal

from msgspec import Meta

from kandev_host.settings.base import Table

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OWN = "KANDEV_"
_FOLDERS = ("~", "~/.ssh", "~/.gnupg", "~/.config")


class CredentialSettings(Table, frozen=True, kw_only=True):
    """One of three ways, safest first: git through the host, variables of the host's environment, files of your home.

    With git, no secret enters the jail. A variable or a file can be read there, and so passed on.
    """

    git: Annotated[
        Literal["fetch", "push"] | None,
        Meta(description="What git may do with one repository, through the host, which logs in; push is also fetch."),
    ] = None
    repository: Annotated[
        str | None, Meta(description="With git: its https:// or ssh URL. Unless given, that of the task.")
    ] = None
    variables: Annotated[
        tuple[str, ...] | None, Meta(description="Variables of the host's environment; it refuses to start without.")
    ] = None
    files: Annotated[
        tuple[str, ...] | None,
        Meta(description="Files of your home, as in ~/.gitconfig, read-only at the same place: no whole folders."),
    ] = None
    open_network: Annotated[
        bool | None,
        Meta(description="With files: even for an agent that reaches the whole network? Unless true, it refuses."),
    ] = None
    agent_types: Annotated[
        tuple[str, ...] | None, Meta(description="Agent types that may have it. Unless given, any that is named it.")
    ] = None

    def __post_init__(self) -> None:
        """Raise `ValueError` for one that is not exactly one of the three, or that would hand out too much."""
        ways = [name for name in ("git", "variables", "files") if getattr(self, name)]
        if len(ways) != 1:
            raise ValueError('a credential is one of git = "fetch", variables = [...] or files = [...]')
        if self.repository is not None and self.git is None:
            raise ValueError("repository goes with git")
        if self.open_network is not None and self.files is None:
            raise ValueError("open_network goes with files")
        for name in self.variables or ():
            if not _VARIABLE.fullmatch(name) or name.startswith(_OWN):
                raise ValueError(f"variables has {name!r}: name a variable, and none of the host's own ({_OWN}…)")
        for path in self.files or ():
            _check_file(path)


def _check_file(path: str) -> None:
    parts = path.split("/")
    if not path.startswith("~/") or "\0" in path or any(part in {"", ".", ".."} for part in parts[1:]):
        raise ValueError(f"files has {path!r}: name files below your home, as in ~/.gitconfig")
    if str(PurePosixPath(path)) in _FOLDERS:
        raise ValueError(f"files has {path!r}, a whole folder: name the files of it that are needed")
