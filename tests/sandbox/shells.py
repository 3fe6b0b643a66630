"""Shells for tests: opened, and judged after whatever a command did to them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio

from kandev_sandbox import Shell

DEADLINE_S = 90


@asynccontextmanager
async def opened(sandbox: Any, **options: Any) -> AsyncIterator[Shell]:
    """A shell on the fixture's folders; names of the policy change it, the others are those of `Shell.under`."""
    names = {name: options.pop(name) for name in list(options) if name in type(sandbox.policy).__dataclass_fields__}
    with anyio.fail_after(DEADLINE_S):
        async with Shell.under(replace(sandbox.policy, **names), bwrap=sandbox.bwrap, **options) as shell:
            yield shell


async def right(shell: Shell) -> None:
    """Is it still usable, and are its answers right? Exit code, both outputs, working directory, exports, umask."""
    begin = 'cd /workspace && mkdir -p deep && cd deep && export MARK="it\'s $((6 * 7))" && umask 027'
    made = await shell.run(f"PATH=/usr/bin:/bin; {begin}; echo out; echo err >&2")
    assert (made.exit_code, made.stdout, made.cwd) == (0, b"out\n", "/workspace/deep")
    notice, _, rest = made.stderr.rpartition(b"is gone; cd elsewhere\n")
    assert (rest, notice[:7]) in {(b"err\n", b""), (b"err\n", b"kandev:")}
    told = await shell.run('pwd; printf "%s\\n" "$MARK"; umask; (exit 9)')
    assert (told.exit_code, told.stdout, told.stderr) == (9, b"/workspace/deep\nit's 42\n0027\n", b"")
    last = await shell.run("cd /workspace && unset MARK && umask 022 && exec true")
    assert (last.exit_code, last.stdout, last.stderr) == (0, b"", b"")
    assert not any((result.timed_out or result.truncated) for result in (made, told, last))
