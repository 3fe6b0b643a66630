"""What the quick ways into the host may import: lists of modules, since times prove nothing on a busy machine."""

from __future__ import annotations

import subprocess
import sys

import pytest

import kandev_host

# Each costs tens of milliseconds, and some MiB, of every start that does not need it.
HEAVY = {"aiohttp", "anyio", "apsw", "asyncio", "click", "docker", "msgspec", "pluggy", "rich"}
OF_PLUGINS = {
    "aiohttp",
    "apsw",
    "argon2",
    "cryptography",
    "docker",
    "jwt",
    "kandev_sandbox",
    "opentelemetry",
    "prometheus_client",
    "rich",
}
VERSION = "import sys; sys.argv = ['kandev-host', '--version']; from kandev_host.cli import main; main()"
HELP = "from kandev_host.cli.app import run; run(['--help'])"
UP = "import kandev_host.cli.up, kandev_host.host, kandev_host.logs"
PLUGINS = "from kandev_host.plugins import load_plugins; load_plugins()"
RUNTIME = "import kandev_bwrap.runtime, kandev_sqlite.store"


def imported(code: str) -> set[str]:
    """Every module that a new interpreter has after `code`."""
    tail = "; import sys; sys.stderr.write(' '.join(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code + tail], capture_output=True, text=True, check=True, timeout=60)
    return set(ran.stderr.split())


def roots(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


def test_version_imports_two_small_modules_of_the_host() -> None:
    ours = {module for module in imported(VERSION) if module.startswith("kandev_")}
    assert ours == {"kandev_host", "kandev_host.cli", "kandev_host.version"}


@pytest.mark.parametrize("code", [VERSION, "import kandev_host"], ids=["version", "package"])
def test_neither_version_nor_the_package_imports_a_library(code: str) -> None:
    assert roots(imported(code)) & HEAVY == set()


def test_the_package_alone_loads_none_of_its_plugin_api() -> None:
    ours = {module for module in imported("import kandev_host") if module.startswith("kandev_")}
    assert ours == {"kandev_host", "kandev_host.version"}


def test_what_is_loaded_at_first_use_is_listed_before() -> None:
    unlisted = set(kandev_host.__all__) - set(dir(kandev_host))
    assert (unlisted, [name for name in kandev_host.__all__ if not hasattr(kandev_host, name)]) == (set(), [])


def test_help_imports_no_subcommand_and_no_server() -> None:
    modules = imported(HELP)
    assert roots(modules) & {"aiohttp", "apsw", "docker", "pluggy", "rich"} == set()
    assert {module for module in modules if module.startswith("kandev_host.cli.")} == {"kandev_host.cli.app"}


def test_a_host_that_starts_imports_neither_terminal_nor_log_renderer() -> None:
    modules = roots(imported(f"{UP}; {PLUGINS}; {RUNTIME}"))
    assert modules & {"docker", "opentelemetry", "prometheus_client", "pygments", "rich"} == set()


def test_listed_plugins_import_no_library_of_their_own() -> None:
    assert roots(imported(PLUGINS)) & OF_PLUGINS == set()
