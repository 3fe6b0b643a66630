from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kandev_sandbox import Bind, Policy, argv
from kandev_sandbox.layout import Layout, etc_files

LAYOUT = Layout({"/bin": "usr/bin"}, ("/lib64",), ("/proc/kcore",), ("/proc/acpi",), ("/etc/ssl/certs",))
FILES = argv.Descriptors(status=7, block=8, seccomp=6, files={"/etc/passwd": 9})


def options(tmp_path: Path, **fields: Any) -> list[str]:
    policy = Policy(workspace=tmp_path, **fields)
    sources = {bind.source: f"/staged{bind.source}" for bind in policy.binds} | {tmp_path: "/staged/workspace"}
    return argv.options(policy, LAYOUT, sources, FILES, env={"A": "b c"})


def has(result: list[str], *words: str) -> bool:
    return any(tuple(result[i : i + len(words)]) == words for i in range(len(result)))


@pytest.mark.parametrize(
    "words",
    [
        ("--cap-drop", "ALL"),
        ("--die-with-parent",),
        ("--unshare-pid",),
        ("--new-session",),
        ("--disable-userns",),
        ("--assert-userns-disabled",),
        ("--unshare-net",),
        ("--clearenv", "--setenv", "A", "b c"),
        ("--symlink", "usr/bin", "/bin"),
        ("--ro-bind", "/lib64", "/lib64"),
        ("--perms", "0444", "--file", "9", "/etc/passwd"),
        ("--ro-bind", "/dev/null", "/proc/kcore"),
        ("--tmpfs", "/proc/acpi", "--remount-ro", "/proc/acpi"),
        ("--ro-bind-try", "/etc/ssl/certs", "/etc/ssl/certs"),
        ("--remount-ro", "/dev"),
        ("--remount-ro", "/", "--chdir", "/workspace"),
        ("--bind", "/staged/workspace", "/workspace"),
        ("--seccomp", "6"),
        ("--json-status-fd", "7", "--block-fd", "8"),
    ],
)
def test_the_profile_holds_this_line(tmp_path: Path, words: tuple[str, ...]) -> None:
    assert has(options(tmp_path), *words)


def test_nested_keeps_proc_whole_and_user_namespaces_allowed(tmp_path: Path) -> None:
    result = options(tmp_path, nested=True)
    assert "--disable-userns" not in result
    assert not any(word.startswith("/proc/") for word in result)


def test_the_hosts_network_is_an_explicit_choice(tmp_path: Path) -> None:
    assert "--unshare-net" not in options(tmp_path, network="host")


def test_the_root_is_closed_after_the_last_mount(tmp_path: Path) -> None:
    result = options(tmp_path, binds=(Bind(Path("/opt/tool")),))
    mounts = [i for i, word in enumerate(result) if word in {"--bind", "--ro-bind", "--tmpfs", "--file", "--symlink"}]
    assert max(mounts) < len(result) - 1 - result[::-1].index("--remount-ro")


def test_an_outer_bind_comes_before_an_inner_one(tmp_path: Path) -> None:
    result = options(tmp_path, binds=(Bind(Path("/opt/a/inner")), Bind(Path("/opt/a"))))
    assert result.index("/opt/a") < result.index("/opt/a/inner")


def test_a_writable_bind_must_be_asked_for(tmp_path: Path) -> None:
    result = options(tmp_path, binds=(Bind(Path("/opt/a")), Bind(Path("/opt/b"), read_only=False)))
    assert has(result, "--ro-bind", "/staged/opt/a", "/opt/a")
    assert has(result, "--bind", "/staged/opt/b", "/opt/b")


def test_the_callers_environment_beats_the_policys(tmp_path: Path) -> None:
    env = argv.environment(Policy(workspace=tmp_path, env={"A": "1", "HOME": "/h"}, path=("/p",)), {"A": "2"})
    assert (env["A"], env["HOME"], env["PATH"].split(":")[0]) == ("2", "/h", "/p")


def test_name_servers_reach_a_jail_only_with_the_network(tmp_path: Path) -> None:
    assert b"nameserver" not in etc_files(Policy(workspace=tmp_path))["/etc/resolv.conf"]


def test_a_read_only_workspace_is_bound_so(tmp_path: Path) -> None:
    result = options(tmp_path, workspace_read_only=True)
    assert has(result, "--ro-bind", "/staged/workspace", "/workspace")
