"""What several subcommands share: the options that choose settings, and how they are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from kandev_host.errors import SettingsError
from kandev_host.printable import printable
from kandev_host.settings import Settings
from kandev_host.settings.load import Loaded, data_home, load

F = TypeVar("F", bound=Callable[..., Any])

_config = click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="Settings file to read.")
_data_dir = click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Data folder [default: KANDEV_HOME or ~/.kandev].",
)
_debug = click.option("--debug", is_flag=True, expose_value=False, help="Show the whole trace of an unexpected error.")
states = click.Choice(["TODO", "IN_PROGRESS", "BLOCKED", "COMPLETED", "FAILED", "CANCELLED"], case_sensitive=False)
presets = click.Choice(["ask", "read-only", "contained", "unattended"])
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


def settings_options(command: F) -> F:
    """--config, --data-dir and --debug; the command takes `config` and `data_dir`."""
    return _config(_data_dir(_debug(command)))


def load_settings(config: Path | None, data_dir: Path | None, **flags: Any) -> Loaded:
    """Settings with these flags on top (`server__port=1`), telling on stderr what has no effect."""
    loaded = load(config=config, data_dir=data_dir, flags={key.replace("__", "."): flag for key, flag in flags.items()})
    for note in loaded.notes:
        if "has no effect" in note:
            click.echo(f"Note: {note}", err=True)
    return loaded


def place(config: Path | None, data_dir: Path | None) -> Loaded:
    """As `load_settings`, for what must work with settings that are wrong: then with the defaults."""
    try:
        return load_settings(config, data_dir)
    except SettingsError as error:
        click.echo(f"Note: the settings are wrong ({printable(str(error))})", err=True)
        return Loaded(Settings(), data_home(data_dir))


def example(text: str) -> str:
    """An epilog that click does not wrap."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in text.strip().splitlines())
