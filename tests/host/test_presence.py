"""Which host runs, and which is only left in the table of processes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from kandev_host.cli.app import run
from kandev_host.gateway.tokens import load_token
from kandev_host.presence import died, holder, running

NOT_RUNNING = 3
# Says that it is a host, and is killed by the first one who connects.
HOST = """
import os, signal, socket, sys
from pathlib import Path
from kandev_host.presence import announced, only_host
data = Path(sys.argv[1])
with socket.create_server(("127.0.0.1", 0)) as server, only_host(data):
    with announced(data, f"http://127.0.0.1:{server.getsockname()[1]}"):
        print("ready", flush=True)
        server.accept()
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_host_that_was_killed_does_not_run_though_nobody_has_reaped_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load_token(tmp_path)
    monkeypatch.setenv("KANDEV_HOME", str(tmp_path))
    host = subprocess.Popen([sys.executable, "-c", HOST, str(tmp_path)], stdout=subprocess.PIPE)
    assert host.stdout is not None
    with host.stdout:
        assert host.stdout.readline() == b"ready\n"
        found = running(tmp_path)
        assert found is not None
        assert found.pid == host.pid
        assert run(["status"]) == NOT_RUNNING, "it ends while it is asked"
        ends = time.monotonic() + 30
        while (state := Path(f"/proc/{host.pid}/stat").read_text().rpartition(") ")[2][0]) != "Z":
            assert time.monotonic() < ends, state
            time.sleep(0.01)
        assert running(tmp_path) is None
        assert died(tmp_path)
        with holder(tmp_path) as held:
            assert held is None
        assert run(["status"]) == NOT_RUNNING
        assert "the last one died" in capsys.readouterr().out
    assert host.wait(30) == -9
