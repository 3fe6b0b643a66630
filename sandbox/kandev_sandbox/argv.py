"""From a policy to bwrap's options: a pure function, so that every line of the profile can be tested.

Order is meaning here: bwrap works the list off from the first option to the last, and a later mount covers an
earlier one. The profile and what each line is for: docs/security.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kandev_sandbox.layout import ETC, UID, Layout
from kandev_sandbox.policy import HOME, SYSTEM_PATH, WORKSPACE, Bind, Policy

TMP = "/tmp"  # noqa: S108 (inside)
SHM = "/dev/shm"  # noqa: S108 (inside)
SHM_BYTES = 64 << 20
RUN_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Descriptors:
    """Numbers of the descriptors bwrap inherits. `files` maps a path inside to the descriptor of its content."""

    status: int
    block: int
    files: Mapping[str, int]


def environment(policy: Policy, extra: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of the command; `extra` beats the policy, the policy beats the defaults."""
    return {
        "HOME": HOME,
        "USER": "agent",
        "LOGNAME": "agent",
        "SHELL": "/bin/sh",
        "PATH": ":".join((*policy.path, *SYSTEM_PATH)),
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "TMPDIR": TMP,
        **policy.env,
        **extra,
    }


def options(
    policy: Policy,
    layout: Layout,
    sources: Mapping[Path, str],
    descriptors: Descriptors,
    *,
    env: Mapping[str, str],
    cwd: str = WORKSPACE,
) -> list[str]:
    """Every option before `--`. `sources` says under which path bwrap finds each folder or file of the policy."""
    return [
        *_namespaces(policy),
        *_system(layout, descriptors.files),
        *_proc(policy, layout.masked),
        *_dev(),
        *_places(policy, sources),
        *_binds(policy.binds, sources),
        "--remount-ro", "/",
        "--chdir", cwd,
        "--clearenv", *(part for name, value in env.items() for part in ("--setenv", name, value)),
        "--json-status-fd", str(descriptors.status),
        "--block-fd", str(descriptors.block),
    ]  # fmt: skip


def _namespaces(policy: Policy) -> list[str]:
    result = ["--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try"]
    if policy.network == "none":
        result.append("--unshare-net")
    if not policy.nested:
        result += ["--disable-userns", "--assert-userns-disabled"]
    # Both: with only one of --die-with-parent and --unshare-pid, a SIGKILL of the host leaves survivors.
    return [
        *result, "--cap-drop", "ALL", "--uid", str(UID), "--gid", str(UID), "--hostname", policy.hostname,
        "--die-with-parent", "--new-session",
    ]  # fmt: skip


def _system(layout: Layout, files: Mapping[str, int]) -> list[str]:
    result = ["--ro-bind", "/usr", "/usr"]
    for name, target in layout.links.items():
        result += ["--symlink", target, name]
    for folder in layout.folders:
        result += ["--ro-bind", folder, folder]
    for name in ETC:
        result += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    for path, descriptor in files.items():
        result += ["--perms", "0444", "--file", str(descriptor), path]
    return result


def _proc(policy: Policy, masked: tuple[str, ...]) -> list[str]:
    # A mount over any part of /proc makes the kernel refuse a fresh /proc to a nested jail (mount_too_revealing).
    if policy.nested:
        return ["--proc", "/proc"]
    masks = (part for path in masked for part in ("--ro-bind", "/dev/null", path))
    return ["--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys", *masks]


def _dev() -> list[str]:
    # bwrap's /dev is a tmpfs without a limit: closed, after giving /dev/shm one of its own.
    return ["--dev", "/dev", "--size", str(SHM_BYTES), "--tmpfs", SHM, "--remount-ro", "/dev"]


def _places(policy: Policy, sources: Mapping[Path, str]) -> list[str]:
    result = []
    for folder, inside in ((policy.tmp, TMP), (policy.home, HOME), (policy.workspace, WORKSPACE)):
        if folder is None:
            result += ["--size", str(policy.scratch_bytes), "--perms", "0700", "--tmpfs", inside]
        else:
            result += ["--bind", sources[folder], inside]
    return [*result, "--size", str(RUN_BYTES), "--tmpfs", "/run", "--symlink", "../run", "/var/run"]


def _binds(binds: tuple[Bind, ...], sources: Mapping[Path, str]) -> list[str]:
    result = []
    # Outer folders first: bound after an inner one, they would cover it.
    for bind in sorted(binds, key=lambda bind: PurePosixPath(bind.inside).parts):
        result += ["--ro-bind" if bind.read_only else "--bind", sources[bind.source], bind.inside]
    return result
