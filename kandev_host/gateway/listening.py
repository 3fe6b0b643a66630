"""Where the gateway listens: an address of this machine, with TLS or without, or a Unix socket of this user."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import stat
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from kandev_host.errors import SettingsError, StartupError
from kandev_host.settings import ServerSettings

LOOPBACK = ("127.0.0.1", "localhost", "::1")
# Addresses that mean every one of the machine's, and the one to reach such a host by from here.
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound here
OWN_NAMES = ("127.0.0.1", "localhost", "[::1]")
BACKLOG = 1024
PATH_LIMIT_BYTES = 107
_CREDENTIALS = struct.Struct("3i")

Factory = Callable[[], asyncio.BaseProtocol]


class Address(msgspec.Struct, frozen=True):
    """Where a gateway can be reached. Of a Unix socket, `scheme` is unix and `port` 0."""

    scheme: str
    host: str
    port: int = 0

    @property
    def url(self) -> str:
        """As in http://127.0.0.1:8080 or unix:///home/me/.kandev/host.sock."""
        if self.scheme == "unix":
            return f"unix://{self.host}"
        return f"{self.scheme}://{_bracketed(EVERYWHERE.get(self.host, self.host))}:{self.port}"

    def hosts(self, others: Iterable[str]) -> frozenset[str]:
        """What a Host header may say: its own names and `others`, with the port, or without the scheme's own one."""
        if self.scheme == "unix":
            return frozenset(("localhost", *others))
        own = OWN_NAMES if self.host in EVERYWHERE else (*OWN_NAMES, _bracketed(self.host.lower()))
        names = {f"{name}:{self.port}" for name in own}
        if self.port == (443 if self.scheme == "https" else 80):
            names.update(own)
        for name in others:
            names.update((name, name if _has_port(name) else f"{name}:{self.port}"))
        return frozenset(names)


def check_address(server: ServerSettings) -> None:
    """Raises `SettingsError` for an address that others reach, unless that is asked for and safe."""
    if is_local(server):
        return
    if not server.allow_remote:
        raise SettingsError(
            f"{server.host} is not a loopback address ({', '.join(LOOPBACK)}), so other machines reach it."
            " Listen on 127.0.0.1 and forward the port by ssh; or give --allow-remote, [server] tls_certificate and"
            " tls_key, and authentication for it"
        )
    if server.tls_key is None:
        raise SettingsError(
            f"{server.host} is reached by other machines, and would tell them secrets in the clear:"
            " name a certificate and its key as [server] tls_certificate and tls_key,"
            " or listen on 127.0.0.1 behind a proxy that has TLS"
        )


def check_authentication(server: ServerSettings, name: str, remote: bool) -> None:
    """The same, of what lets people in: the authenticator `name`, and whether it is made for others."""
    if remote or is_local(server):
        return
    fix = " Set [authenticator.local] remote = true if whoever has the token may" if name == "local" else ""
    raise SettingsError(
        f"{server.host} is reached by other machines, and the authenticator {name!r} is for this one alone:"
        f" choose another as [use] authenticator.{fix}"
    )


def is_local(server: ServerSettings) -> bool:
    """Is it out of the reach of other machines?"""
    return server.unix_socket is not None or server.host in LOOPBACK


async def listen(
    server: ServerSettings, serve: Factory, tls: ssl.SSLContext | None, handshake_timeout_s: float
) -> tuple[asyncio.Server, Address]:
    """Bind, and serve each connection by what `serve` makes. Raises `StartupError` when the address cannot be had."""
    loop = asyncio.get_running_loop()
    if server.unix_socket is not None:
        path, listener = _bound(server.unix_socket)
        return await loop.create_unix_server(serve, sock=listener, backlog=BACKLOG), Address("unix", str(path))
    try:
        listening = await loop.create_server(
            serve,
            server.host,
            server.port,
            backlog=BACKLOG,
            ssl=tls,
            ssl_handshake_timeout=None if tls is None else handshake_timeout_s,
        )
    except OSError as error:
        raise StartupError(_why_not(error, server.host, server.port)) from error
    port = int(listening.sockets[0].getsockname()[1])
    return listening, Address("http" if tls is None else "https", server.host, port)


def leave(address: Address, mine: os.stat_result | None) -> None:
    """Delete the file of a Unix socket, if it is still the one that was bound."""
    if address.scheme == "unix" and mine is not None:
        path = Path(address.host)
        found = look_at(path)
        if found is not None and (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino):
            path.unlink(missing_ok=True)


def look_at(path: Path) -> os.stat_result | None:
    """What lies there, links not followed; None for nothing."""
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def of_this_user(transport: asyncio.BaseTransport | None) -> bool:
    """Is the peer no other user's process? Over an address nobody can tell; root may read all there is anyway."""
    peer = transport.get_extra_info("socket") if transport is not None else None
    if peer is None or peer.family != socket.AF_UNIX:
        return True
    _pid, uid, _gid = _CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return uid in {0, os.geteuid()}


def _bound(name: str) -> tuple[Path, socket.socket]:
    """A socket at this path that only this user can connect to, from its first moment on."""
    path = Path(name).expanduser()
    if len(os.fsencode(path)) > PATH_LIMIT_BYTES:
        raise StartupError(f"{path} is too long for a Unix socket ({PATH_LIMIT_BYTES} bytes): choose a shorter one")
    _check_folder(path)
    _remove_dead(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Before it has a name: on Linux that is the mode that bind gives the file.
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(str(path))
        if stat.S_IMODE(path.lstat().st_mode) & 0o177:
            path.unlink()
            raise StartupError(f"{path} cannot be made for you alone: choose a folder on another file system")
        listener.setblocking(False)
    except BaseException as error:
        listener.close()
        if isinstance(error, OSError):
            raise StartupError(f"The gateway cannot listen on {path}: {error.strerror or error}") from error
        raise
    return path, listener


def _check_folder(path: Path) -> None:
    try:
        folder = path.parent.stat()
    except OSError as error:
        raise StartupError(f"The folder of {path} cannot be used: {error.strerror}") from error
    if folder.st_uid not in {0, os.geteuid()} or folder.st_mode & 0o022:
        raise StartupError(
            f"Others could replace {path}: choose a folder that only you can write, such as the data folder"
        )


def _remove_dead(path: Path) -> None:
    """What a host that died left. Raises `StartupError` for anything else."""
    found = look_at(path)
    if found is None:
        return
    if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.geteuid():
        raise StartupError(f"{path} is there already, and is no socket of yours: choose another path, or delete it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        if probe.connect_ex(str(path)) != errno.ECONNREFUSED:
            raise StartupError(f"Something listens on {path} already: stop it, or choose another path")
    path.unlink()


def _why_not(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} on {host} is in use: stop what listens there, or choose another with --port"
    if error.errno == errno.EACCES:
        return f"Port {port} on {host} needs privileges: choose one above 1023 with --port"
    return f"The gateway cannot listen on {host}:{port}: {error.strerror or error}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _has_port(name: str) -> bool:
    return name.rpartition("]")[2].find(":") >= 0
