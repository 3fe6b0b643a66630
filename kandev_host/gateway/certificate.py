"""The certificate of a gateway with TLS: read from two files, and read again when they change."""

from __future__ import annotations

import logging
import os
import ssl
import stat
from pathlib import Path

from kandev_host.errors import StartupError
from kandev_host.settings import ServerSettings

logger = logging.getLogger(__name__)


class Certificate:
    """`context` serves what the files hold. Raises `StartupError` when they cannot be used."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self.path = certificate
        self._key = key
        self._seen = self._stamp()
        self.context = self._loaded()

    @classmethod
    def of(cls, server: ServerSettings) -> Certificate | None:
        """That of the settings; None where they name none, or no address."""
        if server.tls_certificate is None or server.tls_key is None:
            return None
        return cls(Path(server.tls_certificate).expanduser().absolute(), Path(server.tls_key).expanduser().absolute())

    def follow(self) -> None:
        """New handshakes get what the files hold now. What cannot be used is logged once, and the old one stays."""
        seen = self._stamp()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            # Tried aside: the two files are replaced one after the other.
            self._loaded()
            self.context.load_cert_chain(self.path, self._key, _no_password)
        except (StartupError, OSError) as error:
            logger.error("the certificate stays the old one: %s", error)

    def _loaded(self) -> ssl.SSLContext:
        self._check_key()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.path, self._key, _no_password)
        except (OSError, ValueError) as error:
            why = "they do not belong together" if "MISMATCH" in str(error) else str(error)
            raise StartupError(f"The certificate {self.path} and key {self._key} cannot be used: {why}") from error
        return context

    def _check_key(self) -> None:
        try:
            found = self._key.stat()
        except OSError as error:
            raise StartupError(f"The key {self._key} cannot be read: {error.strerror}") from error
        if not stat.S_ISREG(found.st_mode):
            raise StartupError(f"The key {self._key} is no file")
        if found.st_uid not in {0, os.geteuid()} or found.st_mode & 0o077:
            raise StartupError(f"Others may read the key {self._key}: make it yours alone, chmod 600 {self._key}")

    def _stamp(self) -> tuple[tuple[int, ...] | None, ...]:
        return tuple(_stamp(path) for path in (self.path, self._key))


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _no_password() -> str:
    raise ValueError("the key has a password: store it without one, for this user alone")
