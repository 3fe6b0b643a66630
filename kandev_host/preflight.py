"""What a start would refuse of the settings, found without starting: `config check`, `doctor` and each reload look."""

from __future__ import annotations

from pathlib import Path

from kandev_host.agent_types import effective
from kandev_host.gateway.certificate import Certificate
from kandev_host.gateway.listening import check_address
from kandev_host.plugins import load_plugins
from kandev_host.selection import check_selected
from kandev_host.services.credentials.choice import check_repositories
from kandev_host.services.directories import Directories
from kandev_host.settings import Settings


def check(settings: Settings, data_dir: Path) -> None:
    """Raise the `StartupError` that a start with these settings would. Reads files: not for the event loop."""
    check_address(settings.server)
    Certificate.of(settings.server)
    check_parts(settings, data_dir)


def check_parts(settings: Settings, data_dir: Path) -> None:
    """The same without address and certificate."""
    plugins = load_plugins(settings.plugins)
    effective(plugins.agent_types, settings.agents)
    check_selected(plugins, settings)
    Directories(settings.directories, data_dir)
    check_repositories(settings.credentials)
