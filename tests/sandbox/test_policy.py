from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kandev_sandbox import Bind, Policy, PolicyError
from kandev_sandbox.policy import parse_service


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"workspace": Path("relative")}, "absolute"),
        ({"workspace": Path("/")}, "far too much"),
        ({"workspace": Path("/root")}, "far too much"),
        ({"workspace": Path("/nowhere/at/all")}, "no folder"),
        ({"binds": (Bind(Path("/")),)}, "far too much"),
        ({"binds": (Bind(Path("/opt/a"), "/proc/x"),)}, "the jail's own"),
        ({"binds": (Bind(Path("/opt/a"), "/etc/passwd"),)}, "the jail's own"),
        ({"binds": (Bind(Path("/opt/a"), "/a/../b"),)}, "absolute path below"),
        ({"binds": (Bind(Path("/opt/a"), "/x"), Bind(Path("/opt/b"), "/x"))}, "Two binds"),
        ({"env": {"A=B": "c"}}, "environment variable"),
        ({"env": {"A": "c\0"}}, "environment variable"),
        ({"network": "bridge"}, "no network"),
        ({"network": "host", "allow": ("127.0.0.1:80",)}, "no meaning"),
        ({"allow": ("127.0.0.1:80", "127.0.0.1:80")}, "twice"),
        ({"seccomp": "none"}, "no filter 'none'"),
        ({"uid": 0}, "uid cannot be 0"),
        ({"hostname": "a b"}, "host name"),
    ],
)
def test_a_bad_policy_is_refused_with_the_reason(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(PolicyError, match=words):
        Policy(**{"workspace": tmp_path, **fields})


@pytest.mark.parametrize(
    "service", ["localhost:80", "10.0.0.1:80", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:²", "80"]
)
def test_only_loopback_addresses_name_a_service(service: str) -> None:
    with pytest.raises(PolicyError, match="loopback"):
        parse_service(service)


def test_an_error_carries_its_fix(tmp_path: Path) -> None:
    with pytest.raises(PolicyError) as caught:
        Policy(workspace=tmp_path / "none")
    assert caught.value.fix == f"create it: mkdir -p {tmp_path / 'none'}"


def test_no_jail_may_write_to_the_home_of_whoever_starts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(PolicyError, match="your home"):
        Policy(workspace=tmp_path)
