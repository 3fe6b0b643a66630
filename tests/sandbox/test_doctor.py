from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from kandev_sandbox import JailUnavailable, SandboxError, SpawnFailed, argv, cgroups, doctor, examine, inspect
from kandev_sandbox.causes import Kernel, explain


@pytest.mark.anyio
async def test_the_probe_jail_of_each_candidate_works(bwrap: Any) -> None:
    await doctor.probe(bwrap)


@pytest.mark.anyio
async def test_the_first_that_works_is_chosen_not_the_first_found(bwrap: Any) -> None:
    report = await examine([Path("/nowhere/bwrap"), bwrap.path])
    assert report.chosen() == bwrap
    assert [finding.ok for finding in report.findings] == [False, True]


@pytest.mark.anyio
async def test_a_named_bwrap_that_fails_has_no_substitute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KANDEV_BWRAP", "/nowhere/bwrap")
    report = await examine()
    with pytest.raises(JailUnavailable, match="/nowhere/bwrap") as caught:
        report.chosen()
    assert str(caught.value.fix).startswith("unset KANDEV_BWRAP")
    assert "apt-get install bubblewrap" in str(caught.value.fix)


@pytest.mark.anyio
async def test_the_report_is_json_and_says_whether_limits_hold_a_whole_jail(bwrap: Any) -> None:
    report = json.loads(json.dumps((await examine([bwrap.path])).as_json()))
    full = cgroups.here().full
    assert (report["ok"], report["limits"]) == (True, "full" if full else "partial")
    assert (report["limits_reason"] is None, report["limits_fix"] is None) == (full, full)


@pytest.mark.anyio
async def test_limits_that_are_partial_come_with_the_reason_and_the_fix(
    bwrap: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroups, "here", lambda: cgroups.Cgroups((), "It is so.", "do this"))
    report = await examine([bwrap.path])
    assert (report.limits, report.limits_fix) == ("partial", "do this")
    assert str(report.limits_reason).startswith("It is so. So a watchdog")


@pytest.mark.anyio
async def test_a_promise_of_the_profile_that_does_not_hold_is_named(
    bwrap: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a bwrap that knows the options and does not do them."""
    given = argv.options

    def forgetful(*arguments: Any, **named: Any) -> list[str]:
        words = given(*arguments, **named)
        last = len(words) - 1 - words[::-1].index("--remount-ro")
        return words[:last] + words[last + 2 :]

    monkeypatch.setattr(argv, "options", forgetful)
    report = await examine([bwrap.path])
    assert not report.ok
    assert "its root can be written to" in str(report.findings[0].reason)


def test_a_setuid_bwrap_is_refused(tmp_path: Path, bwrap: Any) -> None:
    copy = tmp_path / "bwrap"
    shutil.copy(bwrap.path, copy)
    copy.chmod(0o4755)
    with pytest.raises(JailUnavailable, match="setuid") as caught:
        inspect(copy)
    assert caught.value.fix == f"chmod u-s,g-s {copy}"


def test_an_old_bwrap_is_refused_with_what_it_lacks(tmp_path: Path) -> None:
    old = tmp_path / "bwrap"
    old.write_text("#!/bin/sh\necho bubblewrap 0.4.0\necho '    --args FD   x'\n")
    old.chmod(0o755)
    with pytest.raises(JailUnavailable, match=r"0\.4\.0\) lacks .*--disable-userns"):
        inspect(old)


@pytest.mark.parametrize(
    ("kernel", "said", "reason", "fix"),
    [
        (Kernel(userns_clone=0), "x", "forbids user namespaces", "kernel.unprivileged_userns_clone=1"),
        (Kernel(max_user_namespaces=0), "x", "no user namespaces", "user.max_user_namespaces="),
        (
            Kernel(apparmor_restricts=1),
            "setting up uid map: Permission denied",
            "AppArmor",
            "profile kandev-bwrap /b/bwrap",
        ),
        (
            Kernel(),
            "Can't mount proc on /newroot/proc: Operation not permitted",
            "fresh /proc",
            "systempaths=unconfined",
        ),
        (Kernel(container=True), "No permissions to create new namespace", "container forbids", "seccomp=unconfined"),
        (Kernel(), "prctl(PR_SET_SECCOMP): Invalid argument", "cannot filter", "CONFIG_SECCOMP_FILTER"),
        (Kernel(), "Creating new namespace failed: No space left on device", "limit", "max_user_namespaces"),
        (Kernel(), "not staged: a new user namespace: No space left on device", "limit", "max_user_namespaces"),
    ],
)
def test_the_doctor_names_cause_and_fix(kernel: Kernel, said: str, reason: str, fix: str) -> None:
    found, cure = explain(SpawnFailed(said), Path("/b/bwrap"), kernel)
    assert reason in found
    assert cure is not None
    assert fix in cure


def test_an_unknown_failure_is_told_in_bwraps_own_words() -> None:
    assert explain(SandboxError("strange"), Path("/b"), Kernel()) == ("strange", None)
