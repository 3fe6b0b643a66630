"""Making a new workspace ready as `[repositories.NAME]` says: files that git ignores are copied, then a script runs.

Files are read from the user's checkout by the host, through no link, and written inside the jail. The script runs
inside, without what is secret of the host, and reaches only what its table allows.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from collections.abc import Mapping
from fnmatch import fnmatchcase

from anyio import to_thread

from kandev_host.errors import KandevError, TimedOut
from kandev_host.interfaces import ProcessSpec, Result, Runtime
from kandev_host.journal import Journal
from kandev_host.models import Command, Setup
from kandev_host.printable import printable
from kandev_host.services.clones import Source
from kandev_host.services.users import HOST
from kandev_host.sessions.audit import KEPT_BYTES, Entry, audited
from kandev_host.settings.repositories import RepositorySettings

log = logging.getLogger(__name__)
SETUP_TIMEOUT_S = 900.0
COPY_S = 60.0
COPY_LIMIT_BYTES = 16 << 20
OUTPUT_BYTES = 256 << 10
KEPT_CHARS = 16 << 10
SHOWN_CHARS = 600
CANCELLED = "nobody waited for the workspace any more"
_ABSENT = {errno.ENOENT, errno.ENOTDIR}

# $1: the path, $2: the mode. noclobber opens with O_EXCL: what the clone brought stays, and no link is written through.
_WRITE = """
set -eu
umask 077
case $1 in */*) mkdir -p -- "${1%/*}" ;; esac
if [ -e "$1" ] || [ -L "$1" ]; then exit 0; fi
set -C
cat > "$1"
chmod "$2" -- "$1"
"""


class SetupFailed(KandevError):
    """A workspace could not be made ready as the settings say; `output` is the end of what the script wrote."""

    code = "UNAVAILABLE"

    def __init__(self, message: str, output: str | None = None) -> None:
        super().__init__(message)
        self.output = output


class Setups:
    """The tables `[repositories.NAME]`, in their order."""

    def __init__(self, settings: Mapping[str, RepositorySettings], journal: Journal) -> None:
        self._settings = settings
        self._journal = journal

    def find(self, source: Source | None) -> tuple[str, RepositorySettings] | None:
        """The first table whose `match` fits where the repository comes from; a folder is known by its real path."""
        if source is None:
            return None
        location = source.repository.location
        if source.local is not None:
            location = os.path.realpath(os.path.expanduser(location))
        for name, table in self._settings.items():
            if fnmatchcase(location, os.path.expanduser(table.match or "")):
                return name, table
        return None

    async def prepare(self, runtime: Runtime, workspace_id: str, source: Source | None) -> Setup | None:
        """What was done; None without a table. Raises `SetupFailed`, and what `Runtime.run` raises."""
        found = self.find(source)
        if found is None or source is None:
            return None
        name, table = found
        began = time.monotonic()
        copied = []
        if table.copy and source.local is not None:
            copied = await _copy(runtime, workspace_id, name, table, source.repository.location)
        script, output = table.setup, ""
        if script is not None:
            output = await _run(self._journal, runtime, workspace_id, name, table, script)
        duration_ms = round((time.monotonic() - began) * 1000)
        return Setup(name=name, copied=tuple(copied), output=output, duration_ms=duration_ms)


async def _run(
    journal: Journal, runtime: Runtime, workspace_id: str, name: str, table: RepositorySettings, script: str
) -> str:
    """What it wrote. The script is a row of the audit, and runs only once that is there."""
    spec = ProcessSpec(
        workspace_id=workspace_id,
        command=("sh", "-c", f"exec 2>&1\n{script}"),
        network="allowlist" if table.allow else "none",
        allow=table.allow or (),
        labels={"task_id": workspace_id, "purpose": "setup"},
    )
    row = Command(task_id=workspace_id, command=script, cwd=spec.cwd, state="running", created_by=HOST.id)
    async with audited(journal, row, left=CANCELLED) as entry:
        result = await _to_end(runtime, spec, f"The setup of [repositories.{name}]", table, entry)
        _note(entry, result)
    output = _told(result)
    if result.exit_code != 0:
        end = f": {output[-SHOWN_CHARS:].strip()}" if output else ""
        how = ended_how(result)
        raise SetupFailed(f"The setup of [repositories.{name}] ended with {how}{end}", output)
    return output


async def _to_end(runtime: Runtime, spec: ProcessSpec, what: str, table: RepositorySettings, entry: Entry) -> Result:
    timeout_s = table.setup_timeout_s or SETUP_TIMEOUT_S
    try:
        return await runtime.run(spec, timeout_s=timeout_s, max_output_bytes=OUTPUT_BYTES)
    except TimedOut:
        entry.reason = "it took too long"
        raise SetupFailed(f"{what} took longer than {timeout_s:g} s") from None
    except KandevError as error:
        entry.reason = error.message
        raise


def _note(entry: Entry, result: Result) -> None:
    """For the audit. Of what was cut off its bytes are known, and not its end."""
    entry.exit_code = result.exit_code if result.exit_code >= 0 else 128 - result.exit_code
    entry.reason = result.ending
    entry.kept.take("stdout", result.stdout[:KEPT_BYTES] if result.truncated else result.stdout)
    if result.stdout_bytes is not None:
        entry.kept.bytes["stdout"] = result.stdout_bytes


def ended_how(result: Result) -> str:
    """ "status 1", or the limit that it met as well."""
    met = "" if result.ending is None else f" ({result.ending})"
    return f"status {result.exit_code}{met}"


def _told(result: Result) -> str:
    """The end of what the script wrote, as text that a terminal does not obey."""
    text = printable(result.stdout.decode("utf-8", "replace").replace("\r\n", "\n"), lines=True)
    note = "\n… (its output was longer)" if result.truncated else ""
    return text[-KEPT_CHARS:].rstrip() + note


async def _copy(runtime: Runtime, workspace_id: str, name: str, table: RepositorySettings, checkout: str) -> list[str]:
    copied = []
    for path in table.copy or ():
        try:
            found = await to_thread.run_sync(_read, checkout, path, table.copy_limit_bytes or COPY_LIMIT_BYTES)
        except OSError as error:
            raise SetupFailed(f"[repositories.{name}] copy: {path}: {error.strerror}") from error
        if found is None:
            log.info("[repositories.%s] copy: the checkout has no %s", name, path)
            continue
        content, mode = found
        spec = ProcessSpec(
            workspace_id=workspace_id,
            command=("sh", "-c", _WRITE, "sh", path, mode),
            labels={"task_id": workspace_id, "purpose": "setup"},
        )
        result = await runtime.run(spec, stdin=content, timeout_s=COPY_S)
        if result.exit_code != 0:
            reason = printable(result.stderr.decode("utf-8", "replace").strip())[-SHOWN_CHARS:]
            raise SetupFailed(f"[repositories.{name}] copy: {path} could not be written: {reason or ended_how(result)}")
        copied.append(path)
    return copied


def _read(checkout: str, path: str, limit_bytes: int) -> tuple[bytes, str] | None:
    """A regular file below the checkout and its mode; None if there is none. Blocks.

    The checkout is the user's, and what is in it the repository's: no link is followed on the way, and nothing else is
    opened. Raises `OSError` for a link, for what is no regular file, and for one that is too large.
    """
    folder = os.open(os.path.realpath(os.path.expanduser(checkout)), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in path.split("/"):
            inner = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            os.close(folder)
            folder = inner
            if stat.S_ISLNK(os.fstat(folder).st_mode):
                raise OSError(errno.ELOOP, "it is a symbolic link, or lies behind one")
        found = os.fstat(folder)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        if found.st_size > limit_bytes:
            raise OSError(errno.EFBIG, f"it is larger than {limit_bytes} bytes (copy_limit_bytes)")
        with open(f"/proc/self/fd/{folder}", "rb") as file:
            content = file.read(limit_bytes + 1)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise
    finally:
        os.close(folder)
    if len(content) > limit_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {limit_bytes} bytes (copy_limit_bytes)")
    return content, "700" if found.st_mode & 0o100 else "600"
