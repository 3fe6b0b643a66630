"""`kandev-host config show|path|init|check`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
import msgspec

from kandev_host.cli.options import as_json, example, load_settings, settings_options
from kandev_host.cli.output import emit
from kandev_host.errors import PluginError, SettingsError
from kandev_host.printable import printable
from kandev_host.settings.keys import KeyPath, is_secret
from kandev_host.settings.load import Loaded, data_home, prepare_data_dir

REDACTED = "[redacted]"


@click.group(
    epilog=example(
        "kandev-host config init\nKANDEV_SERVER__PORT=9000 kandev-host config show\nkandev-host config check"
    )
)
def command() -> None:
    """Show, write and check the settings."""


@command.command(epilog=example("kandev-host config show --changed\nkandev-host config show --json | jq .values"))
@settings_options
@as_json
@click.option("--changed", is_flag=True, help="Only what is not a default.")
def show(config: Path | None, data_dir: Path | None, as_json: bool, changed: bool) -> None:
    """Show every value and where it comes from; secrets are left out."""
    loaded = load_settings(config, data_dir)
    values = {path: value for path, value in _values(loaded) if not changed or path in loaded.sources}
    if as_json:
        shown = {".".join(path): {"value": value, "source": _source(loaded, path)} for path, value in values.items()}
        emit(
            {
                "data_dir": str(loaded.data_dir),
                "config": loaded.config_path and str(loaded.config_path),
                "values": shown,
            }
        )
        return
    from kandev_host.settings.example import toml

    click.echo(f"# data folder: {printable(str(loaded.data_dir))}")
    for path, value in values.items():
        line = f"{'.'.join(path)} = {'(unset)' if value is None else toml(value)}"
        click.echo(printable(f"{line:<56} # {_source(loaded, path)}"))


@command.command(epilog=example("$EDITOR $(kandev-host config path)"))
@settings_options
@as_json
def path(config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Print the path of the settings file."""
    found = config or Path(os.environ.get("KANDEV_CONFIG") or data_home(data_dir) / "config.toml")
    if as_json:
        emit({"path": str(found), "exists": found.is_file()})
    else:
        click.echo(found)


@command.command(epilog=example("kandev-host config init\nkandev-host config init --stdout > config/example.toml"))
@settings_options
@click.option("--stdout", is_flag=True, help="Print it instead of writing it.")
def init(config: Path | None, data_dir: Path | None, stdout: bool) -> None:
    """Write a file that explains every setting.

    None is changed by it: uncomment what you change.
    """
    from kandev_host.plugins import provider_settings
    from kandev_host.settings.example import example as example_toml

    try:
        providers = provider_settings()
    except PluginError as error:
        # This file is where a plugin is blocked, so it must be had.
        click.echo(f"Note: without the plugins' tables: {printable(str(error))}", err=True)
        providers = {}
    text = example_toml(providers)
    if stdout:
        click.echo(text, nl=False)
        return
    target = config or prepare_data_dir(data_home(data_dir)) / "config.toml"
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise SettingsError(f"{target} exists already; edit it, or compare with: config init --stdout") from error
    except OSError as error:
        raise SettingsError(f"cannot write {target}: {error.strerror}") from error
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    click.echo(f"Wrote {target}")


@command.command(epilog=example("kandev-host config check --config ./team.toml"))
@settings_options
@as_json
def check(config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Check file, environment and plugins.

    Exit status 1, and one line on what is wrong and where: of the file all mistakes, up to 10.
    """
    loaded = load_settings(config, data_dir)
    from kandev_host import preflight

    preflight.check(loaded.settings, loaded.data_dir)
    if as_json:
        emit({"ok": True, "config": loaded.config_path and str(loaded.config_path), "notes": loaded.notes})
        return
    for note in loaded.notes:
        click.echo(f"Note: {note}")
    click.echo(f"The settings are fine ({loaded.config_path or 'no settings file; defaults'}).")


def _source(loaded: Loaded, path: KeyPath) -> str:
    return loaded.sources.get(path, "default")


def _values(loaded: Loaded) -> list[tuple[KeyPath, Any]]:
    """Leaves in the order of the types; of the tables that users name only what is set."""
    found: list[tuple[KeyPath, Any]] = []
    for table, content in msgspec.to_builtins(loaded.settings, enc_hook=str).items():
        for name, value in content.items():
            if not isinstance(value, dict):
                found.append(((table, name), value))
                continue
            found += [
                ((table, name, key), inner) for key, inner in value.items() if (table, name, key) in loaded.sources
            ]
    return [(path, REDACTED if value is not None and is_secret(path) else value) for path, value in found]
