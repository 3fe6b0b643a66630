"""A Docker Engine of the tests' own: its own socket, its own folders, and nothing left of it afterwards."""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import docker

UP_S = 90.0
END_S = 60.0
_MNT_DETACH = 2


class Dockerd:
    """Started as root. `stop` and `start` again keep its images and containers."""

    def __init__(self) -> None:
        # A short path: that of a socket may have 107 bytes, and containerd makes some below it.
        self.folder = Path(tempfile.mkdtemp(prefix="kd-", dir="/tmp"))
        self.socket = str(self.folder / "s")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Until it answers."""
        for stale in ("p", "s"):
            (self.folder / stale).unlink(missing_ok=True)
        command = [
            shutil.which("dockerd") or "/usr/sbin/dockerd",
            *("--data-root", str(self.folder / "d"), "--exec-root", str(self.folder / "e")),
            *("-p", str(self.folder / "p"), "-H", f"unix://{self.socket}"),
            *("--bridge=none", "--iptables=false", "--ip6tables=false"),
        ]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + UP_S
        while time.monotonic() < deadline and self._process.poll() is None:
            if answers(self.socket):
                return
            time.sleep(0.05)
        raise RuntimeError(f"dockerd did not start: {(self.folder / 'log').read_text()[-2000:]}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it, and with SIGKILL its containerd as well; SIGTERM also ends its containers."""
        if self._process is None:
            return
        self._process.send_signal(number)
        self._process.wait(END_S)
        self._process = None
        if number == signal.SIGKILL:
            self._end_helpers("containerd")
            # A dead containerd that nobody reaped yet would count as running.
            (self.folder / "e/containerd/containerd.pid").unlink(missing_ok=True)

    def close(self) -> None:
        """End it, and whatever it left: containers, mounts, files."""
        try:
            if self._process is not None and self._process.poll() is None:
                with docker.APIClient(f"unix://{self.socket}", timeout=30) as client:
                    for container in client.containers(all=True):
                        client.remove_container(container["Id"], force=True, v=True)
            self.stop()
        finally:
            if self._process is not None:
                self._process.kill()
                self._process.wait(30)
            self._end_helpers("")
            for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
                point = line.split()[1]
                if point.startswith(str(self.folder)):
                    ctypes.CDLL(None).umount2(point.encode(), _MNT_DETACH)
            shutil.rmtree(self.folder)

    def _end_helpers(self, name: str) -> None:
        """What of containerd and its shims has our folder in its arguments; with a name, that program alone.

        Afterwards none of it runs. Some dies with its parent, perhaps at this very moment.
        """
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            program = line.split(b"\0")[0].rpartition(b"/")[2].decode()
            if str(self.folder).encode() in line and program.startswith("containerd") and name in ("", program):
                end(int(entry.name))


def answers(path: str) -> bool:
    """Does an engine serve this socket?"""
    try:
        with socket.socket(socket.AF_UNIX) as knocking:  # the SDK leaves its socket open where nobody listens
            knocking.connect(path)
        with docker.APIClient(f"unix://{path}", timeout=5) as client:
            return bool(client.ping())
    except (docker.errors.DockerException, OSError):
        return False


def end(pid: int) -> None:
    """At once, and wait for it."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        select.select([descriptor], [], [], END_S)
    finally:
        os.close(descriptor)
