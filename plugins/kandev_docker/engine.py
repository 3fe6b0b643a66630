"""The Docker Engine of this machine: the SDK's blocking calls in threads with deadlines, its errors in our words."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import msgspec

from kandev_docker import SOCKET
from kandev_host import errors

if TYPE_CHECKING:
    from docker import APIClient

log = logging.getLogger(__name__)
T = TypeVar("T")
THREADS = 16
MIN_API = (1, 41)  # of Docker 20.10: stats of one moment, and private cgroup namespaces
_GRACE_S = 2.0
_START_FIX = (
    "start it (systemctl start docker; a rootless one: systemctl --user start docker), or name its socket in"
    " [runtime.docker] socket"
)
HANGS_FIX = "look into its log (journalctl -u docker; a rootless one: journalctl --user -u docker), and restart it"
_BOUNDED_FIX = ", use an engine of root, or the runtime bwrap"
_WITHOUT = "; or do without those bounds: [runtime.docker] require_limits = false (docs/containers.md)"
# What it says of them, and the kernel's controllers.
_BOUNDS = {"memory": "MemoryLimit", "swap": "SwapLimit", "processes": "PidsLimit", "CPUs": "CpuCfsQuota"}
_CONTROLLERS = {"memory": "memory", "processes": "pids", "CPUs": "cpu"}
# Where rootless engines listen, below the user's own folder in /run.
_OWN_SOCKETS = ("docker.sock", "podman/podman.sock")


class EngineGone(errors.Unavailable):
    """The engine does not answer."""


class Missing(errors.Unavailable):
    """The engine answers that there is no such container or image."""


class Engaged(errors.Unavailable):
    """The engine refuses it in the present state, or says that it is done already."""


class Facts(msgspec.Struct, frozen=True):
    """What the engine says of itself. `rootless`: its root is an ordinary user; `foreign`: not the host's own.

    `podman`: it is no Docker. `bounds`: what it can bound, of memory, swap, processes and CPUs.
    """

    version: str
    api: str
    rootless: bool
    remapped: bool
    seccomp: bool
    cgroup_version: str
    podman: bool = False
    foreign: bool = False
    bounds: frozenset[str] = frozenset()
    details: dict[str, Any] = msgspec.field(default_factory=dict)


def socket_path(configured: str | None) -> str:
    """The path of the engine's socket. Raises `Unavailable` for one that is not of this machine."""
    named = configured or os.environ.get("DOCKER_HOST") or SOCKET
    path = named.removeprefix("unix://")
    if not path.startswith("/"):
        raise errors.Unavailable(
            f"The Docker engine at {named} is not reached over a socket of this machine: it cannot see the workspaces.",
            fix="name a local socket in [runtime.docker] socket, or unset DOCKER_HOST",
        )
    return path


class Engine:
    """Every call may raise `EngineGone`, `Missing`, `Engaged`, and `Unavailable` for whatever else it refuses."""

    def __init__(self, path: str, timeout_s: float) -> None:
        self.path = path
        self._timeout_s = timeout_s
        self._threads = anyio.CapacityLimiter(THREADS)
        self._guard = threading.Lock()
        self._client: APIClient | None = None
        self._facts: Facts | None = None

    async def call(
        self, ask: Callable[[APIClient], T], *, what: str = "answer", timeout_s: float | None = None, sure: bool = False
    ) -> T:
        """`ask` in a thread. What must not happen unseen is `sure`: its end is waited for, also when cancelled."""
        limit_s = timeout_s or self._timeout_s
        try:
            with anyio.fail_after(limit_s + _GRACE_S, shield=sure):
                return await anyio.to_thread.run_sync(
                    self._asked, ask, limit_s, limiter=self._threads, abandon_on_cancel=True
                )
        except TimeoutError as error:  # its own, or that of the thread
            raise EngineGone(f"The Docker engine did not {what} within {limit_s:g} s.", fix=HANGS_FIX) from error

    async def facts(self) -> Facts:
        """What the engine is, asked anew."""
        self._facts = None
        return await self.known()

    async def known(self) -> Facts:
        """As `facts`, of the first time that it answered."""
        if self._facts is None:
            version, info, owner = await self.call(
                lambda client: (client.version(), client.info(), os.stat(self.path).st_uid)
            )
            self._facts = _facts(version, info, foreign=owner != os.geteuid())
        return self._facts

    def _asked(self, ask: Callable[[APIClient], T], limit_s: float) -> T:
        from docker.errors import DockerException
        from requests.exceptions import ReadTimeout, RequestException
        from urllib3.exceptions import HTTPError

        try:
            self._knock(limit_s)
            return ask(self._connected(limit_s))
        except ReadTimeout as error:
            raise TimeoutError from error
        except (DockerException, RequestException, HTTPError, OSError) as error:
            raise self._translated(error) from error

    def _knock(self, limit_s: float) -> None:
        """Raises `OSError` where nobody listens; the SDK would leave a socket open each time."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knocking:
            knocking.settimeout(limit_s)
            knocking.connect(self.path)

    def _connected(self, limit_s: float) -> APIClient:
        from docker import APIClient

        with self._guard:
            if self._client is None:
                self._client = APIClient(base_url=f"unix://{self.path}", version="auto", timeout=limit_s)
            return self._client

    def _translated(self, error: Exception) -> errors.Unavailable:
        from docker.errors import APIError

        if isinstance(error, APIError):
            said = error.explanation or str(error)
            kind = {404: Missing, 409: Engaged, 304: Engaged}.get(error.status_code or 0, errors.Unavailable)
            if "container state improper" in said:  # podman's word for it, with a 500
                kind = Engaged
            return kind(f"The Docker engine refuses: {said}")
        return self.gone(error)

    def gone(self, error: BaseException) -> EngineGone:
        """In words, for people."""
        if not os.path.exists(self.path):
            return EngineGone(f"There is no Docker engine at {self.path}.", fix=_absent_fix())
        if not os.access(self.path, os.R_OK | os.W_OK):
            fix = "add this user to the group that owns it (adduser USER docker), knowing that it is as good as root"
            return EngineGone(f"The socket {self.path} of the Docker engine is not this user's to use.", fix=fix)
        return EngineGone(f"The Docker engine at {self.path} does not answer: {_cause(error)}.", fix=_START_FIX)

    def close(self) -> None:
        """Close its connections; nothing is asked any more."""
        with self._guard:
            if self._client is not None:
                self._client.close()
                self._client = None


def unfit(facts: Facts, needed: Sequence[str]) -> tuple[str, str] | None:
    """What makes an engine unfit, and what to do. `needed` is what it must be able to bound."""
    api = tuple(int(part) for part in facts.api.split(".") if part.isdigit())
    if api < MIN_API:
        wanted = ".".join(map(str, MIN_API))
        return f"The Docker engine speaks the API {facts.api}, and {wanted} is needed.", "install Docker 20.10 or newer"
    if facts.remapped:
        return (
            "The engine maps the uids of containers to others (userns-remap), so they cannot use their workspaces.",
            "use an engine without userns-remap, a rootless one, or the runtime bwrap",
        )
    if not facts.seccomp:
        return "The engine has no filter of system calls (seccomp).", "use an engine and a kernel with seccomp"
    if facts.rootless and facts.foreign:
        return (
            "The engine is rootless, and another user's: its containers cannot use this host's workspaces.",
            "run the host as the engine's user, or use an engine of root",
        )
    short = shortfall(facts, needed)
    return None if short is None else (short[0], short[1] + _WITHOUT)


def shortfall(facts: Facts, needed: Sequence[str] = tuple(_CONTROLLERS)) -> tuple[str, str] | None:
    """What of `needed` it cannot bound, and what to do."""
    lacking = [name for name in needed if name not in facts.bounds]
    if not lacking:
        return None
    problem = f"The engine cannot bound {' and '.join(lacking)} of a container"
    if not facts.rootless:
        names = ", ".join(_CONTROLLERS[name] for name in lacking)
        return f"{problem}.", f"start the machine with the kernel's cgroup controllers ({names})" + _BOUNDED_FIX
    if facts.cgroup_version == "1":
        problem += ": it is rootless, on cgroups of version 1"
        return f"{problem}.", "start the machine with cgroups of version 2" + _BOUNDED_FIX
    problem += ": it is rootless, and its user was not given the cgroups for that"
    return f"{problem}.", "set Delegate=cpu cpuset io memory pids for user@.service of systemd" + _BOUNDED_FIX


def _absent_fix() -> str:
    """With the socket of a rootless engine of this user, if there is one."""
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    for name in _OWN_SOCKETS:
        if os.access(path := os.path.join(runtime, name), os.R_OK | os.W_OK):
            return f'use the one there is: [runtime.docker] socket = "{path}"'
    return f"install docker.io, or {_START_FIX}"


def _facts(version: dict[str, Any], info: dict[str, Any], *, foreign: bool) -> Facts:
    options = [str(option) for option in info.get("SecurityOptions") or ()]
    podman = any("podman" in str(part.get("Name", "")).lower() for part in version.get("Components") or ())
    rootless = any("rootless" in option for option in options) or bool(info.get("Rootless"))  # podman's word
    cgroups = str(info.get("CgroupVersion", "1"))
    # podman says what the kernel has, also where it is not its user's to use.
    grouped = not (rootless and cgroups == "1")
    return Facts(
        version=str(version.get("Version", "")),
        api=str(version.get("ApiVersion", "")),
        rootless=rootless,
        remapped=any("userns" in option for option in options),
        seccomp=any("seccomp" in option for option in options),
        cgroup_version=cgroups,
        podman=podman,
        foreign=foreign,
        bounds=frozenset(name for name, key in _BOUNDS.items() if grouped and info.get(key)),
        details={
            "engine": "podman" if podman else "docker",
            "adoption": "no: podman keeps no output that could be read on" if podman else "yes",
            "kernel": info.get("KernelVersion"),
            "storage": info.get("Driver"),
            "security": options,
        },
    )


def _cause(error: BaseException) -> str:
    """The innermost cause: the libraries wrap it several times."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
