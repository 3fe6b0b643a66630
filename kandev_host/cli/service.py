"""`kandev-host service install|uninstall|status`."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from kandev_host.cli.options import as_json, example
from kandev_host.cli.output import emit, fields
from kandev_host.cli.units import NAME, Scope, Unit, open_to_others, program, unit
from kandev_host.errors import StartupError
from kandev_host.printable import printable
from kandev_host.settings.load import data_home

F = TypeVar("F", bound=Callable[..., Any])

# What sd_booted(3) looks at.
RUNNING = Path("/run/systemd/system")
TIMEOUT_S = 90


@click.group(epilog=example("kandev-host service install --dry-run\nkandev-host service status"))
def command() -> None:
    """Let systemd start the host, and start it again."""


def _scope(command: F) -> F:
    user = click.option(
        "--user", "scope", flag_value="user", help="For you, with your rights [default unless you are root]."
    )
    system = click.option("--system", "scope", flag_value="system", help="For the machine, as root.")
    return user(system(command))


_dry_run = click.option("--dry-run", is_flag=True, help="Change nothing; show what would be done.")


class Steps(msgspec.Struct, frozen=True):
    """What is done, told as it is done, or only told."""

    dry: bool
    quiet: bool
    told: list[str]

    def do(self, what: str, act: Callable[[], object]) -> None:
        if not self.dry:
            act()
        self.tell(f"Would {what}" if self.dry else what[0].upper() + what[1:])

    def tell(self, what: str) -> None:
        self.told.append(what)
        if not self.quiet:
            click.echo(printable(what))

    def systemctl(self, scope: Scope, *arguments: str) -> None:
        words = _systemctl(scope, *arguments)
        self.do(f"run {' '.join(words)}", lambda: _run(words))


@command.command(
    epilog=example(
        "kandev-host service install --dry-run\n"
        "kandev-host service install\n"
        "sudo /usr/local/bin/kandev-host service install --system --data-dir /srv/kandev"
    )
)
@_scope
@_dry_run
@click.option("--force", is_flag=True, help="Write over a file that was changed, or run what others can change.")
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="Settings file that the host reads.")
@click.option("--data-dir", type=click.Path(path_type=Path, file_okay=False), help="Data folder of the host.")
@click.option(
    "--root", type=click.Path(path_type=Path, file_okay=False), help="Write below this folder, and start nothing."
)
@as_json
def install(
    scope: Scope | None,
    dry_run: bool,
    force: bool,
    config: Path | None,
    data_dir: Path | None,
    root: Path | None,
    as_json: bool,
) -> None:
    """Write the unit, and have systemd start it now and from now on.

    A second time it changes nothing. A file that you changed is kept, unless you --force it; drop-ins of
    `systemctl edit` always stay. Where systemd does not run, the unit is only written. KANDEV_HOME and KANDEV_CONFIG
    count as --data-dir and --config for your unit; that of the machine takes the options alone.
    """
    config, data_dir = _as_here(_chosen(scope), config, data_dir)
    wanted = _unit(scope, config, data_dir, root)
    steps = Steps(dry_run, as_json, [])
    if wanted.scope == "system" and not force:
        _refuse_what_others_change(program())
    state = wanted.written()
    if state == "changed" and not force:
        raise StartupError(
            f"{wanted.path} was changed and is kept. Put changes beside it"
            f" ({' '.join(_systemctl(wanted.scope, 'edit', NAME))}), then: kandev-host service install --force"
        )
    if state == "current":
        steps.tell(f"{wanted.path} is as it should be")
    else:
        steps.do(f"write {wanted.path}", lambda: _write(wanted))
    if dry_run and not as_json:
        click.echo(wanted.text, nl=False)
    if root is None and _runs():
        _start(steps, wanted.scope, again=state != "current")
    else:
        steps.tell("systemd does not run here: the unit waits for it" if root is None else "Nothing was started.")
    if as_json:
        emit({"unit": str(wanted.path), "scope": wanted.scope, "was": state, "dry_run": dry_run, "steps": steps.told})


def _start(steps: Steps, scope: Scope, *, again: bool) -> None:
    steps.systemctl(scope, "daemon-reload")
    steps.systemctl(scope, "enable", NAME)
    # What runs with the old unit is only stopped for a new one.
    steps.systemctl(scope, "restart" if again else "start", NAME)
    if scope == "user" and not _lingers():
        steps.tell("It ends with your last session. To have it run without one: loginctl enable-linger")


@command.command(epilog=example("kandev-host service uninstall\nsudo kandev-host service uninstall --system --dry-run"))
@_scope
@_dry_run
@click.option("--force", is_flag=True, help="Delete the file even if it was changed.")
@click.option("--root", type=click.Path(path_type=Path, file_okay=False), help="The folder that it was written below.")
@as_json
def uninstall(scope: Scope | None, dry_run: bool, force: bool, root: Path | None, as_json: bool) -> None:
    """Stop the service and delete its unit.

    The data folder stays, with everything in it.
    """
    known = _unit(scope, None, None, root)
    steps = Steps(dry_run, as_json, [])
    state = known.written()
    if state == "missing":
        steps.tell(f"There is no {known.path}")
    elif state == "changed" and not force:
        raise StartupError(f"{known.path} was changed and is kept. To delete it: kandev-host service uninstall --force")
    else:
        if root is None and _runs():
            steps.systemctl(known.scope, "disable", "--now", NAME)
        steps.do(f"delete {known.path}", known.path.unlink)
        if root is None and _runs():
            steps.systemctl(known.scope, "daemon-reload")
    if as_json:
        emit({"unit": str(known.path), "scope": known.scope, "was": state, "dry_run": dry_run, "steps": steps.told})


@command.command(epilog=example("kandev-host service status\nkandev-host service status --system --json"))
@_scope
@as_json
def status(scope: Scope | None, as_json: bool) -> int:
    """Is the unit there, and does it run? Exit status 1 if not."""
    known = _unit(scope, None, None, None)
    running = _runs()
    found: dict[str, Any] = {
        "unit": str(known.path),
        "scope": known.scope,
        "written": known.path.exists(),
        "systemd": running,
        "enabled": _ask(known.scope, "is-enabled") if running else None,
        "active": _ask(known.scope, "is-active") if running else None,
    }
    if known.scope == "user" and running:
        found["lingers"] = _lingers()
    if as_json:
        emit(found)
    else:
        fields(found.items())
        if not found["written"]:
            click.echo("To write the unit: kandev-host service install", err=True)
    return 0 if found["active"] == "active" else 1


def _chosen(scope: Scope | None) -> Scope:
    return scope or ("system" if os.geteuid() == 0 else "user")


def _unit(scope: Scope | None, config: Path | None, data_dir: Path | None, root: Path | None) -> Unit:
    chosen = _chosen(scope)
    if chosen == "user" and root is not None:
        raise click.UsageError("--root is for the unit of the machine: add --system")
    options = [f"--{name}={path.absolute()}" for name, path in (("config", config), ("data-dir", data_dir)) if path]
    return unit(chosen, [str(program()), "up", *options], data_dir=data_dir, root=root or Path("/"))


def _as_here(scope: Scope, config: Path | None, data_dir: Path | None) -> tuple[Path | None, Path | None]:
    """What the environment names is an option of your unit, since systemd starts it without that environment.

    The unit of the machine keeps its data and its settings in its own place unless it is told otherwise.
    """
    given, named = {"KANDEV_CONFIG": config, "KANDEV_HOME": data_dir}, {}
    for name, option in (("KANDEV_CONFIG", "--config"), ("KANDEV_HOME", "--data-dir")):
        value = os.environ.get(name)
        if given[name] or not value:
            continue
        if scope == "user":
            named[name] = data_home() if name == "KANDEV_HOME" else Path(value)
        else:
            _note(f"{name} is not for the service of the machine; to have it use that: {option}={value}")
    settings = sorted(name for name in os.environ if name.startswith("KANDEV_") and "__" in name)
    if settings:
        _note(f"the service does not see {', '.join(settings)}; write such settings into its settings file")
    return config or named.get("KANDEV_CONFIG"), data_dir or named.get("KANDEV_HOME")


def _note(told: str) -> None:
    click.echo(f"Note: {printable(told)}", err=True)


def _refuse_what_others_change(path: Path) -> None:
    open_part = open_to_others(path)
    if open_part is not None:
        raise StartupError(
            f"As a service of the machine root would run {path}, and {open_part} can be changed by others than root."
            " Install it where only root writes (pipx install --global kandev-host), or choose --user, or --force it"
        )


def _write(wanted: Unit) -> None:
    """Whole or not at all. Raises `StartupError`."""
    new = wanted.path.with_name(f".{NAME}.{os.getpid()}")
    try:
        wanted.path.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(wanted.text)
        new.chmod(0o644)
        new.replace(wanted.path)
    except OSError as error:
        new.unlink(missing_ok=True)
        fix = "; as root it can be: sudo …, or choose --user" if isinstance(error, PermissionError) else ""
        raise StartupError(f"{wanted.path} cannot be written: {error.strerror}{fix}") from error


def _runs() -> bool:
    return RUNNING.is_dir() and shutil.which("systemctl") is not None


def _systemctl(scope: Scope, *arguments: str) -> list[str]:
    return ["systemctl", *(["--user"] if scope == "user" else []), *arguments]


def _run(words: list[str]) -> None:
    try:
        done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise StartupError(f"{' '.join(words)} did not end within {TIMEOUT_S} s") from error
    if done.returncode != 0:
        raise StartupError(f"{' '.join(words)}: {done.stderr.strip() or f'exit status {done.returncode}'}")


def _ask(scope: Scope, question: str) -> str:
    done = subprocess.run(
        _systemctl(scope, question, NAME), check=False, capture_output=True, text=True, timeout=TIMEOUT_S
    )
    return done.stdout.strip() or "unknown"


def _lingers() -> bool:
    """Where systemd-logind notes who keeps services without a session."""
    import pwd

    return Path("/var/lib/systemd/linger", pwd.getpwuid(os.geteuid()).pw_name).exists()
