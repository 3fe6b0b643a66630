"""From a policy to bwrap's options: a pure function, so that every line of the profile can be tested.

Order is meaning here: bwrap works the list off from the first option to the last, and a later mount covers an
earlier one. The profile and what each line is for: docs/jail.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kandev_sandbox.egress import environment as proxy
from kandev_sandbox.layout import UID, Layout
from kandev_sandbox.policy import HOME, SYSTEM_PATH, WORKSPACE, Bind, Policy

TMP = "/tmp"  # noqa: S108 (inside)
SHM = "/dev/shm"  # noqa: S108 (inside)
RUN = "/run"
SHM_BYTES = 64 << 20
RUN_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Descriptors:
    """Numbers of the descriptors bwrap inherits: `seccomp` of the filter, `files` of contents by their path inside."""

    status: int
    block: int
    seccomp: int
    files: Mapping[str, int]


def environment(policy: Policy, extra: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of the command; `extra` beats the policy, the policy beats the defaults."""
    proxied = policy.network == "allowlist"
    found = {
        "HOME": HOME,
        "USER": "agent",
        "LOGNAME": "agent",
        "SHELL": "/bin/sh",
        "PATH": ":".join((*policy.path, *SYSTEM_PATH)),
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "TMPDIR": TMP,
        **(proxy.beneath(policy.allow) if proxied else {}),
        **policy.env,
        **extra,
    }
    return found | (proxy.git_over_https(policy.allow, found) if proxied else {})


def options(
    policy: Policy,
    layout: Layout,
    sources: Mapping[Path, str],
    descriptors: Descriptors,
    *,
    env: Mapping[str, str],
    cwd: str = WORKSPACE,
    pinned: Sequence[tuple[int, str, bool]] = (),
) -> list[str]:
    """Every option before `--`. `sources` says under which path bwrap finds each folder or file of the policy;
    `pinned` are descriptors of what is mounted onto its own place, outer ones first: (descriptor, place, read-only).
    """
    return [
        *_namespaces(policy),
        *_system(layout, descriptors.files),
        *_proc(policy, layout),
        *_dev(),
        *_places(policy, sources),
        *_pins(pinned),
        *_binds(policy.binds, sources),
        "--remount-ro", "/",
        "--chdir", cwd,
        "--clearenv", *(part for name, value in env.items() for part in ("--setenv", name, value)),
        "--seccomp", str(descriptors.seccomp),
        "--json-status-fd", str(descriptors.status),
        "--block-fd", str(descriptors.block),
    ]  # fmt: skip


def _namespaces(policy: Policy) -> list[str]:
    result = ["--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try"]
    if policy.network != "host":
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
    for path in layout.etc:
        result += ["--ro-bind-try", path, path]
    for path, descriptor in files.items():
        result += ["--perms", "0444", "--file", str(descriptor), path]
    return result


def _proc(policy: Policy, layout: Layout) -> list[str]:
    # A mount over any part of /proc makes the kernel refuse a fresh /proc to a nested jail (mount_too_revealing).
    if policy.nested:
        return ["--proc", "/proc"]
    masks = (part for path in layout.masked for part in ("--ro-bind", "/dev/null", path))
    empty = (
        part
        for path in layout.hidden
        for part in ("--size", "4096", "--perms", "0555", "--tmpfs", path, "--remount-ro", path)
    )
    return ["--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys", *masks, *empty]


def _dev() -> list[str]:
    # bwrap's /dev is a tmpfs without a limit: closed, after giving /dev/shm one of its own.
    return ["--dev", "/dev", "--size", str(SHM_BYTES), "--tmpfs", SHM, "--remount-ro", "/dev"]


def scratch(policy: Policy) -> tuple[str, ...]:
    """The places inside that are tmpfs, in which the jail may write."""
    folders = ((policy.tmp, TMP), (policy.home, HOME))
    return (SHM, RUN, *(inside for folder, inside in folders if folder is None))


def _places(policy: Policy, sources: Mapping[Path, str]) -> list[str]:
    result = []
    for folder, inside in ((policy.tmp, TMP), (policy.home, HOME), (policy.workspace, WORKSPACE)):
        if folder is None:
            result += ["--size", str(policy.scratch_bytes), "--perms", "0700", "--tmpfs", inside]
        else:
            read_only = inside == WORKSPACE and policy.workspace_read_only
            result += ["--ro-bind" if read_only else "--bind", sources[folder], inside]
    return [*result, "--size", str(RUN_BYTES), "--tmpfs", RUN, "--symlink", "../run", "/var/run",
            "--symlink", f"..{TMP}", f"/var{TMP}"]  # fmt: skip


def _pins(pinned: Sequence[tuple[int, str, bool]]) -> list[str]:
    # bwrap ends when what it then finds at the place is not what the descriptor is.
    return [
        word
        for descriptor, place, read_only in pinned
        for word in ("--ro-bind-fd" if read_only else "--bind-fd", str(descriptor), place)
    ]


def _binds(binds: tuple[Bind, ...], sources: Mapping[Path, str]) -> list[str]:
    result = []
    # Outer folders first: bound after an inner one, they would cover it.
    for bind in sorted(binds, key=lambda bind: PurePosixPath(bind.inside).parts):
        result += ["--ro-bind" if bind.read_only else "--bind", sources[bind.source], bind.inside]
    return result
