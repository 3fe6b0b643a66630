"""What lies beside the database: the key of the chain, and where the chain stood last."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from datetime import datetime
from pathlib import Path

import msgspec

from kandev_host.errors import StartupError
from kandev_host.models import key_id_of, now
from kandev_host.private_files import read_private, read_small, write_private
from kandev_host.secrets import register

KEY_FILE = "audit-key"
HEAD_FILE = "audit-head"
KEY_BYTES = 32
_FORM = re.compile(r"[0-9a-f]{64}")
_canonical = msgspec.json.Encoder(order="sorted").encode


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The last row when this was written. `token` and `settings` tell whether those are others since."""

    seq: int
    mac: str
    journal_id: str
    key_id: str
    token: str | None = None
    settings: str | None = None
    at: datetime = msgspec.field(default_factory=now)
    signature: str = ""

    def signed(self, key: bytes) -> Head:
        return msgspec.structs.replace(self, signature=self._signature(key))

    def holds(self, key: bytes) -> bool:
        return hmac.compare_digest(self.signature.encode(), self._signature(key).encode())

    def _signature(self, key: bytes) -> str:
        said = _canonical(msgspec.structs.replace(self, signature=""))
        return hmac.new(key, b"kandev-host audit head\n" + said, hashlib.sha256).hexdigest()


def load_key(folder: Path) -> bytes:
    """The key in the data folder, made at first use. Raises `StartupError` when others could read or replace it."""
    path = folder / KEY_FILE
    found = read_key(path)
    if found is None:
        write_private(path, secrets.token_hex(KEY_BYTES).encode() + b"\n", replace=False)
        found = read_key(path)
    if found is None:
        raise StartupError(f"The key {path} was taken away while it was read: start again")
    return found


def read_key(path: Path) -> bytes | None:
    """The key in this file, None if there is no file. Raises `StartupError` for one that is no key, or not private."""
    found = read_private(
        path,
        fix="put the key there again, from a copy",
        fix_wider=f"whoever has this key can write any history: chmod 600 {path}",
    )
    if found is None:
        return None
    said = found.decode("ascii", "replace").strip()
    if not _FORM.fullmatch(said):
        raise StartupError(
            f"{path} holds no key: put it there again, from a copy; or delete it, and the next start begins a new chain"
        )
    register(said, "the key of the audit")
    return bytes.fromhex(said)


def read_head(folder: Path) -> Head | None:
    """Where the chain stood; None if that was not written down, or cannot be read."""
    found = read_small(folder / HEAD_FILE)
    try:
        return None if found is None else msgspec.json.decode(found, type=Head)
    except (msgspec.MsgspecError, RecursionError):
        return None


def write_head(folder: Path, head: Head, key: bytes) -> None:
    """On the disk when it returns. Raises `OSError`."""
    signed = msgspec.structs.replace(head, key_id=key_id_of(key)).signed(key)
    write_private(folder / HEAD_FILE, msgspec.json.encode(signed) + b"\n", replace=True)


def fingerprint(path: Path) -> str | None:
    """Of a random secret in a file, to tell it from another one; None if it cannot be read."""
    found = read_small(path)
    return None if found is None else hashlib.sha256(found).hexdigest()[:16]
