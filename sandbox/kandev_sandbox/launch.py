"""Starting bwrap: descriptors, staging, the drop to the jail's uid, and holding the command back until released."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import termios
from array import array
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import anyio

from kandev_sandbox import argv, executable, limits, mountinfo, mountpoints, pins, records, seccomp, staging, userstage
from kandev_sandbox.bwrap import Bwrap
from kandev_sandbox.errors import PolicyError
from kandev_sandbox.exposed import Exposed
from kandev_sandbox.layout import Layout, etc_files
from kandev_sandbox.namespaces import within
from kandev_sandbox.pipes import PipeReader, PipeWriter, pipe
from kandev_sandbox.policy import Policy

Stdio = Literal["pipe", "null", "inherit"] | int
_PAGE = 4096


@dataclass(frozen=True, slots=True)
class Streams:
    """What the command's standard descriptors are: a pipe to the caller, /dev/null, the caller's own, or this one."""

    stdin: Stdio = "pipe"
    stdout: Stdio = "pipe"
    stderr: Stdio = "pipe"


@dataclass(slots=True)
class Started:
    """A bwrap that builds its jail and then waits for `release`. Its descriptors are the caller's to `close`.

    `descriptor` is the pidfd of bwrap, readable when it has ended.
    """

    process: subprocess.Popen[bytes]
    descriptor: int
    status: PipeReader
    gate: int
    stdin: PipeWriter | None
    stdout: PipeReader | None
    stderr: PipeReader | None
    stage: staging.Stage | None
    # Place inside → read-only? What is mounted for an ordinary user in folders that another jail may write to.
    mounts: Mapping[str, bool]

    def leave_stage(self) -> None:
        """Let go of the staged namespace: from here on only bwrap holds it. Again is nothing."""
        if self.stage is not None:
            self.stage.close()

    def close(self) -> None:
        """Close every descriptor. Call it when bwrap has ended, once."""
        self.leave_stage()
        for stream in (self.stdin, self.stdout, self.stderr, self.status):
            if stream is not None:
                stream.close()
        os.close(self.descriptor)
        os.close(self.gate)


async def stage(policy: Policy, bwrap: Bwrap, namespace: int | None = None) -> staging.Stage | None:
    """Make the places of the binds. As root, also the namespace in which the jail's uid reaches its folders; else None,
    since nothing is dropped.

    `namespace` is the one in which the folders are looked for, if not this process's.
    """
    if os.geteuid() == 0 and policy.uid is None:
        raise PolicyError("A jail is never run as root.", "give the workspace a uid of its own (Policy.uid)")
    return await anyio.to_thread.run_sync(within, namespace, _stage, policy, bwrap)


def _stage(policy: Policy, bwrap: Bwrap) -> staging.Stage | None:
    mountpoints.make(policy)
    if policy.uid is None or os.geteuid() != 0:
        userstage.prepare(policy)
        return None
    writable = (folder for folder in (policy.workspace, policy.home, policy.tmp) if folder is not None)
    sources = [staging.Source(folder, False) for folder in writable]
    sources += [staging.Source(bind.source, bind.read_only) for bind in policy.binds]
    sources += [staging.Source(tree, True) for tree in bwrap.trees]
    return staging.stage(sources, policy.uid, partial(pins.fasten, policy))


def start(
    policy: Policy,
    command: Sequence[str],
    bwrap: Bwrap,
    *,
    stage: staging.Stage | None,
    env: Mapping[str, str],
    cwd: str,
    streams: Streams,
    mark: str,
    as_init: bool = False,
) -> Started:
    """Spawn bwrap. Must be called on the event loop's thread: with --die-with-parent, bwrap dies with the *thread*."""
    with ExitStack() as ours, ExitStack() as theirs:
        if stage is not None:
            ours.callback(stage.close)
        files = {path: _sealed(content, theirs) for path, content in etc_files(policy).items()}
        status_reader, status_writer = os.pipe()
        ours.callback(os.close, status_reader)
        theirs.callback(os.close, status_writer)
        gate, block = _gate(ours, theirs)
        program = _sealed(seccomp.assemble(policy.seccomp, policy.nested), theirs)
        exposed = Exposed.of(policy, stage is not None, theirs)
        options = argv.options(
            exposed.for_bwrap,
            Layout.detect(),
            _Sources(stage.paths if stage else {}),
            argv.Descriptors(status_writer, block, program, files),
            env=argv.environment(policy, env),
            cwd=cwd,
            pinned=exposed.pins_for_bwrap,
        )
        if as_init:
            options.append("--as-pid-1")
        arguments = _sealed("".join(f"{option}\0" for option in options).encode(), theirs)
        standard, pipes = _standard(streams, ours, theirs)
        path, around = executable.of(bwrap, stage, theirs)
        passed = [arguments, status_writer, block, program, *files.values()]
        passed += [descriptor for descriptor, _, _ in exposed.pins_for_bwrap]
        before = [*_dropping(policy, stage), path]
        if exposed.maker == "script":
            plan = _sealed(userstage.plan(policy, exposed.pinned, {records.VARIABLE: mark, **around}), theirs)
            # A path into this process leads nowhere from another user namespace (ptrace(2)).
            in_memory, around = executable.descriptor(path), {}
            before = userstage.command(status_writer, plan, path if in_memory is None else str(in_memory))
            passed += [plan] if in_memory is None else [plan, in_memory]
        process = subprocess.Popen(
            [*before, "--args", str(arguments), "--", *command],
            stdin=standard["stdin"],
            stdout=standard["stdout"],
            stderr=standard["stderr"],
            env={records.VARIABLE: mark, **around},
            cwd="/",
            umask=0o022,
            pass_fds=passed,
            start_new_session=True,
        )
        ours.pop_all()
        return Started(
            process,
            os.pidfd_open(process.pid),
            PipeReader(status_reader),
            gate,
            PipeWriter(pipes["stdin"]) if "stdin" in pipes else None,
            PipeReader(pipes["stdout"]) if "stdout" in pipes else None,
            PipeReader(pipes["stderr"]) if "stderr" in pipes else None,
            stage,
            exposed.wanted,
        )


async def child_pid(status: PipeReader) -> int | None:
    """The host pid of the jail's first process, told by bwrap; None when bwrap ended without making one.

    Raises `StagingFailed` with what kept its mounts from being made.
    """
    text = b""
    while b"\n" not in text:
        try:
            text += await status.receive()
        except anyio.EndOfStream:
            return None
    first = text.split(b"\n")[0]
    refused = userstage.refused(first)
    if refused is not None:
        raise refused
    return int(json.loads(first)["child-pid"])


def command_ran(status: PipeReader) -> bool:
    """After the end: was the command executed at all? (bwrap tells an exit code only of a command that was.)"""
    with suppress(BlockingIOError):  # it wrote nothing, and a process that is just being started has our end as well
        return b'"exit-code"' in os.read(status.fileno(), _PAGE)
    return False


async def mounted(started: Started, init: int) -> None:
    """Wait until bwrap has built the jail of this first process. Raises `SpawnFailed` if a mount is elsewhere."""
    await mountinfo.check(init, started.mounts)


async def release(gate: int) -> bool:
    """Let the command run, and wait until the jail, built by now, has taken notice. False if nobody is there."""
    try:
        os.write(gate, b"1")
    except BrokenPipeError:
        return False
    await anyio.wait_writable(gate)
    # "Writable" is also a pipe that its only reader left without reading: then the byte is still in it.
    unread = array("i", [0])
    fcntl.ioctl(gate, termios.FIONREAD, unread)
    return unread[0] == 0


class _Sources(dict[Path, str]):
    """Where a source lies: staged, or else at its own path."""

    def __missing__(self, path: Path) -> str:
        return str(path)


def _sealed(content: bytes, theirs: ExitStack) -> int:
    descriptor = os.memfd_create("kandev")
    theirs.callback(os.close, descriptor)
    os.pwrite(descriptor, content, 0)  # bwrap reads from where the descriptor stands
    return descriptor


def _gate(ours: ExitStack, theirs: ExitStack) -> tuple[int, int]:
    """The pipe that holds the command back: (our end, bwrap's end).

    bwrap's end is open for reading *and writing*, so that the death of the host never looks like a release. It is
    a packet pipe of one slot: our end is writable again exactly when bwrap has read the release.
    """
    reader, gate = os.pipe2(os.O_CLOEXEC | os.O_DIRECT | os.O_NONBLOCK)
    ours.callback(os.close, gate)
    fcntl.fcntl(gate, fcntl.F_SETPIPE_SZ, _PAGE)
    block = os.open(f"/proc/self/fd/{reader}", os.O_RDWR | os.O_CLOEXEC)
    theirs.callback(os.close, block)
    os.close(reader)
    return gate, block


def _standard(streams: Streams, ours: ExitStack, theirs: ExitStack) -> tuple[dict[str, int | None], dict[str, int]]:
    """Popen's arguments, and our ends of the pipes by name."""
    standard: dict[str, int | None] = {}
    pipes: dict[str, int] = {}
    for name, kind in (("stdin", streams.stdin), ("stdout", streams.stdout), ("stderr", streams.stderr)):
        if kind != "pipe":
            standard[name] = kind if isinstance(kind, int) else subprocess.DEVNULL if kind == "null" else None
            continue
        reader, writer = pipe()
        mine, theirs_end = (writer, reader) if name == "stdin" else (reader, writer)
        ours.callback(os.close, mine)
        theirs.callback(os.close, theirs_end)
        standard[name], pipes[name] = theirs_end, mine
    return standard, pipes


def _dropping(policy: Policy, stage: staging.Stage | None) -> list[str]:
    """Enter the staged namespace and drop to the jail's uid, gid and no groups, before bwrap is executed."""
    if stage is None:
        return []
    # By this process's pid, not by an inherited descriptor: nothing of it can reach the jail.
    namespace = f"--mount=/proc/{os.getpid()}/fd/{stage.namespace}"
    return [limits.tool("nsenter"), namespace, "--setgid", str(policy.uid), "--setuid", str(policy.uid), "--"]
