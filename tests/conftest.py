from __future__ import annotations

import errno
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

ROOT = Path(__file__).resolve().parents[1]
INSTALL_TIMEOUT_S = 600

# How long examples take says nothing on a busy machine, wherever CI is not set as well.
PATIENT = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
hypothesis_settings.register_profile("patient", hypothesis_settings.default, **PATIENT)
hypothesis_settings.load_profile("patient")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def npm_folder() -> Callable[..., Path]:
    """Of a name, files (package.json among them) and npm's arguments: the folder where npm has installed them.

    Once for each content of the files, outside of the checkout; a second time nothing is fetched.
    """

    def installed(name: str, files: Sequence[Path], *arguments: str) -> Path:
        wanted = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]
        cache = Path(os.environ.get("KANDEV_TEST_AGENTS") or Path.home() / ".cache/kandev-host-tests")
        home = cache / f"{name}-{wanted}"
        if not home.is_dir():
            _npm(arguments, files, home)
        return home

    return installed


def _npm(arguments: Sequence[str], files: Sequence[Path], home: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is missing: apt-get install npm")
    home.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=home.parent, prefix="installing-"))
    try:
        for file in files:
            shutil.copy(file, folder)
        command = [npm, *arguments, "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run(command, cwd=folder, check=True, timeout=INSTALL_TIMEOUT_S)
        folder.rename(home)
    except BaseException:
        shutil.rmtree(folder)
        raise


@pytest.fixture(scope="session")
def holding() -> Callable[[Path, bytes], list[Path]]:
    """The files below a folder that hold these bytes. Of volumes, which are sparse, only what is stored is read."""

    def files(folder: Path, text: bytes) -> list[Path]:
        return [path for path in folder.rglob("*") if path.is_file() and any(text in part for part in _stored(path))]

    return files


def _stored(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        end = 0
        while True:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:  # nothing but a hole is left
                    raise
                return
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            file.seek(start)
            yield file.read(end - start)


@pytest.fixture
def becoming() -> Callable[..., list[str]]:
    """Of a uid and folders: what goes before a command, so that root runs it as that uid, which is nobody's.

    What the uid could not reach on this machine (an interpreter under /root, a checkout in a closed folder) is shown
    to it in a mount namespace of its own. No mode is changed, and nothing is left behind.
    """

    def command(uid: int, *folders: Path) -> list[str]:
        needed = [*folders, ROOT, *(Path(folder).resolve() for folder in (sys.prefix, sys.base_prefix))]
        lines = ["set -e", *_showing(needed)]
        lines.append(f'exec setpriv --reuid {uid} --regid {uid} --clear-groups --inh-caps=-all -- "$@"')
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", "\n".join(lines), "become"]

    return command


def _showing(needed: list[Path]) -> list[str]:
    closed = {above for path in needed for above in path.parents if not above.stat().st_mode & 0o001}
    hidden = [path for path in needed if closed.intersection(path.parents)]
    staged = {path: f"/mnt/{number}" for number, path in enumerate(hidden)}
    lines = ["mount -t tmpfs tmpfs /mnt"]
    lines += [f"mkdir {stage}; mount --rbind {shlex.quote(str(path))} {stage}" for path, stage in staged.items()]
    # From the outside in: a closed folder (.tox) may lie in a shown one (the checkout), which lies in a closed one.
    for path in sorted({*closed, *hidden}):
        place = shlex.quote(str(path))
        what = f"--rbind {staged[path]}" if path in staged else "-t tmpfs -o mode=0711 tmpfs"
        lines.append(f"mkdir -p {place}; mount {what} {place}")
    return lines
