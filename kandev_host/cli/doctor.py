"""`kandev-host doctor`."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from msgspec.structs import asdict

from kandev_host.cli.checks import Check, audit, folder, looked, machine, network, service
from kandev_host.cli.options import as_json, example, load_settings, settings_options
from kandev_host.cli.output import emit, hints, table
from kandev_host.cli.shown import credential
from kandev_host.errors import KandevError, SettingsError, StartupError
from kandev_host.presence import running
from kandev_host.settings import Settings
from kandev_host.settings.load import Loaded, data_home

if TYPE_CHECKING:
    from kandev_host.client import Client

HOST_TIMEOUT_S = 90.0
FOLDERS = 200  # each is asked for


@click.command(
    epilog=example("kandev-host doctor\nkandev-host doctor --json | jq '.checks[] | select(.state != \"ok\")'")
)
@settings_options
@as_json
def command(config: Path | None, data_dir: Path | None, as_json: bool) -> int:
    """Look at everything that the host needs, and say what is wrong, why it matters, and what to do about it.

    The machine, the data folder, the database, backups, the address, the certificate, the unit of systemd, the audit;
    then plugins, runtimes and agents, of the host that runs or as one that starts finds them. A probe jail is run.
    Exit status 1 if the default runtime, or the host itself, cannot be used, or is not safe.
    """
    import anyio

    from kandev_host.logs import logging_to

    wrong: str | None = None
    try:
        loaded = load_settings(config, data_dir)
    except SettingsError as error:
        wrong = str(error)
        loaded = Loaded(Settings(), data_home(data_dir))
    runs = running(loaded.data_dir) is not None or "KANDEV_URL" in os.environ
    unread = wrong is not None
    with logging_to(loaded.settings.log), _each_line_once():
        wrong = wrong or _refused(loaded)
        checks = [_settings(loaded, wrong, unread=unread, runs=runs)]
        checks += looked(
            {**machine.looks(loaded), **folder.looks(loaded), **network.looks(loaded), **service.looks(loaded)}
        )
        if not unread or runs:
            checks += audit.looked_at(loaded)
        # With wrong settings none can be started; one that runs has those that it began with.
        if wrong is None or runs:
            checks += anyio.run(_host, loaded)
    ok = all(check.state != "failed" for check in checks)
    if as_json:
        emit({"ok": ok, "checks": [asdict(check) for check in checks]})
    else:
        table(["CHECK", "STATE", "FOUND"], ([check.name, check.state, check.found] for check in checks))
        hints((f"Why {check.name} matters", check.why) for check in checks if check.why)
        hints((f"Fix for {check.name}", check.fix) for check in checks if check.fix)
    return 0 if ok else 1


def _refused(loaded: Loaded) -> str | None:
    """Why a host does not start with these settings; its address and certificate are looked at by themselves."""
    from kandev_host import preflight

    try:
        preflight.check_parts(loaded.settings, loaded.data_dir)
    except StartupError as error:
        return str(error)
    return None


@contextmanager
def _each_line_once() -> Iterator[None]:
    """Of the log: the database, the audit and the host load the plugins, each for itself."""
    seen: set[str] = set()

    def fresh(record: logging.LogRecord) -> bool:
        before = len(seen)
        seen.add(record.getMessage())
        return len(seen) > before

    handlers = logging.getLogger().handlers[:]
    for handler in handlers:
        handler.addFilter(fresh)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(fresh)


def _settings(loaded: Loaded, wrong: str | None, *, unread: bool, runs: bool) -> Check:
    if wrong is None:
        return folder.settings_file(loaded.config_path)
    if runs and not unread:
        fix = "mend it, then kandev-host config check; variables of the host's service alone are not seen from here"
        return Check("settings", "warning", wrong, fix, "the host that runs would not start again with these settings")
    fix = "mend it, then kandev-host config check: it tells the next one, if there is one"
    return Check("settings", "failed", wrong, fix, "the host does not start with settings that it does not understand")


async def _host(loaded: Loaded) -> list[Check]:
    """What the running host finds, or one that answers nobody else and changes nothing."""
    import anyio

    from kandev_host.cli.access import open_client, remote
    from kandev_host.client import ClientError
    from kandev_host.presence import holder

    info: dict[str, Any] | None = None
    left: list[Path] = []
    url: str | None = None
    try:
        url, _ = remote(loaded)
        if url is None:
            with holder(loaded.data_dir) as starting:
                if starting is not None:
                    told = f"the host (pid {starting.pid}) is starting or stopping"
                    return [Check("host", "warning", told, "wait, then ask again; kandev-host logs says more")]
        with anyio.move_on_after(HOST_TIMEOUT_S):
            async with open_client(loaded) as (client, _):
                info = await client.call("host.info")
                left = await _left(client, _folders(loaded.data_dir / "workspaces"))
    except (StartupError, ClientError, OSError) as error:
        runs = url is not None or running(loaded.data_dir) is not None
        details = error.details if isinstance(error, ClientError) else {}
        fix = details.get("fix") or (
            "what it says" if isinstance(error, StartupError) else "kandev-host logs says more"
        )
        return [Check("host", "failed", str(error), str(fix) if runs else f"{fix}; then kandev-host up")]
    except Exception as error:  # the doctor says what is wrong; it is never the one that fails
        fix = error.details.get("fix") if isinstance(error, KandevError) else None
        return [Check("host", "failed", str(error) or repr(error), str(fix or "kandev-host up says more"))]
    if info is None:
        fix = "kandev-host logs says what it does; kandev-host down ends it"
        return [Check("host", "failed", f"it does not answer within {HOST_TIMEOUT_S:g} s", fix)]
    checks = [_running(loaded, url, info["version"])]
    checks += [
        Check(f"health: {each['part']}", "warning", each["message"], each["fix"])
        for each in info["problems"]
        if each["part"] not in ("plugin", "runtime", "disk")  # told below, and above
    ]
    if left:
        told = f"{len(left)} folders of tasks that are not there any more: {', '.join(path.name for path in left[:5])}"
        fix = f"look into them, then: kandev-host down; rm -r {' '.join(map(str, left[:5]))}"
        checks.append(Check("workspaces", "warning", told, fix, "they take room, and nobody else removes them"))
    checks += [_plugin(plugin) for plugin in info["plugins"] if plugin["state"] != "active"]
    checks += [_runtime(runtime, loaded.settings.use.runtime) for runtime in info["runtimes"]]
    ready = [kind["name"] for kind in info["agent_types"] if kind["availability"]["ok"]]
    more = None if len(ready) == len(info["agent_types"]) else "kandev-host agent types says what the others need"
    checks += _credentials(info["agent_types"])
    checks += _chosen(info["agent_types"], loaded)
    checks.append(Check("agents", "ok" if ready else "warning", f"ready: {', '.join(ready) or 'none'}", more))
    return checks


def _folders(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())[:FOLDERS] if folder.is_dir() else []


async def _left(client: Client, folders: list[Path]) -> list[Path]:
    """Those of workspaces whose task is gone."""
    from kandev_host.client import ClientError

    gone = []
    for path in folders:
        try:
            await client.call("task.get", {"task_id": path.name})
        except ClientError as error:
            if error.code == "NOT_FOUND":
                gone.append(path)
    return gone


def _chosen(kinds: list[dict[str, Any]], loaded: Loaded) -> Iterator[Check]:
    """The agents that the settings have a table for: somebody wants to use them."""
    for kind in kinds:
        override, found = loaded.settings.agents.get(kind["name"]), kind["availability"]
        if override is not None and override.enabled is not False and not found["ok"]:
            why = f"[agents.{kind['name']}] of the settings says that you want to use it"
            yield Check(f"agent {kind['name']}", "warning", found["reason"] or "not ready", found.get("fix"), why)


def _credentials(kinds: list[dict[str, Any]]) -> Iterator[Check]:
    """Those of the settings; what can be read in a jail can be passed on, so a file there is worth a warning."""
    for kind in kinds:
        named = [each for each in kind["credentials"] if each["name"] != "agent type" or each["way"] == "file"]
        if not named:
            continue
        missing = [f"{each['what']} is {each['missing']}" for each in named if each["missing"]]
        files = any(each["way"] == "file" for each in named)
        fix = "; ".join([*missing, *(["what an agent can read it can pass on: better is git = ..."] if files else [])])
        told = ", ".join(map(credential, named))
        yield Check(f"credentials {kind['name']}", "warning" if fix else "ok", told, fix or None)


def _running(loaded: Loaded, url: str | None, version: str) -> Check:
    from kandev_host.presence import died

    if url is not None:
        return Check("host", "ok", f"{version} answers at {url}")
    if died(loaded.data_dir):
        return Check("host", "warning", "none runs; the last one died", "kandev-host up ends what it left, and says so")
    return Check("host", "ok", f"none runs; {version} can be started: kandev-host up")


def _plugin(plugin: dict[str, Any]) -> Check:
    name, reason = plugin["name"], plugin.get("reason") or ""
    fix = f'mend it, or [plugins] disabled = ["{name}"]'
    if plugin["state"] == "unavailable":
        fix = reason if "install" in reason else "kandev-host plugins says which extra it needs"
    return Check(
        f"plugin {name}", "warning", f"{plugin['state']}: {reason}", None if plugin["state"] == "disabled" else fix
    )


def _runtime(runtime: dict[str, Any], default: str) -> Check:
    name = f"runtime {runtime['name']}"
    found = runtime["availability"]
    if found["ok"]:
        details = {key: value for key, value in (runtime.get("details") or {}).items() if isinstance(value, str)}
        fixes = [value for key, value in sorted(details.items()) if key.endswith("_fix")]
        told = ", ".join(f"{key}: {value}" for key, value in sorted(details.items()) if not key.endswith("_fix"))
        return Check(name, "warning" if fixes else "ok", told or "works", "\n".join(fixes) or None)
    state: Literal["failed", "warning"] = "failed" if runtime["name"] == default else "warning"
    return Check(name, state, found["reason"] or "cannot be used", found.get("fix"))
