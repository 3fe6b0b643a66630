"""Where the host listens: the port, who else has it, who reaches it, and its certificate."""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from kandev_host.cli.checks import Check, Look
from kandev_host.errors import StartupError

if TYPE_CHECKING:
    from kandev_host.settings.load import Loaded

DAY_S = 86_400.0
SOON_DAYS = 14
LISTEN = "0A"  # as in /proc/net/tcp
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def looks(loaded: Loaded) -> dict[str, Look]:
    return {"address": lambda: address(loaded), "certificate": lambda: certificate(loaded)}


def address(loaded: Loaded) -> Iterator[Check]:
    from kandev_host.gateway.listening import check_address
    from kandev_host.presence import running

    server = loaded.settings.server
    try:
        check_address(server)
    except StartupError as error:
        why = "others would reach, and could take over, all that agents do here"
        yield Check("address", "failed", str(error), 'set [server] host = "127.0.0.1"', why)
        return
    if server.unix_socket is not None:
        yield Check("address", "ok", server.unix_socket)
        return
    where = f"{server.host}:{server.port}"
    if server.port == 0 or running(loaded.data_dir) is not None:
        yield Check("address", "ok", where)
        return
    refused = _refusal(server.host, server.port)
    if refused is None:
        yield Check("address", "ok", f"{where} is free")
    elif refused == errno.EADDRINUSE:
        fix = "stop that, or choose another: kandev-host up --port N, or [server] port"
        yield Check("address", "failed", f"{where} is in use by {_owner(server.port)}", fix, "the host cannot start")
    else:
        fix = "choose another address or port: [server] host and port"
        yield Check("address", "failed", f"{where}: {os.strerror(refused)}", fix, "the host cannot start")


def _refusal(host: str, port: int) -> int | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            return error.errno or errno.EINVAL
    return None


def _owner(port: int) -> str:
    """The process that listens on a port, as far as this user may see it."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                parts = line.split()
                if parts[3] == LISTEN and int(parts[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{parts[9]}]")
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if any(os.readlink(each) in inodes for each in (entry / "fd").iterdir()):
                    return f"{(entry / 'comm').read_text().strip()} (pid {entry.name})"
    return "a process of another user"


def certificate(loaded: Loaded) -> Iterator[Check]:
    from kandev_host.gateway.certificate import Certificate

    why = "without a certificate that is good nobody connects"
    try:
        found = Certificate.of(loaded.settings.server)
    except StartupError as error:
        yield Check("certificate", "failed", str(error), "mend [server] tls_certificate and tls_key", why)
        return
    if found is None:
        return
    ends_s = expiry(found.path)
    left_days = (ends_s - time.time()) / DAY_S
    told = f"{found.path} is good until {datetime.fromtimestamp(ends_s, UTC):%Y-%m-%d}"
    fix = "renew it: the host takes the new file over by itself"
    if left_days < 0:
        told = f"{found.path} was good until {datetime.fromtimestamp(ends_s, UTC):%Y-%m-%d}"
        yield Check("certificate", "failed", told, fix, why)
    elif left_days < SOON_DAYS:
        yield Check("certificate", "warning", f"{told}, {left_days:.0f} days more", fix, why)
    else:
        yield Check("certificate", "ok", told)


def expiry(path: Path) -> float:
    """The end of validity of the first certificate of a file, in seconds since the epoch (RFC 5280, 4.1)."""
    first = _PEM.search(path.read_text())
    if first is None:
        raise ValueError(f"{path} has no certificate")
    whole = _inside(ssl.PEM_cert_to_DER_cert(first[0]))[0][1]
    fields = [value for tag, value in _inside(_inside(whole)[0][1]) if tag != 0xA0]
    tag, ends = _inside(fields[3])[1]  # serial number, signature, issuer, validity
    text = ends.decode("ascii")
    if tag == 0x17:  # UTCTime: two digits of the year, from 1950 on
        text = ("19" if int(text[:2]) >= 50 else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _inside(der: bytes) -> list[tuple[int, bytes]]:
    """The elements that stand one after the other in DER: tag and content."""
    found, at = [], 0
    while at < len(der):
        tag, length, at = der[at], der[at + 1], at + 2
        if length & 0x80:
            size = length & 0x7F
            length, at = int.from_bytes(der[at : at + size]), at + size
        found.append((tag, der[at : at + length]))
        at += length
    return found
