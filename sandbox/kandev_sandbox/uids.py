"""A uid of its own for every workspace, so that one jail's files and processes are strangers to another's.

The default range starts above all that systemd hands out (`systemd.io/UIDS-GIDS`: containers end at 0x6FFFFFFF).
"""

from __future__ import annotations

import os
import pwd
import secrets
import stat
from pathlib import Path

from kandev_sandbox.errors import PolicyError, SandboxError, SharedFile, UidsExhausted
from kandev_sandbox.policy import check_folder

FIRST = 0x7000_0000
COUNT = 65_536
STATE = Path("/var/lib/kandev-sandbox/uids")
# Folders that belong to the system: with all that is in them, or (of a fixed depth) themselves.
_SYSTEM = frozenset(
    "/" + name for name in ("bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "proc", "sbin", "sys")
)
_TOPS = frozenset("/" + name for name in ("home", "media", "mnt", "opt", "root", "run", "srv", "tmp", "usr", "var"))
PROBE_UID = FIRST + COUNT  # the doctor's own, outside of the range


class Uids:
    """The claims of one host: a file per uid, holding the workspace's path, in a folder only the host may enter.

    A claim is never given away while its workspace exists. Safe against other processes and threads on the same folder,
    as long as they ask for other workspaces.
    """

    def __init__(self, folder: Path, first: int = FIRST, count: int = COUNT) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._first = first
        self._count = count

    def of(self, workspace: Path) -> int:
        """The uid of this workspace, claimed now if it has none. Raises `UidsExhausted`."""
        taken = self._claims()
        known = next((uid for uid, owner in taken.items() if owner == workspace), None)
        if known is not None:
            return known
        # A random start keeps the uids of two hosts on one machine apart.
        start = secrets.randbelow(self._count)
        for step in range(self._count):
            uid = self._first + (start + step) % self._count
            if uid not in taken and not _is_a_user(uid) and self._claim(uid, workspace):
                return uid
        raise UidsExhausted(
            f"All {self._count} uids from {self._first} belong to workspaces.",
            "remove old workspaces or widen the range",
        )

    def release(self, workspace: Path) -> None:
        """Give up the claim of a workspace that is gone. Raises `SandboxError` while its folder exists."""
        if os.path.lexists(workspace):
            raise SandboxError(f"{workspace} still exists; its uid stays claimed.", "remove the folder first")
        for uid, owner in self._claims().items():
            if owner == workspace:
                (self._folder / str(uid)).unlink(missing_ok=True)

    def _claims(self) -> dict[int, Path]:
        found = {}
        for path in self._folder.iterdir():
            if path.name.isdigit():
                try:
                    found[int(path.name)] = Path(path.read_text())
                except FileNotFoundError:  # released by another thread or process just now
                    continue
        return found

    def _claim(self, uid: int, workspace: Path) -> bool:
        draft = self._folder / f".{secrets.token_hex(8)}"
        draft.write_text(str(workspace))
        try:
            os.link(draft, self._folder / str(uid))
        except FileExistsError:
            return False
        finally:
            draft.unlink()
        return True


def owner_of(workspace: Path, own: bool) -> int:
    """Whom root's jail runs as: the folder's owner. Root's own folder changes hands only when told to (`own`).

    Blocks. Raises `PolicyError`, also for what is no folder or shows a jail far too much (before anything changes
    hands), and `SharedFile` as `give` does.
    """
    check_folder(workspace, "workspace")
    owner = workspace.stat().st_uid
    if owner != 0:
        return owner
    if not own:
        raise PolicyError(
            f"{workspace} belongs to root, and a jail never runs as root.",
            "run as an ordinary user, chown the folder to one, or give it a uid of its own, which is a chown -R of "
            f"{workspace}: --own, in Python own=True",
        )
    _refuse_system(workspace)
    uid = Uids(STATE).of(workspace)
    give(workspace, uid)
    return uid


def _refuse_system(workspace: Path) -> None:
    """A chown -R of one of these would take the machine apart."""
    parts = workspace.parts
    top = "/".join(parts[:2])[1:]
    inner = len(parts) == 3 and top in ("/usr", "/var")
    if len(parts) < 2 or top in _SYSTEM or inner or str(workspace) in _TOPS:
        raise PolicyError(f"{workspace} is the system's, and is given to nobody.", "name a folder of your own")


def give(root: Path, uid: int) -> None:
    """chown a folder and all in it to `uid`, without following links or leaving its file system. Blocks.

    Nothing may run in it meanwhile. Raises `SharedFile`, having changed nothing, when a file in it is hard-linked
    from elsewhere (as `git clone` of a local repository does): its other name would change hands too.
    """
    _refuse_shared(root)
    device = root.stat().st_dev
    for _, folders, files, descriptor in os.fwalk(root, follow_symlinks=False):
        os.fchown(descriptor, uid, uid)
        for name in files + folders:
            found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            if found.st_uid != uid or found.st_gid != uid:
                os.chown(name, uid, uid, dir_fd=descriptor, follow_symlinks=False)
        folders[:] = [name for name in folders if _device(name, descriptor) == device]


def _refuse_shared(root: Path) -> None:
    names: dict[tuple[int, int], int] = {}
    links: dict[tuple[int, int], tuple[int, str]] = {}
    for folder, _, files, descriptor in os.fwalk(root, follow_symlinks=False):
        for name in files:
            found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
                key = (found.st_dev, found.st_ino)
                names[key] = names.get(key, 0) + 1
                links[key] = (found.st_nlink, os.path.join(folder, name))
    for key, (count, path) in links.items():
        if names[key] < count:
            raise SharedFile(
                f"{path} is hard-linked from outside of {root}.", "copy the tree (git clone --no-hardlinks)"
            )


def _device(name: str, descriptor: int) -> int:
    return os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_dev


def _is_a_user(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True
