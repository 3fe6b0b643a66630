"""session_memory: what an idle session of an agent costs the host, against a program of the official SDK.

Both sides open one session first, which loads what the first one needs, and then 50 more; the figure is the growth of
resident memory by 50. The agents' own processes do not count. Ours holds the jail, the session, its rows, its logs and
its capture; the floor holds a connection.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import AsyncExitStack

from benchmarks.acp import CONFIG, FLOOD_AGENT, Counting, launch
from benchmarks.measure import Row, both
from benchmarks.process import rss_mib
from benchmarks.servers import Server, environment, host
from kandev_host.client import Client

SESSIONS = 50


async def grown_kib(server: Server) -> float:
    async with Client.connect(server.url, server.token) as client:
        await launch(client)
        before = rss_mib(server.pid)
        await launch(client, SESSIONS)
        return (rss_mib(server.pid) - before) * 1024 / SESSIONS


def host_kib() -> float:
    with host(CONFIG) as server:
        return asyncio.run(grown_kib(server))


async def sdk_grown_kib() -> float:
    import acp

    async def session() -> None:
        agent = acp.spawn_agent_process(Counting(), str(FLOOD_AGENT))  # type: ignore[arg-type]
        connection, _process = await stack.enter_async_context(agent)
        await connection.initialize(protocol_version=1)
        await connection.new_session(cwd="/", mcp_servers=[])

    async with AsyncExitStack() as stack:
        await session()
        before = rss_mib(os.getpid())
        for _ in range(SESSIONS):
            await session()
        return (rss_mib(os.getpid()) - before) * 1024 / SESSIONS


def sdk_kib() -> float:
    command = [sys.executable, "-m", "benchmarks.memory"]
    return float(subprocess.run(command, env=environment(), check=True, stdout=subprocess.PIPE).stdout)


ROWS = (
    Row(
        "session_memory",
        f"resident memory of an idle session, of {SESSIONS}, against one of the official SDK",
        "KiB",
        "≤ 4",
        both(host_kib, sdk_kib),
    ),
)

if __name__ == "__main__":
    print(asyncio.run(sdk_grown_kib()))
