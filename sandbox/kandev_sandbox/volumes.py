"""A folder's own file system in a sparse file, so that the kernel bounds its bytes and inodes (root only).

The file is attached to a loop device that clears itself and mounted in a mount namespace that only a descriptor of this
process holds: when the process ends, however it ends, the kernel unmounts. The file is locked (flock) by the open file
that the loop device keeps, so for as long as it is mounted anywhere: it is never mounted twice.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from kandev_sandbox import libc, limits
from kandev_sandbox.apart import apart
from kandev_sandbox.errors import SandboxError, VolumeFailed

LOCK_TIMEOUT_S = 10.0
_MKFS_TIMEOUT_S = 60.0
_BLOCK_BYTES = 4096
_LEAST_BYTES_PER_INODE = 8192
_SMALL_JOURNAL_FROM = 256 << 20
_ATTEMPTS = 16
_LOOP_CTL_GET_FREE = 0x4C82  # loop(4)
_LOOP_CONFIGURE = 0x4C0A
_AUTOCLEAR = 4
# What the lazy initialisation would write in the background would fill the sparse file with zeros.
_OPTIONS = "noinit_itable,discard,errors=remount-ro"


def create(image: Path, size_bytes: int, inodes: int) -> None:
    """Make the file with an empty ext4 in it; it takes some 300 KiB at first. Blocks for some 50 ms.

    Raises `VolumeFailed`; nothing is there then.
    """
    draft = image.with_name(f".{image.name}.new")
    descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(descriptor, size_bytes)
        _format(draft, size_bytes, inodes)
        os.fsync(descriptor)
        draft.rename(image)
    except (OSError, subprocess.SubprocessError) as error:
        draft.unlink(missing_ok=True)
        raise VolumeFailed(f"No file system can be made in {image}: {error}.") from error
    except SandboxError:
        draft.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def _format(image: Path, size_bytes: int, inodes: int) -> None:
    count = min(inodes, size_bytes // _LEAST_BYTES_PER_INODE)
    journal = ["-J", "size=16"] if size_bytes >= _SMALL_JOURNAL_FROM else []
    command = [limits.tool("mkfs.ext4"), "-q", "-F", "-b", str(_BLOCK_BYTES), "-m", "0", "-N", str(count), *journal,
               "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0", "-O", "^resize_inode",
               str(image)]  # fmt: skip
    done = subprocess.run(
        command, env={}, stdin=subprocess.DEVNULL, check=False, capture_output=True, timeout=_MKFS_TIMEOUT_S, text=True
    )
    if done.returncode != 0:
        raise VolumeFailed(f"No file system can be made in {image}: {done.stderr.strip()}")


def mount(image: Path, point: Path, shown: Mapping[str, Path], owner: int) -> int:
    """A descriptor of a mount namespace like this one, in which the image is mounted at `point`.

    `shown` are folders of its top, made here for `owner`, and where they appear. Blocks, while another process still
    has it mounted, up to ten seconds. Raises `VolumeFailed`.
    """
    try:
        return apart(_mount, image, point, shown, owner)
    except OSError as error:
        raise VolumeFailed(f"The volume {image} cannot be mounted: {error}.") from error


def _mount(image: Path, point: Path, shown: Mapping[str, Path], owner: int) -> int:
    libc.unshare(libc.CLONE_NEWNS)
    # What the host mounts and unmounts later arrives here as well, and nothing of this leaves.
    libc.mount("none", "/", flags=libc.MS_REC | libc.MS_SLAVE)
    file = locked(image)
    try:
        device, path = _attach(file)
    finally:
        os.close(file)
    try:
        libc.mount(path, str(point), "ext4", libc.MS_NOSUID | libc.MS_NODEV, _OPTIONS)
    finally:
        os.close(device)  # with nothing mounted, the device clears itself now
    for name, target in shown.items():
        folder = point / name
        if not folder.is_dir():
            folder.mkdir(mode=0o700)
            os.chown(folder, owner, owner)
        libc.mount(str(folder), str(target), flags=libc.MS_BIND)
    return os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)


def locked(image: Path, timeout_s: float = LOCK_TIMEOUT_S) -> int:
    """The image, open and locked: nothing has it mounted. Blocks. Raises `VolumeFailed`, `OSError`."""
    descriptor = os.open(image, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise VolumeFailed(
                    f"The volume {image} is still mounted by another process.", "end that host, or wait"
                ) from error
            time.sleep(0.01)
        else:
            return descriptor


def _attach(file: int) -> tuple[int, str]:
    """A loop device on this open file, which it keeps: (descriptor, path). Raises `OSError`."""
    # struct loop_config: the file, the block size, struct loop_info64 (of which only the flags), 8 reserved words.
    configuration = struct.pack("=II52xI176x64x", file, _BLOCK_BYTES, _AUTOCLEAR)
    for _ in range(_ATTEMPTS):
        path = f"/dev/loop{_free()}"
        device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(device, _LOOP_CONFIGURE, configuration)
        except OSError as error:
            os.close(device)
            if error.errno != errno.EBUSY:  # somebody else was quicker
                raise
        else:
            return device, path
    raise OSError(errno.EBUSY, "no loop device is free")


def _free() -> int:
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        return fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
    finally:
        os.close(control)


def check(image: Path, point: Path) -> None:
    """Mount it and unmount it again. Blocks for some 100 ms. Raises `VolumeFailed`."""
    os.close(mount(image, point, {}, 0))
    try:
        os.close(locked(image))
    except OSError as error:
        raise VolumeFailed(f"The volume {image} cannot be used: {error}.") from error
