"""`kandev-host doctor`."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from kandev_host.cli.options import as_json, example, load_settings, settings_options
from kandev_host.cli.output import emit, hints, table
from kandev_host.cli.shown import credential
from kandev_host.errors import StartupError

if TYPE_CHECKING:
    from kandev_host.settings.load import Loaded

FREE_WANTED_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. `failed` means that the default runtime, and so the host, is of no use."""

    name: str
    state: Literal["ok", "warning", "failed"]
    found: str
    fix: str | None = None


@click.command(
    epilog=example("kandev-host doctor\nkandev-host doctor --json | jq '.checks[] | select(.state != \"ok\")'")
)
@settings_options
@as_json
def command(config: Path | None, data_dir: Path | None, as_json: bool) -> int:
    """Try runtimes, store and agents, and say how to fix what does not work.

    A probe jail is really run. Exit status 1 if the default runtime, or the host itself, cannot be used.
    """
    import anyio

    from kandev_host.logs import logging_to

    loaded = load_settings(config, data_dir)
    with logging_to(loaded.settings.log):
        checks = [*_machine(loaded), *anyio.run(_host, loaded)]
    ok = all(check.state != "failed" for check in checks)
    if as_json:
        emit({"ok": ok, "checks": [asdict(check) for check in checks]})
    else:
        table(["CHECK", "STATE", "FOUND"], ([check.name, check.state, check.found] for check in checks))
        hints((f"Fix for {check.name}", check.fix) for check in checks if check.fix)
    return 0 if ok else 1


def _machine(loaded: Loaded) -> Iterator[Check]:
    python = f"Python {platform.python_version()}, {platform.system()} {platform.release()} {platform.machine()}"
    yield Check("machine", "ok", python)
    yield Check("settings", "ok", str(loaded.config_path or "defaults, no file"))
    folder = loaded.data_dir
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    state: Literal["ok", "warning"] = "ok" if free >= FREE_WANTED_BYTES else "warning"
    yield Check(
        "disk", state, f"{free / (1 << 30):.1f} GiB free at {loaded.data_dir}", None if state == "ok" else "make room"
    )
    git = shutil.which("git", path=os.defpath + ":/usr/local/bin")
    fix = "apt-get install git" if git is None else None
    yield Check("git", "ok" if git else "warning", git or "not in /usr/bin: workspaces need it in their jail", fix)


async def _host(loaded: Loaded) -> list[Check]:
    """What the running host finds, or one that answers nobody else and changes nothing."""
    from kandev_host.cli.access import open_client, remote

    try:
        url, _ = remote(loaded)
        async with open_client(loaded) as (client, _):
            info = await client.call("host.info")
    except StartupError as error:
        return [Check("host", "failed", str(error))]
    checks = [_running(loaded, url, info["version"])]
    checks += [_plugin(plugin) for plugin in info["plugins"] if plugin["state"] != "active"]
    checks += [_runtime(runtime, loaded.settings.use.runtime) for runtime in info["runtimes"]]
    ready = [kind["name"] for kind in info["agent_types"] if kind["availability"]["ok"]]
    fix = None if len(ready) == len(info["agent_types"]) else "kandev-host agent types says what the others need"
    checks += _credentials(info["agent_types"])
    checks.append(Check("agents", "ok" if ready else "warning", f"ready: {', '.join(ready) or 'none'}", fix))
    return checks


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
    return Check(f"plugin {plugin['name']}", "warning", f"{plugin['state']}: {plugin.get('reason') or ''}")


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
