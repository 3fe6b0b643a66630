"""The last look at what the engine is asked to make: an allowlist of options and of mounts, whoever asked for them.

It trusts nothing of how the request was put together. What is not named here is refused, so that an option which a
newer engine knows, or a field that a bug lets through, makes no hole.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import msgspec

from kandev_docker.seccomp import profile
from kandev_host import Mount, errors

Resolve = Callable[[str], str]
Identify = Callable[[str], tuple[int, int] | None]

# Whole trees that no container sees, and folders that may be seen in part but never whole.
_CLOSED = (
    "/proc",
    "/sys",
    "/dev",
    "/boot",
    "/run",
    "/var/run",
    "/var/lib/docker",
    "/var/lib/containerd",
    "/var/lib/containers",
)
_WHOLE = ("/", "/bin", "/etc", "/home", "/lib", "/lib64", "/root", "/sbin", "/tmp", "/usr", "/var")  # noqa: S108
# What an engine's socket is called, wherever it lies.
_SOCKETS = frozenset(
    {"docker.sock", "podman.sock", "containerd.sock", "crio.sock", "cri-dockerd.sock", "buildkitd.sock"}
)
_RESERVED = ("/proc", "/dev", "/sys", "/etc", "/run", "/sbin/docker-init", "/dev/init")
_TOP = frozenset({
    "Image", "Entrypoint", "Cmd", "User", "WorkingDir", "Env", "Hostname", "Tty", "AttachStdin", "AttachStdout",
    "AttachStderr", "OpenStdin", "StdinOnce", "StopSignal", "Healthcheck", "Labels", "HostConfig",
})  # fmt: skip
_FIXED: Mapping[str, Any] = {
    "Privileged": False,
    "ReadonlyRootfs": True,
    "CapAdd": [],
    "CapDrop": ["ALL"],
    "IpcMode": "private",
    "CgroupnsMode": "private",
    "PidMode": "",
    "UTSMode": "",
    "UsernsMode": "",
    "Devices": [],
    "RestartPolicy": {"Name": "no"},
    "AutoRemove": False,
}
_LEAST = {"Memory": 1 << 20, "PidsLimit": 1, "ShmSize": 1}
_OPEN = {"Init", "SecurityOpt", "NetworkMode", "Mounts", "Tmpfs", "MemorySwap", "NanoCpus", "Ulimits", "LogConfig"}
_ULIMITS = {"core", "fsize", "memlock", "nofile", "sigpending"}
_MOUNT = {"Type", "Source", "Target", "ReadOnly", "BindOptions"}
_TMPFS = re.compile(r"rw,nosuid,nodev,size=[1-9][0-9]{0,14},mode=1777")
_USER = re.compile(r"[0-9]{1,10}:[0-9]{1,10}")
_NUMBER = re.compile(r"[1-9][0-9]{0,14}")


class Allowed(msgspec.Struct, frozen=True, kw_only=True):
    """What one run may have. `own` are the place's mounts, `asked` the run's, `closed` folders of the host that no
    container sees, `sockets` the engine's. `rootless`: the engine's root is the host's own user. `init`: the
    engine's own first process reaps. `seccomp` is the path of the file with the filter, where the engine wants one.
    """

    own: Sequence[Mount]
    asked: Sequence[Mount] = ()
    closed: Sequence[str] = ()
    sockets: Sequence[str] = ()
    host_network: bool = False
    init: bool = True
    rootless: bool = False
    seccomp: str | None = None


class Refused(errors.ValidationFailed):
    """The request holds what no container may have; `field` says where."""


def check(
    request: Mapping[str, Any],
    allowed: Allowed,
    *,
    resolve: Resolve = os.path.realpath,
    identify: Identify | None = None,
) -> None:
    """Raises `Refused`. `resolve` follows links, `identify` tells files apart whatever they are called."""
    try:
        _check(request, allowed, resolve, identify or _identity)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Refused("container", f"The request has another form than expected: {error}") from error
    except OSError as error:
        raise Refused("mounts", f"A mount cannot be looked at: {error}") from error


def _check(request: Mapping[str, Any], allowed: Allowed, resolve: Resolve, identify: Identify) -> None:
    _only(request, _TOP, "container")
    config = request["HostConfig"]
    _check_user(request["User"], allowed)
    if request["Tty"] not in (True, False) or not isinstance(request["Env"], list):
        raise Refused("container", "Tty and Env have other values than expected")
    _check_options(config)
    _check_values(config, allowed)
    _check_mounts(config["Mounts"], allowed, resolve, identify)
    _check_tmpfs(config["Tmpfs"])


def _check_user(user: object, allowed: Allowed) -> None:
    if not isinstance(user, str) or not _USER.fullmatch(user):
        raise Refused("User", "A container runs as a numeric uid:gid")
    if not allowed.rootless and "0" in [part.lstrip("0") or "0" for part in user.split(":")]:
        raise Refused("User", "No container runs as root")


def _check_options(config: Mapping[str, Any]) -> None:
    _only(config, _FIXED.keys() | _LEAST.keys() | _OPEN, "HostConfig")
    for name in (*_FIXED, *_LEAST, *_OPEN):
        if name not in config:
            raise Refused(f"HostConfig.{name}", f"{name} is not set")
    for name, value in _FIXED.items():
        if config[name] != value or type(config[name]) is not type(value):
            raise Refused(f"HostConfig.{name}", f"{name} can be nothing but {value!r}")
    for name, least in _LEAST.items():
        if type(config[name]) is not int or config[name] < least:
            raise Refused(f"HostConfig.{name}", f"{name} needs a limit")


def _check_values(config: Mapping[str, Any], allowed: Allowed) -> None:
    if config["SecurityOpt"] != ["no-new-privileges", f"seccomp={allowed.seccomp or profile()}"]:
        raise Refused("HostConfig.SecurityOpt", "A container has the host's own filter of system calls, and no other")
    if config["Init"] is not allowed.init:
        raise Refused("HostConfig.Init", f"Init can be nothing but {allowed.init}")
    if config["NetworkMode"] not in (("none", "host") if allowed.host_network else ("none",)):
        raise Refused("HostConfig.NetworkMode", f"The network {config['NetworkMode']!r} was not allowed")
    if type(config["MemorySwap"]) is not int or config["MemorySwap"] < config["Memory"]:
        raise Refused("HostConfig.MemorySwap", "Swap needs a limit")
    if type(config["NanoCpus"]) is not int or config["NanoCpus"] < 0:
        raise Refused("HostConfig.NanoCpus", "That is no number of CPUs")
    limits = config["Ulimits"]
    named = [limit.get("Name") for limit in limits if limit.keys() == {"Name", "Soft", "Hard"}]
    if set(named) - {"nproc"} != _ULIMITS or len(set(named)) != len(named) or len(limits) != len(named):
        raise Refused("HostConfig.Ulimits", "The limits of each process are missing")
    _check_log(config["LogConfig"])


def _check_log(log: Mapping[str, Any]) -> None:
    """No driver that sends output elsewhere, and none without a bound."""
    if log == {"Type": "none", "Config": {}}:
        return
    sizes = log.get("Config", {})
    bounded = sizes.keys() == {"max-size", "max-file"} and all(_NUMBER.fullmatch(str(size)) for size in sizes.values())
    if log.keys() != {"Type", "Config"} or log["Type"] != "local" or not bounded:
        raise Refused("HostConfig.LogConfig", "Output is kept by the driver local, with a bound, or not at all")


def _check_mounts(mounts: Iterable[Any], allowed: Allowed, resolve: Resolve, identify: Identify) -> None:
    own = {(mount.source, mount.target, mount.read_only) for mount in allowed.own}
    asked = {(mount.source, mount.target): mount.read_only for mount in allowed.asked}
    engines = {resolve(socket) for socket in allowed.sockets}
    inodes = {found for socket in allowed.sockets if (found := identify(socket)) is not None}
    targets: set[str] = set()
    for mount in mounts:
        if not isinstance(mount, Mapping) or mount.keys() != _MOUNT or mount["Type"] != "bind":
            raise Refused("mounts", "Only files and folders of this machine are mounted")
        if mount["BindOptions"] != {"Propagation": "rprivate"} or mount["ReadOnly"] not in (True, False):
            raise Refused("mounts", "A mount is private, and read-only or not")
        source, target = mount["Source"], mount["Target"]
        _check_target(target, targets)
        if (source, target, mount["ReadOnly"]) in own:
            if resolve(source) != source:
                raise Refused("mounts", f"The workspace's folder {source} is a link")
            continue
        if asked.get((source, target)) is None or mount["ReadOnly"] < asked[(source, target)]:
            raise Refused("mounts", f"{source} was not asked for, or only read-only")
        real = resolve(source)
        _check_source(source, real, (*allowed.closed, *_CLOSED))
        if any(_within(engine, real) for engine in engines) or identify(real) in inodes:
            raise Refused("mounts", f"{source} leads to the engine's socket, with which a container is root here")


def _check_source(source: str, real: str, closed: Iterable[str]) -> None:
    if not source.startswith("/") or "\0" in source or ".." in PurePosixPath(source).parts:
        raise Refused("mounts", f"{source!r} is no absolute path without '..'")
    for path in (_plain(source), _plain(real)):
        if PurePosixPath(path).name in _SOCKETS:
            raise Refused(
                "mounts", f"{source} is the socket of a container engine, with which a container is root here"
            )
        if path in _WHOLE:
            raise Refused("mounts", f"{source} would show the container far too much")
        for folder in closed:
            if _within(path, folder) or _within(folder, path):
                raise Refused("mounts", f"{source} would show the container {folder}")


def _check_target(target: object, taken: set[str]) -> None:
    if not isinstance(target, str) or not target.startswith("/") or "\0" in target:
        raise Refused("mounts", f"{target!r} is no absolute path")
    plain = _plain(target)
    if ".." in PurePosixPath(target).parts or plain == "/" or any(_within(plain, top) for top in _RESERVED):
        raise Refused("mounts", f"Nothing is mounted at {target}")
    if plain in taken:
        raise Refused("mounts", f"Two mounts claim {target}")
    taken.add(plain)


def _check_tmpfs(tmpfs: Mapping[str, str]) -> None:
    for place, options in tmpfs.items():
        reserved = any(
            _within(_plain(place), top) for top in ("/proc", "/dev", "/sys", "/etc", "/sbin", "/usr", "/bin", "/lib")
        )
        if not place.startswith("/") or _plain(place) == "/" or ".." in place or reserved:
            raise Refused("HostConfig.Tmpfs", f"Nothing is mounted at {place}")
        if not _TMPFS.fullmatch(options):
            raise Refused("HostConfig.Tmpfs", f"A tmpfs cannot have the options {options!r}")


def _only(found: Mapping[str, Any], known: Iterable[str], what: str) -> None:
    strange = sorted(found.keys() - set(known))
    if strange:
        raise Refused(what, f"No container may have {strange[0]}")


def _within(path: str, folder: str) -> bool:
    return PurePosixPath(path).is_relative_to(folder)


def _plain(path: str) -> str:
    """Two slashes at the start are one: POSIX leaves that to the system."""
    return "/" + os.path.normpath(path).lstrip("/")


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
