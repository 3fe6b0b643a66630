"""Run as a module: open a runtime, start a process in "w1", say its ref, and wait for SIGKILL.

Argument: JSON with `plugin`, `provider`, `settings`, `data_dir`, `script` and `labels`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import anyio

from kandev_host.testing.runtime.base import line, open_runtime, sh


async def main(asked: dict[str, Any]) -> None:
    where = Path(asked["data_dir"])
    async with open_runtime(asked["plugin"], asked["provider"], asked["settings"], where) as runtime:
        await runtime.prepare("w1")
        async with runtime.spawn(sh(asked["script"], "lock", adoptable=True, labels=asked["labels"])) as process:
            await line(process)
            print(process.ref, flush=True)
            await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(main, json.loads(sys.argv[1]))
