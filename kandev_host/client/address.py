"""Where a host is: what its address says, and how to connect there."""

from __future__ import annotations

import os
import re
import ssl
from hashlib import sha256
from pathlib import Path
from urllib.parse import parse_qs

import aiohttp

UNIX = "unix://"


def socket_url(url: str) -> str:
    """Where the socket is, of the host's address."""
    if url.startswith(UNIX):
        return "http://localhost/ws"
    base = re.sub(r"^ws", "http", url.partition("#")[0].rstrip("/"))
    return base if base.endswith("/ws") else f"{base}/ws"


def connector(url: str) -> aiohttp.BaseConnector:
    """For `unix:///path`, or `https://…#certificate=/path.pem`: the host must then have the certificate in that file.

    Raises `OSError` for a file that cannot be used, `ValueError` for one that is not what it should be.
    """
    if url.startswith(UNIX):
        path = url.removeprefix(UNIX)
        owner = os.stat(path).st_uid
        if os.geteuid() not in {0, owner}:
            raise PermissionError(f"{path} belongs to user {owner}: it would get your token")
        return aiohttp.UnixConnector(path)
    pinned = parse_qs(url.partition("#")[2]).get("certificate")
    if pinned is None:
        return aiohttp.TCPConnector()
    # Whoever made the file is who answers: neither its name nor who signed it says more than that.
    certificate, _, _ = Path(pinned[0]).read_text().partition(ssl.PEM_FOOTER)
    return aiohttp.TCPConnector(
        ssl=aiohttp.Fingerprint(sha256(ssl.PEM_cert_to_DER_cert(_begun(certificate) + ssl.PEM_FOOTER)).digest())
    )


def _begun(text: str) -> str:
    """From the first certificate on: a file may have words, or its key, before it."""
    found = text.rfind(ssl.PEM_HEADER)
    if found < 0:
        raise ValueError("the file holds no certificate")
    return text[found:]
