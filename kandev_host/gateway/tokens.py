"""The local token: one secret in a file that only this user can read, and the single user it stands for."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import logging
import os
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec.structs import replace

from kandev_host.errors import StartupError
from kandev_host.interfaces import Authenticator, Credentials, Environment, Principal
from kandev_host.models import LOCAL_USER_ID
from kandev_host.private_files import read_private, write_private
from kandev_host.secrets import register

logger = logging.getLogger(__name__)

TOKEN_FILE = "token"  # noqa: S105 - a file name
TOKEN_BYTES = 32
_FORM = re.compile(r"[A-Za-z0-9_-]{43,200}")
# At its start, or when somebody shows it a token.
_FIX = "delete it, and the host makes a new one when it next needs one"

LOCAL_USER = Principal(id=LOCAL_USER_ID, kind="user", name="local", scopes=frozenset({"*"}))


class LocalAuthenticator:
    """Knows one token and one user, who may do everything. The token never belongs into a URL."""

    def __init__(self, token: str, principal: Principal = LOCAL_USER, *, remote: bool = False) -> None:
        self._digest = _digest(token)
        self._principal = principal
        self.remote = remote

    async def authenticate(self, credentials: Credentials) -> Principal | None:
        # Digests are of one length, so the comparison tells nothing about the token's.
        return self._principal if hmac.compare_digest(_digest(credentials.token), self._digest) else None

    def holds(self, principal: Principal) -> bool:
        return principal.credential == self._principal.credential

    async def revoke(self, principal: Principal) -> bool:
        return False

    def same_token(self, other: LocalAuthenticator) -> bool:
        return hmac.compare_digest(self._digest, other._digest)


class TokenFile:
    """The authenticator of one token in a file of the data folder, which it follows.

    A file that was replaced (`kandev-host token --rotate`) counts at once: the old token is worth nothing, and what it
    had opened ends. A file that cannot be trusted lets nobody in, and ends everything.

    A plugin may have one of its own, of another name, that stands for another principal. Raises `StartupError`.
    """

    def __init__(
        self, data_dir: Path, name: str = TOKEN_FILE, principal: Principal = LOCAL_USER, *, remote: bool = False
    ) -> None:
        self._data_dir = data_dir
        self._name = name
        # Looked at for every request: no paths are made then.
        self._folder, self._file = os.fspath(data_dir), os.fspath(data_dir / name)
        self._principal = principal
        self.remote = remote
        self._made = itertools.count(1)
        self._trusted = True
        self._seen = self._stamp()
        self._local = self._loaded()

    async def authenticate(self, credentials: Credentials) -> Principal | None:
        return await self._local.authenticate(credentials) if self._current() else None

    def holds(self, principal: Principal) -> bool:
        return self._current() and self._local.holds(principal)

    async def revoke(self, principal: Principal) -> bool:
        return False

    def _current(self) -> bool:
        """Is the token that of the file, and the file to be trusted?"""
        # Looked at before it is read: what is replaced in between is read the next time.
        seen = self._stamp()
        if seen == self._seen:
            return self._trusted
        self._seen = seen
        try:
            local = self._loaded()
        except StartupError as error:
            logger.error("nobody can log in by %s: %s", self._name, error)
            self._trusted = False
            return False
        if not self._local.same_token(local):
            self._local = local
        self._trusted = True
        return True

    def _loaded(self) -> LocalAuthenticator:
        user = replace(self._principal, credential=f"local-{next(self._made)}")
        return LocalAuthenticator(load_token(self._data_dir, self._name), user)

    def _stamp(self) -> tuple[int, ...] | None:
        """What tells one token file from another, or from itself with another mode; and who may enter its folder."""
        try:
            folder, found = os.stat(self._folder), os.lstat(self._file)
        except OSError:
            return None
        file = (found.st_dev, found.st_ino, found.st_mode, found.st_uid, found.st_mtime_ns, found.st_ctime_ns)
        return (*file, folder.st_mode, folder.st_uid)


@asynccontextmanager
async def open_local(remote: bool, environment: Environment) -> AsyncIterator[Authenticator]:
    """The built-in authenticator, as a provider opens it. Raises `StartupError`."""
    yield TokenFile(Path(environment.data_dir), remote=remote)


def load_token(data_dir: Path, name: str = TOKEN_FILE) -> str:
    """The token in that file of the data folder, made at first use.

    Raises `StartupError` when others could read or replace it.
    """
    _check_folder(data_dir)
    path = data_dir / name
    token = _read(path)
    if token is None:
        _create(path)
        token = _read(path)
    if token is None or not _FORM.fullmatch(token):
        raise StartupError(f"{path} holds no token: {_FIX}")
    register(token, f"the host's {name}")
    return token


def _check_folder(data_dir: Path) -> None:
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = data_dir.stat()
    except OSError as error:
        raise StartupError(f"The data folder {data_dir} cannot be used: {error.strerror}") from error
    if found.st_uid != os.geteuid():
        raise StartupError(f"The data folder {data_dir} belongs to user {found.st_uid}, not to you: chown it")
    if found.st_mode & 0o077:
        raise StartupError(f"Others may enter the data folder {data_dir}: chmod 700 {data_dir}")


def _read(path: Path) -> str | None:
    wider = f"chmod 600 {path}; if somebody else may have read it, {_FIX}"
    found = read_private(path, fix=_FIX, fix_wider=wider)
    return None if found is None else found.decode("ascii", "replace").strip()


def _create(path: Path) -> None:
    try:
        write_private(path, f"{secrets.token_urlsafe(TOKEN_BYTES)}\n".encode(), replace=False)
    except OSError as error:
        raise StartupError(f"The token {path} cannot be written: {error.strerror}") from error


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
