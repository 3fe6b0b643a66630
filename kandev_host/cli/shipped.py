"""The files of config/, which come with the host to be copied or handed to other programs."""

from __future__ import annotations

from pathlib import Path

import kandev_host
from kandev_host.errors import StartupError


def shipped(name: str) -> Path:
    """The path of one, in a checkout or as it was installed. Raises `StartupError`."""
    package = Path(kandev_host.__file__).resolve().parent
    for folder in (package / "config", package.parent / "config"):
        if (folder / name).exists():
            return folder / name
    raise StartupError(f"config/{name} did not come with this installation: install kandev-host again")
