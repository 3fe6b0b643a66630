"""Engines that an ordinary user starts for itself, whom nobody knows outside: nothing of them is left afterwards."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import ClassVar

from .dockerd import END_S, UP_S, answers, end
from .podman import CONFIG

_NUMBER = os.getpid() % 4096  # beside others that run these tests: what is theirs is not ended
UID = 0x5FFF_0000 + _NUMBER
SUBUIDS = range(0x6000_0000 + (_NUMBER << 16), 0x6000_0000 + (_NUMBER + 1 << 16))
# In a mount namespace of its own the machine has this user, with uids to hand on.
_BECOME = """
set -e
cp -a /etc etc
echo "rootless:x:{uid}:{uid}::{home}:/bin/sh" >> etc/passwd
echo "rootless:{first}:{count}" | tee etc/subuid > etc/subgid
chmod 644 etc/subuid etc/subgid
mount --bind etc /etc
cd {home}
exec setpriv --reuid {uid} --regid {uid} --clear-groups --inh-caps=-all -- "$@"
"""


class Rootless:
    """Started by root. The socket belongs to `UID`, as does all that the engine runs."""

    script: ClassVar[str]

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="kr-", dir="/tmp"))
        self.folder.chmod(0o711)
        self.home = self.folder / "h"
        self.home.mkdir(mode=0o700)
        os.chown(self.home, UID, UID)
        self.socket = str(self.home / "s")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Until it answers."""
        (self.folder / "containers.conf").write_text(CONFIG.format(runtime="runc" if shutil.which("runc") else "crun"))
        fields = {"uid": UID, "first": SUBUIDS.start, "count": len(SUBUIDS), "home": shlex.quote(str(self.home))}
        become = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _BECOME.format(**fields), "become"]
        env = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            **dict.fromkeys(("HOME", "XDG_RUNTIME_DIR", "TMPDIR"), str(self.home)),
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
        }
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*become, "sh", "-c", self.script],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=env,
                cwd=self.folder,
            )
        deadline = time.monotonic() + UP_S
        while time.monotonic() < deadline and self._process.poll() is None:
            if answers(self.socket):
                return
            time.sleep(0.05)
        raise RuntimeError(f"{type(self).__name__} did not start: {(self.folder / 'log').read_text()[-2000:]}")

    def close(self) -> None:
        """End it, and all that runs as its user; its mounts go with the namespaces in which they were made."""
        try:
            if self._process is not None:
                self._process.send_signal(signal.SIGTERM)
                self._process.wait(END_S)
        finally:
            for pid in _running():
                end(pid)
            if self._process is not None:
                self._process.wait(END_S)
            shutil.rmtree(self.folder)


class RootlessDocker(Rootless):
    """As dockerd-rootless.sh does it, but for the network, of which no test needs any."""

    script = """
        exec rootlesskit --net=host --state-dir="$HOME/k" --copy-up=/etc --copy-up=/run --propagation=rslave sh -c '
            rm -f /run/docker /run/containerd /run/xtables.lock
            exec dockerd --rootless --data-root="$HOME/d" --exec-root="$HOME/e" --pidfile="$HOME/p" \\
              -H "unix://$HOME/s" --bridge=none --iptables=false --ip6tables=false'
    """


class RootlessPodman(Rootless):
    script = """
        exec podman --storage-driver=overlay --root="$HOME/r" --runroot="$HOME/n" --tmpdir="$HOME/t" \\
          system service --time=0 "unix://$HOME/s"
    """


def _running() -> list[int]:
    """Processes of this user, and of the uids that were handed on to it."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            fields = dict(line.split(":", 1) for line in (entry / "status").read_text().splitlines())
        except OSError:  # no process, or not any more
            continue
        uid = int(fields["Uid"].split()[0])
        if (uid == UID or uid in SUBUIDS) and fields["State"].split()[0] != "Z":
            found.append(int(entry.name))
    return found
