"""JSON Web Tokens: our own (HS256, a secret of this host), and those of one other issuer (by its public key).

Which key and which algorithm a token is checked with follows from our settings, never from what the token says: its
header only tells whose it claims to be.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from kandev_host import load_token, secrets
from kandev_host.errors import SettingsError, StartupError
from kandev_host.models import new_id

SECRET_FILE = "jwt-secret"  # noqa: S105 - a file name
OWN = "kandev-host"
LEEWAY_S = 10
LONGEST_S = 3600
TOKEN_LIMIT_CHARS = 8192
LEAST_BYTES = 32
LEAST_RSA_BITS = 2048
# Of the seeds, of jwt.io, and of widely copied examples.
SAMPLES = (
    "your-secret-key", "kandev_secret", "secret", "changeme", "your-256-bit-secret", "your-384-bit-secret",
    "your-512-bit-secret", "a-string-secret-at-least-256-bits-long", "supersecret", "jwt-secret", "password",
    "your-super-secret-jwt-token-with-at-least-32-characters-long", "mysecretkey", "kandev", "kandev-host",
)  # fmt: skip
# The rest names keys or parts of them, or wants something of us: who sends that is up to something.
_HEADER = frozenset({"alg", "typ", "kid", "x5t", "x5t#S256"})
_REQUIRED = ["exp", "iat", "aud", "iss", "sub", "jti"]  # nbf counts where it is


class Claims(msgspec.Struct, frozen=True):
    """What a good token says. `login` is of our own; of another issuer's it is None, and `subject` a name."""

    subject: str
    expires_at: datetime
    id: str
    login: str | None = None


class _Trusted(msgspec.Struct, frozen=True):
    key: Any
    algorithm: str
    issuer: str
    audience: str
    key_id: str | None


class Tokens:
    """Makes our own, and reads both. `key_file` is the public key of `issuer`, in PEM."""

    def __init__(
        self,
        secret: str,
        *,
        lifetime_s: float,
        issuer: str | None = None,
        key_file: Path | None = None,
        audience: str = OWN,
        key_id: str | None = None,
    ) -> None:
        self._lifetime = timedelta(seconds=min(lifetime_s, LONGEST_S))
        kid = hashlib.sha256(b"kid:" + secret.encode()).hexdigest()[:16]
        self._own = _Trusted(secret.encode(), "HS256", OWN, OWN, kid)
        self._other: _Trusted | None = None
        if issuer is not None and key_file is not None:
            if issuer == OWN:
                raise SettingsError(f"[authenticator.users] issuer is {OWN!r}, which is this host itself")
            key, algorithm = _public_key(key_file)
            self._other = _Trusted(key, algorithm, issuer, audience, key_id)
        elif issuer is not None or key_file is not None:
            raise SettingsError("[authenticator.users] needs both issuer and issuer_key_file, or neither")

    def issue(self, user_id: str, login_id: str, at: datetime, until: datetime) -> tuple[str, datetime]:
        """A token, and when it expires: not after `until`."""
        issued = at.astimezone(UTC).replace(microsecond=0)
        expires = min(issued + self._lifetime, until)
        own = self._own
        claims = {"iss": own.issuer, "aud": own.audience, "sub": user_id, "sid": login_id, "jti": new_id()}
        times = {"iat": issued, "nbf": issued, "exp": expires}
        token = jwt.encode({**claims, **times}, own.key, algorithm=own.algorithm, headers={"kid": own.key_id})
        return token, datetime.fromtimestamp(int(expires.timestamp()), UTC)

    def read(self, token: str) -> Claims | None:
        """None for whatever is not exactly right."""
        if len(token) > TOKEN_LIMIT_CHARS:
            return None
        try:
            header = jwt.get_unverified_header(token)
            trusted = self._trusted(header)
            if trusted is None:
                return None
            claims = jwt.decode(
                token,
                trusted.key,
                algorithms=[trusted.algorithm],
                audience=trusted.audience,
                issuer=trusted.issuer,
                leeway=LEEWAY_S,
                options={"require": _REQUIRED},
            )
            return self._claims(claims, own=trusted is self._own)
        # Whatever odd thing a stranger's token makes of the library: it is not a good one.
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError, OverflowError, AttributeError):
            return None

    def _trusted(self, header: Mapping[str, Any]) -> _Trusted | None:
        if not header.keys() <= _HEADER or header.get("typ", "JWT") not in {"JWT", "at+jwt"}:
            return None
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm == self._own.algorithm:
            return self._own if kid == self._own.key_id else None
        other = self._other
        if other is None or algorithm != other.algorithm:
            return None
        return other if other.key_id is None or kid == other.key_id else None

    @staticmethod
    def _claims(claims: Mapping[str, Any], *, own: bool) -> Claims | None:
        expires, issued, login = claims["exp"], claims["iat"], claims.get("sid")
        texts = [claims["sub"], claims["jti"], *([login] if own else [])]
        if not all(isinstance(text, str) and 0 < len(text) <= 255 for text in texts):
            return None
        if not all(isinstance(time, int | float) for time in (expires, issued)) or expires - issued > LONGEST_S:
            return None
        at = datetime.fromtimestamp(expires, UTC)
        return Claims(claims["sub"], at, claims["jti"], login if own else None)


def load_secret(data_dir: Path) -> str:
    """The secret of our own tokens, made at the first start. Raises `StartupError` for one that others know or see."""
    secret = load_token(data_dir, SECRET_FILE)
    _check_secret(secret, f"The secret in {SECRET_FILE}", f"delete {SECRET_FILE}, and the next start makes a good one")
    return secret


def given_secret(secret: str) -> str:
    """The same of one that the settings bring, as JWT_SECRET does."""
    secrets.register(secret, "the secret of access tokens")
    fix = f"leave it out, and the host keeps a good one in {SECRET_FILE}"
    _check_secret(secret, "[authenticator.users] secret (JWT_SECRET)", fix)
    return secret


def _check_secret(secret: str, what: str, fix: str) -> None:
    if len(secret.encode("utf-8", "surrogateescape")) < LEAST_BYTES:
        raise StartupError(f"{what} is shorter than {LEAST_BYTES} bytes: {fix}")
    plain = secret.strip().lower()
    if len(set(plain)) < 10 or any(not re.sub(r"[\W_]", "", plain.replace(each, "")) for each in SAMPLES):
        raise StartupError(f"{what} is an example that everybody knows: {fix}")


def _public_key(path: Path) -> tuple[RSAPublicKey | Ed25519PublicKey, str]:
    """The key, and the one algorithm that it is good for."""
    what = f"[authenticator.users] issuer_key_file {path}"
    try:
        key = load_pem_public_key(path.expanduser().read_bytes())
    except OSError as error:
        raise SettingsError(f"{what} cannot be read: {error.strerror}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SettingsError(f"{what} holds no public key in PEM: {error}") from error
    if isinstance(key, Ed25519PublicKey):
        return key, "EdDSA"
    if isinstance(key, RSAPublicKey) and key.key_size >= LEAST_RSA_BITS:
        return key, "RS256"
    raise SettingsError(f"{what} must hold an RSA key of {LEAST_RSA_BITS} bits or more, or an Ed25519 key")
