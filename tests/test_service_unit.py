"""The units of systemd in config/: what they promise, and that nothing in them keeps jails from being made."""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path

import pytest
from click.testing import CliRunner

from kandev_host.cli.app import group

UNITS = Path(__file__).parents[1] / "config" / "systemd"
PROGRAMS = {"user": "%h/.local/bin/kandev-host", "system": "/usr/local/bin/kandev-host"}


@pytest.fixture(params=["user", "system"])
def scope(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def service(scope: str) -> dict[str, str]:
    # Not strict: CapabilityBoundingSet= goes on over several lines.
    parser = ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((UNITS / scope / "kandev-host.service").read_text())
    return dict(parser["Service"])


def test_the_controllers_that_bound_a_jail_are_handed_over(service: dict[str, str]) -> None:
    assert set(service["Delegate"].split()) == {"cpu", "memory", "pids"}


def test_what_it_starts_is_a_command_of_the_host(scope: str, service: dict[str, str]) -> None:
    program, *arguments = service["ExecStart"].split()
    assert program == PROGRAMS[scope]
    assert CliRunner().invoke(group, [*arguments, "--help"]).exit_code == 0


def test_the_host_has_the_time_to_end_its_agents(service: dict[str, str]) -> None:
    assert service["KillMode"] == "mixed"
    assert int(service["TimeoutStopSec"]) > 10


@pytest.mark.parametrize(
    "forbidden",
    [
        *("ProtectProc", "ProcSubset", "ProtectKernelTunables", "ProtectKernelLogs", "ProtectControlGroups"),
        *("RestrictNamespaces", "SystemCallFilter", "PrivateUsers", "PrivateMounts", "MountFlags"),
        *("NoNewPrivileges", "ProtectHostname", "MemoryDenyWriteExecute"),
        *("PrivateDevices", "DevicePolicy", "ProtectClock", "ProtectHome", "PrivateTmp"),
    ],
)
def test_nothing_in_it_keeps_jails_from_being_made(service: dict[str, str], forbidden: str) -> None:
    """Each of them mounts over a part of /proc, or closes what bwrap needs (mount_too_revealing in the kernel), or what
    is done with a jail: volumes, repositories, Node.
    """
    assert forbidden not in service


def test_a_jail_that_met_its_memory_limit_does_not_end_the_host(service: dict[str, str]) -> None:
    assert service["OOMPolicy"] == "continue"


def test_a_host_of_a_user_is_not_filtered() -> None:
    """A user's manager can filter only what gets no new privileges, and then a setuid bwrap makes no jail."""
    text = (UNITS / "user" / "kandev-host.service").read_text()
    settings = [line.partition("=")[0] for line in text.splitlines() if not line.startswith("#")]
    assert not [name for name in settings if name.startswith(("Restrict", "SystemCall", "Protect", "Private", "Lock"))]
