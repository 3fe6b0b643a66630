"""Making a container, letting its command go once all is there, and removing it, whatever happens in between."""

from __future__ import annotations

import os
import resource
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import msgspec
from anyio.abc import TaskGroup

from kandev_docker import DockerSettings, inside, owned
from kandev_docker.attach import Attached, attach, attach_again
from kandev_docker.check import Allowed, Refused, check
from kandev_docker.copies import Copies
from kandev_docker.engine import HANGS_FIX, Engine, EngineGone, Facts, unfit
from kandev_docker.images import Images
from kandev_docker.process import ContainerProcess
from kandev_docker.request import Container, Folders, asked_mounts, create_request, own_mounts
from kandev_docker.seccomp import profile, written
from kandev_docker.shells import laid_out
from kandev_docker.sources import Sources
from kandev_docker.terminals import resized
from kandev_host import Mount, ProcessSpec, errors
from kandev_places.decisions import Decisions, Gates, Unreached, hint
from kandev_places.limits import limits_of
from kandev_places.places import Place
from kandev_places.watch import Watched
from kandev_sandbox import Bind, Ending, Limits, Owner, Policy, doors, mountpoints
from kandev_sandbox.beside import beside
from kandev_sandbox.egress import environment
from kandev_sandbox.processes import Identity
from kandev_sandbox.records import new_id
from kandev_sandbox.shell import Change

START_TIMEOUT_S = 30.0
# What podman gives every container: a word of its own, and the proxies of its service, with whose password.
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy")
_OF_PODMAN = ("container", *_PROXIES, *map(str.upper, _PROXIES))
_ROOT_FIX = "run the host as root beside the engine, use the runtime bwrap, or set network to none"


class NotAdopted(errors.Unavailable):
    """A container that cannot be taken over."""


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """How a container is opened. `size` are the columns and rows of one on a terminal.

    `unreached` hears of what its proxy decides. `shell` is what a shell makes of its environment and its command, which
    then is the first process. A `sidecar` keeps the container for commands of the place's uid, and has another one.
    """

    adoptable: bool = False
    size: tuple[int, int] | None = None
    unreached: Unreached | None = None
    shell: Change | None = None
    sidecar: bool = False


PLAIN = Opening()
SIDECAR = Opening(sidecar=True)


class Ground(msgspec.Struct, frozen=True):
    """What every container of one runtime stands on. `closed` are folders of the host that no container sees.

    `profile` is where the filter of system calls is written for an engine that reads it from a file.
    """

    settings: DockerSettings
    engine: Engine
    images: Images
    owner: Owner
    decisions: Decisions
    gates: Gates
    copies: Copies
    # The names of those that are there or being made.
    running: set[str]
    closed: tuple[str, ...]
    profile: Path
    # Hears of a container that could not be removed.
    left: Callable[[str], None]


@asynccontextmanager
async def opened(
    ground: Ground, spec: ProcessSpec, place: Place | None, how: Opening = PLAIN
) -> AsyncIterator[ContainerProcess]:
    """A running container, gone when the context is left. Raises `Unavailable`, `ValidationFailed`, `SandboxError`."""
    facts = await ground.engine.known()
    adoptable = how.adoptable and not facts.podman
    limits = _within_machine(limits_of(ground.settings, spec.limits))
    if (problem := unfit(facts, needed(ground.settings, limits.cpus))) is not None:
        raise errors.Unavailable(problem[0], fix=problem[1])
    image = await ground.images.ready(spec.image or ground.settings.image, spec.labels)
    policy = _policy(ground, spec, place)
    if policy is not None and how.unreached is not None:
        policy, _ = how.unreached.onto(policy, ())
    _check_network(spec, facts)
    shown: list[Mount] = []
    if how.shell is not None and place is not None:
        spec, control = laid_out(how.shell, spec, place, image.path)
        shown.append(control)
    if policy is not None:
        await anyio.to_thread.run_sync(mountpoints.make, policy)
    name = owned.name_of(ground.owner, new_id())
    container = Container(
        name=name,
        spec=spec,
        image=image.id,
        user=_keeper(ground.settings, place, facts) if how.sidecar else user_of(place, facts),
        limits=limits,
        folders=None if place is None else Folders(place.workspace, place.home, place.tmp, place.snapshots),
        marker=owned.marker_of(name),
        labels=owned.labels_of(ground.owner, name, spec, adoptable=adoptable),
        env=_proxy_environment(spec),
        volumes=image.volumes,
        adoptable=adoptable,
        terminal=how.size is not None,
        shown=shown,
        init=how.shell is None,
        log_bytes=ground.settings.log_limit_bytes,
        scratch_bytes=ground.settings.scratch_limit_bytes,
        seccomp=await anyio.to_thread.run_sync(written, ground.profile) if facts.podman else profile(),
        user_processes=_user_processes() if facts.podman else None,
        unasked=_OF_PODMAN if facts.podman else (),
    )
    allowed = _allowed(ground, container, facts)
    async with AsyncExitStack() as stack:
        stack.callback(ground.copies.remove, name)
        sources = Sources()
        stack.callback(sources.close)
        body, asked = await anyio.to_thread.run_sync(_requested, container, allowed, ground.copies, place, sources)
        ground.running.add(name)
        stack.push_async_callback(_removed, ground, name)
        made = await ground.engine.call(
            lambda client: client.create_container_from_config(body, name), what="make the container", sure=True
        )
        attached = await attach(ground.engine.path, name, container.marker, terminal=container.terminal)
        stack.callback(attached.close)
        met = limits if "memory" in facts.bounds else replace(limits, memory_bytes=None)
        process = ContainerProcess(name, ground.engine, attached, met, adoptable=adoptable)
        process.known_as(str(made["Id"]), image.name)
        await ground.engine.call(lambda client: client.start(name), what="start the container", sure=True)
        tasks = await stack.enter_async_context(beside())
        tasks.start_soon(process.watch)
        stack.push_async_callback(process.kill)
        init = await _init(ground.engine, attached, name, str(made["Id"]))
        tasks.start_soon(process.counting(init, str(made["Id"])))
        await anyio.to_thread.run_sync(sources.check, init, asked)
        if policy is not None:
            await _furnished(stack, process, policy, ground, spec)
        if how.size is not None:
            await resized(ground.engine, name, *how.size)
        await _started(attached)
        with suppress(BrokenPipeError):  # it ended: its exit code tells
            await process.send(b"\n")
        bound(tasks, process, None if how.sidecar else limits.wall_s)
        yield process


@asynccontextmanager
async def adopted(ground: Ground, found: owned.Found, place: Place, position: int) -> AsyncIterator[ContainerProcess]:
    """One that outlived its host, read from `position` of its stdout on; gone when the context is left.

    Raises `NotAdopted`, having left it alone, when its output is no longer whole; and as `opened`.
    """
    settings, engine = ground.settings, ground.engine
    spec = ProcessSpec(
        workspace_id=found.workspace_id, command=(), network=found.network, allow=found.allow, labels=found.labels
    )
    state = await engine.call(lambda client: client.inspect_container(found.id))
    limits = replace(limits_of(settings, spec.limits), memory_bytes=state["HostConfig"].get("Memory") or None)
    async with AsyncExitStack() as stack:
        ground.running.add(found.ref)
        stack.callback(ground.running.discard, found.ref)
        attached = await attach_again(engine.path, found.id, owned.marker_of(found.ref), position)
        stack.callback(attached.close)
        process = ContainerProcess(found.ref, engine, attached, limits, adoptable=True)
        tasks = await stack.enter_async_context(beside())
        tasks.start_soon(process.watch)
        tasks.start_soon(process.counting(await _init(engine, attached, found.ref, found.id), found.id))
        with anyio.move_on_after(START_TIMEOUT_S):
            await attached.started.wait()
        if not (attached.started.is_set() and attached.whole):
            raise NotAdopted(f"The output of container {found.ref} is no longer whole.", fix="start the agent again")
        stack.push_async_callback(_removed, ground, found.ref)
        stack.push_async_callback(process.kill)
        await _served(stack, process, _policy(ground, spec, place), ground, spec)
        bound(tasks, process, limits.wall_s)
        yield process


def _requested(
    container: Container, allowed: Allowed, copies: Copies, place: Place | None, sources: Sources
) -> tuple[dict[str, Any], Sequence[Mount]]:
    """What the engine is asked to make, looked at last of all, and the mounts that it must then show. Blocks.

    Raises `Refused`, `Unavailable`.
    """
    body = create_request(container)
    _check(body, allowed, sources)  # before anything that is named in it is read
    if place is None or place.uid is None:
        return body, allowed.asked
    kept, copied = copies.made(container.name, allowed.asked, place.uid, sources)
    if copied:
        targets = {mount.target: mount.source for mount in copied}
        mounts = body["HostConfig"]["Mounts"]
        body["HostConfig"]["Mounts"] = [
            {**mount, "Source": targets.get(mount["Target"], mount["Source"])} for mount in mounts
        ]
        _check(body, msgspec.structs.replace(allowed, own=[*allowed.own, *copied], asked=kept), sources)
    return body, [*kept, *copied]


def _check(body: dict[str, Any], allowed: Allowed, sources: Sources) -> None:
    try:
        sources.hold([*allowed.own, *allowed.asked])
    except OSError as error:
        raise Refused("mounts", f"A mount cannot be looked at: {error}") from error
    check(body, allowed, resolve=sources.real, identify=sources.identity)


async def _started(attached: Attached) -> None:
    """The container says that it waits for being let go, or has ended."""
    with anyio.move_on_after(START_TIMEOUT_S) as scope:
        await attached.started.wait()
    if scope.cancelled_caught:
        raise EngineGone(f"The container did not come up within {START_TIMEOUT_S:g} s.", fix=HANGS_FIX)


async def _furnished(
    stack: AsyncExitStack, process: ContainerProcess, policy: Policy, ground: Ground, spec: ProcessSpec
) -> None:
    """The listeners in its network, and what of its workspace cannot be changed. Raises `SandboxError`."""
    await _served(stack, process, policy, ground, spec)
    init = process.init
    if init is not None and os.geteuid() == 0 and not spec.read_only and (policy.pin_git or policy.protected):
        await anyio.to_thread.run_sync(inside.pin, init.pid, policy)
    elif policy.protected and not spec.read_only:
        raise errors.Unavailable(
            "Files of a workspace can be protected by root beside the engine only.",
            fix="run the host as root, or use the runtime bwrap",
        )


async def _served(
    stack: AsyncExitStack, process: ContainerProcess, policy: Policy | None, ground: Ground, spec: ProcessSpec
) -> None:
    if policy is None or not (policy.allow or policy.network == "allowlist"):
        return
    if process.init is None:
        raise _no_allowlist("The containers of this engine run on another machine")
    listeners = await doors.listen(process.init.pid, policy)
    gate = await stack.enter_async_context(doors.serving(listeners, policy))
    if gate is not None:
        stack.enter_context(ground.gates.of(gate, spec.labels))


def bound(tasks: TaskGroup, process: Watched, wall_s: float | None) -> None:
    """End it after this time, if there is a limit."""
    if wall_s is None:
        return

    async def end() -> None:
        await anyio.sleep(wall_s)
        await process.kill(Ending("time", f"it ran longer than its limit of {wall_s:g} s"))

    tasks.start_soon(end)


async def _init(engine: Engine, attached: Attached, name: str, container_id: str) -> Identity | None:
    """By its cgroup; where it has none, by the line that it has written."""
    state = (await engine.call(lambda client: client.inspect_container(name)))["State"]
    pid = int(state.get("Pid") or 0)
    init = await anyio.to_thread.run_sync(inside.init_of, pid, container_id)
    if init is None:
        await _started(attached)
        init = await anyio.to_thread.run_sync(inside.named, pid, owned.marker_of(name))
    return init


async def _removed(ground: Ground, name: str) -> None:
    try:
        with anyio.CancelScope(shield=True):
            await owned.remove(ground.engine, name)
    except errors.Unavailable:
        ground.left(name)
    finally:
        ground.running.discard(name)


def _policy(ground: Ground, spec: ProcessSpec, place: Place | None) -> Policy | None:
    """As much of a jail's policy as holds for what is made in a container from outside."""
    if place is None:
        return None
    return Policy(
        workspace=place.workspace,
        home=None if spec.snapshots else place.home,
        tmp=None if spec.snapshots else place.tmp,
        binds=tuple(Bind(Path(mount.source), mount.target, mount.read_only) for mount in asked_mounts(spec)),
        network=spec.network,
        allow=spec.allow if spec.network != "host" else (),
        allow_hint=hint(spec.labels),
        on_decision=ground.decisions.adder(spec.labels),
        workspace_read_only=spec.read_only,
        protected=spec.protected,
        pin_git=spec.pin_git,
        uid=place.uid,
    )


def _check_network(spec: ProcessSpec, facts: Facts) -> None:
    """Fail closed: where no listener can be made in a container's network there is no allowlist."""
    if spec.network == "host" or not (spec.allow or spec.network == "allowlist"):
        return
    if os.geteuid() != 0:
        raise _no_allowlist("This host does not run as root")
    if facts.rootless:
        raise _no_allowlist("The engine does not run as root")


def _no_allowlist(why: str) -> errors.Unavailable:
    return errors.Unavailable(
        f"{why}: no listener of the allowlist can be made in a container's network.", fix=_ROOT_FIX
    )


def _proxy_environment(spec: ProcessSpec) -> dict[str, str]:
    if spec.network != "allowlist":
        return {}
    found = environment.beneath(spec.allow)
    return found | environment.git_over_https(spec.allow, {**found, **spec.env})


def _allowed(ground: Ground, container: Container, facts: Facts) -> Allowed:
    return Allowed(
        own=[*own_mounts(container.spec, container.folders), *container.shown],
        asked=asked_mounts(container.spec),
        closed=ground.closed,
        sockets=(ground.engine.path,),
        host_network=container.spec.network == "host",
        init=container.init,
        rootless=facts.rootless,
        seccomp=container.seccomp if facts.podman else None,
    )


def needed(settings: DockerSettings, cpus: float | None) -> Sequence[str]:
    """What an engine must be able to bound; the CPUs where there is a limit."""
    if not settings.require_limits:
        return ()
    return ("memory", "processes") if cpus is None else ("memory", "processes", "CPUs")


def user_of(place: Place | None, facts: Facts) -> str:
    """Whoever owns the place. The root of a rootless engine is the user that it runs as."""
    if facts.rootless:
        return "0:0"
    uid = place.uid if place is not None else None
    if uid is not None:
        return f"{uid}:{uid}"
    return f"{os.geteuid()}:{os.getegid()}" if os.geteuid() != 0 else "65534:65534"


def _user_processes() -> int:
    """What the kernel has, and this host may. podman would set more, which its root may not do everywhere."""
    most = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    all_pids = int(Path("/proc/sys/kernel/pid_max").read_text())
    return all_pids if most == resource.RLIM_INFINITY else min(most, all_pids)


def _keeper(settings: DockerSettings, place: Place | None, facts: Facts) -> str:
    """Somebody that no command runs as: with root's places the uid behind the last of theirs."""
    if facts.rootless or place is None or place.uid is None:
        return "65534:65534"
    uid = settings.uid_first + settings.uid_count
    return f"{uid}:{uid}"


def _within_machine(limits: Limits) -> Limits:
    """The engine refuses more CPUs than there are."""
    return limits if limits.cpus is None else replace(limits, cpus=min(limits.cpus, float(os.cpu_count() or 1)))
