"""A podman service of the tests' own: its own socket, its own folders, and nothing left of it afterwards."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import docker

from .dockerd import END_S, UP_S, answers

_MNT_DETACH = 2
# No systemd is asked for groups, and nothing goes to its journal.
CONFIG = """
[containers]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "{runtime}"
"""


class Podman:
    """Started as root; without a network. It ends by itself with nobody."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="kp-", dir="/tmp"))
        self.socket = str(self.folder / "s")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Until it answers."""
        runtime = "runc" if shutil.which("runc") else "crun"
        config = self.folder / "containers.conf"
        config.write_text(CONFIG.format(runtime=runtime))
        places = (("--root", "r"), ("--runroot", "n"), ("--tmpdir", "t"))
        command = ["podman", *(word for option, name in places for word in (option, str(self.folder / name)))]
        command += ["system", "service", "--time", "0", f"unix://{self.socket}"]
        env = {**os.environ, "CONTAINERS_CONF": str(config), "TMPDIR": str(self.folder)}
        with (self.folder / "log").open("ab") as log:
            # conmon leaves a file in its folder when the memory limit was met.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, cwd=self.folder
            )
        deadline = time.monotonic() + UP_S
        while time.monotonic() < deadline and self._process.poll() is None:
            if answers(self.socket):
                return
            time.sleep(0.05)
        raise RuntimeError(f"podman did not start: {(self.folder / 'log').read_text()[-2000:]}")

    def close(self) -> None:
        """End it, and whatever it left: containers, mounts, files."""
        try:
            if self._process is not None and self._process.poll() is None:
                with docker.APIClient(f"unix://{self.socket}", timeout=30) as client:
                    for container in client.containers(all=True):
                        client.remove_container(container["Id"], force=True, v=True)
                self._process.send_signal(signal.SIGTERM)
                self._process.wait(END_S)
        finally:
            if self._process is not None:
                self._process.kill()
                self._process.wait(30)
            for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
                point = line.split()[1]
                if point.startswith(f"{self.folder}/"):
                    ctypes.CDLL(None).umount2(point.encode(), _MNT_DETACH)
            shutil.rmtree(self.folder)
