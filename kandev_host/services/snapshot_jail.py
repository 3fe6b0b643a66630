"""Running the programs of `services.jailed` in a jail that sees the snapshots, and the workspace read-only.

The jail shares nothing else with the agent: no home, no tmp, no network. The programs come in through stdin.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from kandev_host.errors import Unavailable
from kandev_host.interfaces import Mount, ProcessSpec, Result, Runtime
from kandev_host.printable import printable

FOLDER = Path(__file__).parent / "jailed"
PACKAGE = "kandev_host.services.jailed"
REPLY_BYTES = 4 << 20
SAID_CHARS = 1000
BAD_INPUT = 3
ORDER = ("index", "files", "ignores", "walk", "store", "compare", "take", "look", "keep", "restore", "bring")
# Makes modules of the sources in the first line, and calls what it names; the rest of stdin is for that.
_BOOT = f"""
import json, sys, types
told = json.loads(sys.stdin.buffer.readline())
for name in ("kandev_host", "kandev_host.services", "{PACKAGE}"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = []
for name, source in told["sources"].items():
    module = sys.modules["{PACKAGE}." + name] = types.ModuleType("{PACKAGE}." + name)
    setattr(sys.modules["{PACKAGE}"], name, module)
    exec(compile(source, name, "exec"), module.__dict__)
module = sys.modules["{PACKAGE}." + told["module"]]
try:
    reply = getattr(module, told["function"])(**told["arguments"])
except (OSError, sys.modules["{PACKAGE}.store"].GitError) as error:
    print(error, file=sys.stderr)
    sys.exit({BAD_INPUT})
if reply is not None:
    json.dump(reply, sys.stdout)
"""


class SnapshotFailed(Unavailable):
    """A program of ours in the jail could not do what it should, and says why."""


class SnapshotJail(msgspec.Struct, frozen=True):
    """For one workspace of one runtime. Raises `SnapshotFailed`, `TimedOut`, and `Unavailable` as `Runtime.run`."""

    runtime: Runtime
    workspace_id: str
    timeout_s: float

    async def call(self, module: str, function: str, *, writes: bool = False, **arguments: Any) -> dict[str, Any]:
        """What it answers; only if it `writes` it may change the workspace."""
        result = await self.raw(module, function, arguments, limit_bytes=REPLY_BYTES, writes=writes)
        if result.truncated:
            raise SnapshotFailed(f"The answer has more than {REPLY_BYTES} bytes")
        reply: dict[str, Any] = msgspec.json.decode(result.stdout, type=dict[str, Any])
        return reply

    async def raw(
        self,
        module: str,
        function: str,
        arguments: Mapping[str, Any],
        *,
        limit_bytes: int,
        stdin: bytes = b"",
        writes: bool = False,
        mounts: tuple[Mount, ...] = (),
    ) -> Result:
        """Its output as it is, cut at `limit_bytes`."""
        spec = self.spec(mounts=mounts, read_only=not writes)
        await self.runtime.prepare(self.workspace_id)
        stdin = program(module, function, arguments) + stdin
        result = await self.runtime.run(spec, stdin=stdin, timeout_s=self.timeout_s, max_output_bytes=limit_bytes)
        if result.exit_code != 0 and not result.truncated:
            raise SnapshotFailed(said(result))
        return result

    def spec(self, *, mounts: tuple[Mount, ...] = (), read_only: bool = True) -> ProcessSpec:
        """A process that runs the `program` it is sent."""
        return ProcessSpec(
            workspace_id=self.workspace_id,
            command=(sys.executable, "-I", "-S", "-c", _BOOT),
            cwd="/",
            mounts=mounts,
            read_only=read_only,
            snapshots=True,
            programs=("git",),
            labels={"task_id": self.workspace_id, "purpose": "snapshot"},
        )


def program(module: str, function: str, arguments: Mapping[str, Any]) -> bytes:
    """What such a process reads first."""
    told = {"sources": _sources(), "module": module, "function": function, "arguments": arguments}
    return json.dumps(told).encode() + b"\n"


@cache
def _sources() -> dict[str, str]:
    return {name: (FOLDER / f"{name}.py").read_text() for name in ORDER}


def said(result: Result) -> str:
    """Why it failed."""
    text = printable(result.stderr.decode("utf-8", "replace"), lines=True).strip()
    if result.exit_code == BAD_INPUT:
        return text[-SAID_CHARS:]
    last = text.splitlines()[-1:] or [f"it ended with status {result.exit_code}"]
    met = "" if result.ending is None else f" ({result.ending})"
    return f"The snapshot's program failed: {last[0]}"[-SAID_CHARS:] + met
