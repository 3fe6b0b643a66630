"""Running the attacks, in jails and without one: one jail for all that do not disturb each other."""

from __future__ import annotations

import importlib.util
import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import anyio

from kandev_sandbox import Bind, Bwrap, Limits, Policy, SandboxError, Uids, inspect, open_jail, volumes
from kandev_sandbox.doctor import candidates
from kandev_sandbox.pipes import PipeReader

from . import traces
from .attacks.catalogue import CASES
from .attacks.table import Case
from .surroundings import LIMITS, Place, surroundings

AS_ROOT = os.geteuid() == 0
ATTACKS = Path(__file__).parent / "attacks"
INSIDE = "/escapes/attacks"
DEADLINE_S = 90.0
PLAIN = {"PATH": "/usr/bin:/bin", "HOME": "/"}
PATIENCE_S = 1.0  # how long a held output is waited for without a jail, where it is to be held


@dataclass(frozen=True)
class Setup:
    """`bwrap` is None without a jail."""

    bwrap: Path | None = None
    nested: bool = False

    def __str__(self) -> str:
        if self.bwrap is None:
            return "free"
        return f"{'installed' if str(self.bwrap).startswith('/usr/') else 'wheel'}{'-nested' if self.nested else ''}"


def setups() -> list[Setup]:
    """Every usable bubblewrap of this machine, nested and not."""
    found = []
    for path in candidates():
        try:
            inspect(path)
        except SandboxError:
            continue
        found += [Setup(path), Setup(path, nested=True)]
    return found


def has(feature: str) -> bool:
    """Is this part of the jail there? Known by its module or its field, never by a setting."""
    if feature == "pins":
        return "protected" in Policy.__dataclass_fields__
    if feature == "disk":
        return AS_ROOT  # an ordinary user's places are watched by the host, not bounded by the jail
    module = {"seccomp": "seccomp", "cgroup": "cgroups", "set-id": "seccomp"}[feature]
    return importlib.util.find_spec(f"kandev_sandbox.{module}") is not None


def cases(setup: Setup) -> list[Case]:
    """Those that this jail must hold; without a jail, those that must get through."""
    if setup.bwrap is None:
        return [case for case in CASES.values() if AS_ROOT or not case.root]
    return [
        case
        for case in CASES.values()
        if all(map(has, case.needs)) and (case.nested or not setup.nested) and (AS_ROOT or not case.dropped)
    ]


@dataclass(frozen=True)
class Outcome:
    through: bool
    answer: dict[str, Any]


def run(setup: Setup, base: Path) -> dict[str, Outcome]:
    """Every case of this setup, by name."""
    base.chmod(0o700)
    outcomes: dict[str, Outcome] = {}
    owner = Uids(base / "uids").of(base / "data" / "workspace") if AS_ROOT and setup.bwrap else os.geteuid()
    bwrap = None if setup.bwrap is None else _own(inspect(setup.bwrap), base / "bwrap")
    with surroundings(base, owner) as surrounded:
        place = surrounded if bwrap is None else replace(surrounded, program=bwrap.path)
        try:
            for group in _groups(cases(setup)):
                outcomes |= _group(setup, bwrap, place, owner, group)
        finally:
            _clean(place)
    return outcomes


def _groups(wanted: Sequence[Case]) -> list[list[Case]]:
    """Those that share a jail."""
    together = [case for case in wanted if not case.alone and not case.small]
    small = [case for case in wanted if case.small]
    return [together, small, *([case] for case in wanted if case.alone)]


def _own(bwrap: Bwrap, folder: Path) -> Bwrap:
    """As an ordinary user's wheel has it: a file of the user's own."""
    if AS_ROOT or not bwrap.trees:
        return bwrap
    for tree in bwrap.trees:
        shutil.copytree(tree, folder / tree.name)
    return inspect(folder / bwrap.path.relative_to(bwrap.trees[0].parent))


def _clean(place: Place) -> None:
    """Also after an error nothing may stay behind."""
    for case in CASES.values():
        if case.trace == "left":
            with suppress(OSError):
                traces.left(case, place.world, Path(place.world.workspace))


def _group(setup: Setup, bwrap: Bwrap | None, place: Place, owner: int, group: Sequence[Case]) -> dict[str, Outcome]:
    run_group = _free if bwrap is None else _jailed(setup, bwrap, place, owner)
    text, held = run_group(place, group)
    answers = {answer["name"]: answer for answer in map(json.loads, text.splitlines())}
    if len(group) > 1 and len(answers) < len(group):
        raise AssertionError(f"after {list(answers)[-1:]} nothing more was tried")
    return {case.name: _outcome(case, answers.get(case.name, {"refused": "killed"}), place, held) for case in group}


def _outcome(case: Case, answer: dict[str, Any], place: Place, held: bool) -> Outcome:
    workspace = Path(place.world.workspace)
    if case.trace == "file":
        return Outcome(traces.changed(case, place.world), answer)
    if case.trace == "death":
        return Outcome(traces.dead(case, place.world), answer)
    if case.trace == "left":
        return Outcome(traces.left(case, place.world, workspace) or (held and case.alone), answer)
    if case.trace == "program":
        return Outcome(bool(place.program.stat().st_mode & 0o022), answer)
    said = answer.get("answer")
    return Outcome(said is True or (isinstance(said, str) and place.token in said), answer)


def _orders(place: Place, group: Sequence[Case], **changes: str) -> str:
    world = place.world._replace(**changes)._asdict()
    return json.dumps({"world": world, "cases": [case.name for case in group]})


def _free(place: Place, group: Sequence[Case]) -> tuple[str, bool]:
    """Without a jail; in a workspace of its own user."""
    command = [sys.executable, "-I", "-S", "-B", str(ATTACKS / "runner.py")]
    cwd = place.world.workspace
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=cwd, pass_fds=[place.inherited]
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(_orders(place, group))
        process.stdin.close()
        lines = [process.stdout.readline() for _ in group]
        process.wait(DEADLINE_S)
        held = not select.select([process.stdout], [], [], PATIENCE_S if group[0].alone else DEADLINE_S)[0]
        subprocess.run(["sh", "-c", _afterwards(group)], cwd=cwd, env=PLAIN, capture_output=True, check=False)
        if held:
            traces.left(group[0], place.world, Path(cwd))
    return "".join(lines), held


def _afterwards(group: Sequence[Case]) -> str:
    """What the host does in the workspace when the attacks are over, as a script."""
    return "".join(f"(cd {case.name.partition('.')[2]} && {case.then})\n" for case in group if case.then)


def _jailed(setup: Setup, bwrap: Bwrap, place: Place, owner: int) -> Callable[..., tuple[str, bool]]:
    world = place.world
    python = Path(sys.base_prefix)
    own = () if python.is_relative_to("/usr") else (Bind(python),)
    policy = Policy(
        workspace=Path(world.workspace),
        home=Path(world.home),
        tmp=place.tmp,
        binds=(Bind(Path(world.library)), Bind(_readable(place), INSIDE), *own),
        nested=setup.nested,
        uid=owner if AS_ROOT else None,
    )

    def run_group(place: Place, group: Sequence[Case]) -> tuple[str, bool]:
        orders = _orders(place, group, workspace="/workspace", home="/home/agent")
        command = [f"{python}/bin/python3", "-I", "-S", "-B", f"{INSIDE}/runner.py"]
        on_disk = group[0].needs == ("disk",)
        small = group[0].small or (group[0].alone and not on_disk)
        limits = _small(policy.limits) if small else policy.limits
        with _volume(place, owner) if on_disk else nullcontext() as namespace:
            text, held = anyio.run(_read, replace(policy, limits=limits), command, bwrap, orders, namespace)
        if script := _afterwards(group):
            anyio.run(_read, _unpinned(policy), ["/bin/sh", "-c", script], bwrap, "")
        return text, held

    return run_group


async def _read(
    policy: Policy, command: Sequence[str], bwrap: Bwrap, orders: str, namespace: int | None = None
) -> tuple[str, bool]:
    """What it printed, and whether somebody held its output open after its end."""
    stdout, stderr = bytearray(), bytearray()
    with anyio.move_on_after(DEADLINE_S) as patience:
        async with (
            open_jail(policy, command, bwrap=bwrap, namespace=namespace) as jail,
            anyio.create_task_group() as group,
        ):
            group.start_soon(_collect, jail.stdout, stdout)
            group.start_soon(_collect, jail.stderr, stderr)
            assert jail.stdin is not None
            await jail.stdin.send(orders.encode())
            await jail.stdin.aclose()
            await jail.wait()
    return stdout.decode(errors="replace"), patience.cancelled_caught


@contextmanager
def _volume(place: Place, owner: int) -> Iterator[int]:
    """A mount namespace where the workspace lies on a file system of its own, as small as the limits."""
    base = place.tmp.parents[1]
    image, point = base / "volume", base / "mounted"
    point.mkdir(exist_ok=True)
    volumes.create(image, LIMITS["disk_bytes"], LIMITS["inodes"])
    namespace = volumes.mount(image, point, {"workspace": Path(place.world.workspace)}, owner)
    try:
        yield namespace
    finally:
        os.close(namespace)


async def _collect(stream: PipeReader | None, into: bytearray) -> None:
    assert stream is not None
    async for chunk in stream:
        into += chunk


def _readable(place: Place) -> Path:
    """A copy that every uid can read, whatever the modes of the checkout."""
    copy = place.tmp.parents[1] / "attacks"
    if not copy.exists():
        copy.mkdir()
        for file in ATTACKS.glob("*.py"):
            shutil.copyfile(file, copy / file.name)
            (copy / file.name).chmod(0o644)
        copy.chmod(0o755)
    return copy


def _small(limits: Limits) -> Limits:
    known = {field.name for field in fields(Limits)}
    return replace(limits, **{name: value for name, value in LIMITS.items() if name in known})


def _unpinned(policy: Policy) -> Policy:
    """As the host runs its own git."""
    return replace(policy, **({"pin_git": False} if "pin_git" in Policy.__dataclass_fields__ else {}))  # type: ignore[arg-type]
