"""`kandev-host events --follow` over a kill and a new start of the host, at another address."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from typing import Any

import anyio

from kandev_host.client import Client

DEADLINE_S = 60
OUTAGE = ["Waiting for the host to come back.", "Connected again."]


def make_board(host: Any, name: str) -> None:
    async def make() -> None:
        async with Client.connect(host.url, host.token) as client:
            await client.call("board.create", {"name": name})

    anyio.run(make)


def test_followed_events_go_on_over_a_killed_host_without_gap_or_duplicate(host: Any) -> None:
    """P5, on the command line."""
    process = subprocess.Popen(
        [sys.executable, "-m", "kandev_host", "events", "--follow", "--after", "0", "--json"],
        env={**os.environ, "KANDEV_HOME": str(host.home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    deadline = threading.Timer(DEADLINE_S, process.kill)
    deadline.start()
    try:
        told = []
        for number, name in enumerate(("before", "between", "after")):
            if number:
                host.kill()
                host.start()
            make_board(host, name)
            told.append(json.loads(process.stdout.readline()))
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) == 130
        assert [event["payload"]["board"]["name"] for event in told] == ["before", "between", "after"]
        assert [event["seq"] for event in told] == [1, 2, 3]
        told_of = process.stderr.read().splitlines()
        assert [line.rpartition(". ")[2] for line in told_of if line] == OUTAGE * 2
    finally:
        deadline.cancel()
        process.kill()
        process.wait(10)
        process.stdout.close()
        process.stderr.close()
