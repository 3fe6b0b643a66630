"""The repository of snapshots, a bare one with SHA-256 names. git reads and writes only this, never the workspace."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

FOLDER = Path("/snapshots")
GIT = FOLDER / "git"
ERROR_BYTES = 2000
_CONFIG = {
    "core.bigFileThreshold": "16m",
    "core.protectHFS": "false",
    "core.protectNTFS": "false",
    "core.quotePath": "false",
    "core.attributesFile": "/dev/null",
    "diff.renameLimit": "1000",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "pack.threads": "1",
    "pack.windowMemory": "64m",
    "safe.directory": "*",
}


class GitError(Exception):
    """A git command of ours failed; the text is git's."""


def environment() -> dict[str, str]:
    """Nothing of the host's, the system's or a user's settings."""
    env = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": "/nonexistent",
        "LC_ALL": "C.UTF-8",
        "GIT_DIR": str(GIT),
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_PAGER": "cat",
        "GIT_CONFIG_COUNT": str(len(_CONFIG)),
    }
    for number, (key, value) in enumerate(_CONFIG.items()):
        env |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return env


def git(*arguments: str, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> bytes:
    """What it writes to stdout, with `env` over our own. Raises `GitError`."""
    done = subprocess.run(
        ["git", *arguments],
        input=stdin,
        env={**environment(), **(env or {})},
        cwd="/",
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        raise GitError(f"git {arguments[0]}: " + done.stderr[-ERROR_BYTES:].decode("utf-8", "replace").strip())
    return done.stdout


def pass_on(*arguments: str) -> None:
    """Its output is ours. Raises `GitError`."""
    if subprocess.run(["git", *arguments], env=environment(), cwd="/", check=False).returncode != 0:
        raise GitError(f"git {arguments[0]} failed")


def ensure() -> None:
    """Make the repository if it is not there, and take away what a killed git left."""
    if not (GIT / "HEAD").is_file():
        git("init", "--quiet", "--bare", "--template=", "--object-format=sha256", str(GIT))
    for lock in GIT.glob("*.lock"):
        lock.unlink()
    for left in (*GIT.glob("objects/pack/tmp_*"), *GIT.glob("refs/**/*.lock"), *FOLDER.glob("*.new")):
        left.unlink()


def resolved(name: str) -> str | None:
    """The full name of an object."""
    try:
        return git("rev-parse", "--verify", "--quiet", name).decode().strip()
    except GitError:
        return None


def size_bytes() -> int:
    """What the repository takes of the disk, about."""
    total = 0
    for folder, _, names in os.walk(GIT):
        total += sum(os.lstat(os.path.join(folder, name)).st_blocks * 512 for name in names)
    return total


def listed(tree: str) -> Iterator[tuple[str, str, bytes]]:
    """(mode, object, path) of every file of a tree."""
    for line in git("ls-tree", "-r", "-z", "--full-tree", tree).split(b"\0"):
        if line:
            told, _, path = line.partition(b"\t")
            mode, _, name = told.split(b" ")
            yield mode.decode(), name.decode(), path


class Writer:
    """Objects on their way into the repository through one `git fast-import`, started with the first."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def blob(self, content: bytes) -> None:
        self._write(b"blob\ndata %d\n" % len(content), content, b"\n")

    def commit(self, ref: str, entries: Iterator[tuple[bytes, str, bytes]]) -> None:
        """A commit without a parent that holds (mode, object, path), and is all that `ref` names."""
        who = b"kandev-host <kandev-host@localhost.invalid> 0 +0000"
        self._write(b"reset %b\n\ncommit %b\ncommitter %b\ndata 0\n" % (ref.encode(), ref.encode(), who))
        for mode, name, path in entries:
            self._write(b'M %b %b "%b"\n' % (mode, name.encode(), _quoted(path)))

    def close(self) -> None:
        """Have all of it stored. Raises `GitError`."""
        if self._process is not None:
            process, self._process = self._process, None
            try:
                _, told = process.communicate(b"\ndone\n")
            except BrokenPipeError:
                told = b"fast-import ended early"
            if process.returncode != 0:
                raise GitError("git fast-import: " + told[-ERROR_BYTES:].decode("utf-8", "replace").strip())

    def _write(self, *parts: bytes) -> None:
        if self._process is None:
            arguments = ["git", "fast-import", "--quiet", "--done", "--force", "--date-format=raw-permissive"]
            pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
            self._process = subprocess.Popen(
                arguments, stdin=pipe, stdout=nothing, stderr=pipe, env=environment(), cwd="/"
            )
        stream = self._process.stdin
        assert stream is not None
        try:
            for part in parts:
                stream.write(part)
        except BrokenPipeError as error:
            told = self._process.stderr.read(ERROR_BYTES) if self._process.stderr else b""
            raise GitError("git fast-import: " + told.decode("utf-8", "replace").strip()) from error


def _quoted(path: bytes) -> bytes:
    return path.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")
