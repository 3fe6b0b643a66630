"""JSON Web Tokens: whatever is not exactly right is nobody's."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from kandev_host.errors import StartupError
from kandev_users.tokens import SAMPLES, Tokens, given_secret, load_secret

SECRET = "8mXw2-tPq0Lr7vKc5nYd9aHf3sJg6bZe1uRi4oTyWxE"
ISSUER = "https://login.example"
RSA = generate_private_key(65537, 2048)
OTHER_RSA = generate_private_key(65537, 2048)
ED = Ed25519PrivateKey.generate()


def pem(key: Any) -> bytes:
    return bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def trusting(tmp_path: Path) -> Callable[..., Tokens]:
    """Tokens of ours and of one other issuer, whose public key this is."""

    def made(key: Any = RSA, **more: Any) -> Tokens:
        file = tmp_path / "issuer.pem"
        file.write_bytes(pem(key))
        return Tokens(SECRET, lifetime_s=3600, issuer=ISSUER, key_file=file, **more)

    return made


def own(tokens: Tokens) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of a good token."""
    token, _ = tokens.issue("u1", "l1", now(), now() + timedelta(days=1))
    return jwt.get_unverified_header(token), jwt.decode(token, options={"verify_signature": False})


def others() -> dict[str, Any]:
    at = int(now().timestamp())
    return {"iss": ISSUER, "aud": "kandev-host", "sub": "ada", "jti": "j1", "iat": at, "nbf": at, "exp": at + 600}


def part(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(header: Any, claims: Any, key: bytes = SECRET.encode()) -> str:
    """By hand: no library would make most of these."""
    text = f"{part(header)}.{part(claims)}"
    return f"{text}.{part(hmac.new(key, text.encode(), hashlib.sha256).digest())}"


def test_a_token_of_ours_tells_whose_it_is_and_for_how_long() -> None:
    tokens = Tokens(SECRET, lifetime_s=600)
    token, expires_at = tokens.issue("u1", "l1", now(), now() + timedelta(days=1))
    claims = tokens.read(token)
    assert claims is not None
    assert (claims.subject, claims.login, claims.expires_at) == ("u1", "l1", expires_at)
    assert timedelta(seconds=590) < expires_at - now() <= timedelta(seconds=600)
    soon = now() + timedelta(seconds=30)
    assert tokens.issue("u1", "l1", now(), soon)[1] <= soon
    assert Tokens("another-" + SECRET, lifetime_s=600).read(token) is None


CHANGES: dict[str, dict[str, Any]] = {
    "another audience": {"aud": "another"},
    "no audience": {"aud": None},
    "another issuer": {"iss": "another"},
    "no issuer": {"iss": None},
    "expired": {"iat": -7200, "nbf": -7200, "exp": -3600},
    "expires never": {"exp": None},
    "expires as a word": {"exp": "tomorrow"},
    "expires at infinity": {"exp": 1 << 70},
    "longer than an hour": {"exp": 3700},
    "issued nowhen": {"iat": None},
    "issued later": {"iat": 600, "nbf": 0, "exp": 900},
    "not before later": {"nbf": 600},
    "no subject": {"sub": None},
    "a subject that is a list": {"sub": ["u1"]},
    "an empty subject": {"sub": ""},
    "no id": {"jti": None},
    "no login": {"sid": None},
    "a login that is a number": {"sid": 7},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_wrong_claims_are_refused_though_the_signature_is_right(change: dict[str, Any]) -> None:
    tokens = Tokens(SECRET, lifetime_s=3600)
    header, claims = own(tokens)
    assert tokens.read(signed(header, claims)) is not None
    at = int(now().timestamp())
    for name, value in change.items():
        relative = name in {"iat", "nbf", "exp"} and isinstance(value, int)
        claims[name] = at + value if relative else value
        if value is None:
            del claims[name]
    assert tokens.read(signed(header, claims)) is None


HEADERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no algorithm": lambda header: {**header, "alg": None},
    "alg none": lambda header: {**header, "alg": "none"},
    "alg NONE": lambda header: {**header, "alg": "NONE"},
    "another HMAC": lambda header: {**header, "alg": "HS512"},
    "the other issuer's algorithm": lambda header: {**header, "alg": "RS256"},
    "no key id": lambda header: {key: value for key, value in header.items() if key != "kid"},
    "a file as key id": lambda header: {**header, "kid": "../../../../dev/null"},
    "a key id that is a list": lambda header: {**header, "kid": [header["kid"]]},
    "SQL as key id": lambda header: {**header, "kid": "' UNION SELECT 'x"},
    "a key of its own": lambda header: {**header, "jwk": {"kty": "oct", "k": part(b"x" * 32)}},
    "an address of keys": lambda header: {**header, "jku": "https://evil.example/keys"},
    "a certificate": lambda header: {**header, "x5u": "https://evil.example/cert"},
    "something critical": lambda header: {**header, "crit": ["exp"]},
    "an unencoded payload": lambda header: {**header, "b64": False, "crit": ["b64"]},
    "another type": lambda header: {**header, "typ": "JWE"},
    "a list": lambda header: [header],
    "a number": lambda header: 7,
    "deep nesting": lambda header: b'{"alg":' + b"[" * 3000 + b"]" * 3000 + b"}",
}


@pytest.mark.parametrize("change", HEADERS.values(), ids=list(HEADERS))
def test_the_header_chooses_neither_key_nor_algorithm(change: Any, trusting: Any) -> None:
    tokens = trusting()
    header, claims = own(tokens)
    forged = change(header)
    for key in (SECRET.encode(), b"", b"x" * 32, pem(RSA)):
        assert tokens.read(signed(forged, claims, key)) is None
    assert tokens.read(f"{part(forged)}.{part(claims)}.") is None


def test_a_public_key_is_no_secret(trusting: Any) -> None:
    tokens = trusting()
    header, _ = own(tokens)
    for key in (pem(RSA), pem(RSA).strip(), pem(RSA) + b"\n"):
        for kid in (header["kid"], None, "k1"):
            assert tokens.read(signed({"alg": "HS256", "typ": "JWT", "kid": kid}, others(), key)) is None
            assert tokens.read(signed({"alg": "RS256", "typ": "JWT", "kid": kid}, others(), key)) is None


@pytest.mark.parametrize(("key", "algorithm"), [(RSA, "RS256"), (ED, "EdDSA")], ids=["RS256", "EdDSA"])
def test_another_issuer_is_believed_in_its_own_name_alone(key: Any, algorithm: str, trusting: Any) -> None:
    tokens = trusting(key)
    claims = tokens.read(jwt.encode(others(), key, algorithm=algorithm))
    assert (claims.subject, claims.login) == ("ada", None)
    _, ours = own(tokens)
    assert tokens.read(jwt.encode(ours, key, algorithm=algorithm)) is None
    # A login of ours, which it names, is not believed.
    assert tokens.read(jwt.encode({**others(), "sid": "l1"}, key, algorithm=algorithm)).login is None
    assert tokens.read(jwt.encode(others(), OTHER_RSA, algorithm="RS256")) is None
    assert tokens.read(jwt.encode(others(), RSA, algorithm="RS512")) is None
    assert tokens.read(jwt.encode({**others(), "aud": "another"}, key, algorithm=algorithm)) is None
    assert tokens.read(jwt.encode({**others(), "exp": others()["iat"] + 7200}, key, algorithm=algorithm)) is None
    assert tokens.read(jwt.encode(others(), SECRET, algorithm="HS256")) is None


def test_its_key_id_can_be_pinned(trusting: Any) -> None:
    tokens = trusting(key_id="k1")
    assert tokens.read(jwt.encode(others(), RSA, algorithm="RS256", headers={"kid": "k1"})) is not None
    assert tokens.read(jwt.encode(others(), RSA, algorithm="RS256", headers={"kid": "k2"})) is None
    assert tokens.read(jwt.encode(others(), RSA, algorithm="RS256")) is None


@pytest.mark.parametrize(
    "content",
    [b"", b"no key", pem(generate_private_key(65537, 1024)), pem(generate_ec(SECP256R1())), SECRET.encode()],
    ids=["empty", "text", "short RSA", "P-256", "a secret"],
)
def test_a_key_file_that_is_no_good_stops_the_start(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(content)
    with pytest.raises(StartupError, match="issuer_key_file"):
        Tokens(SECRET, lifetime_s=600, issuer=ISSUER, key_file=file)


@pytest.mark.parametrize(
    "text", ["", ".", "..", "a.b.c", "eyJ.eyJ.", "e" * 100_000 + "..", "\ud800.b.c", "é.é.é"], ids=repr
)
def test_what_is_no_token_is_nobodys(text: str) -> None:
    assert Tokens(SECRET, lifetime_s=600).read(text) is None


def test_a_huge_token_is_not_even_read() -> None:
    tokens = Tokens(SECRET, lifetime_s=600)
    header, claims = own(tokens)
    assert tokens.read(signed(header, {**claims, "more": "x" * 9000})) is None


TOKENS = Tokens(SECRET, lifetime_s=600)
GOOD, _ = TOKENS.issue("u1", "l1", now(), now() + timedelta(days=1))


@given(st.integers(0, len(GOOD) - 1), st.characters(codec="ascii"))
def test_no_other_text_than_the_token_is_good(at: int, char: str) -> None:
    forged = GOOD[:at] + char + GOOD[at + 1 :]
    # The last character of a signature has bits that mean nothing.
    same = at == len(GOOD) - 1 or forged == GOOD
    assert (TOKENS.read(forged) is None) or same


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["alg", "typ", "kid", "crit", "iss", "aud", "sub", "sid", "jti", "iat", "nbf", "exp"])


@given(st.dictionaries(NAMES, JSON), st.dictionaries(NAMES, JSON))
def test_no_claims_make_a_wrong_key_right_and_none_are_an_error(header: Any, claims: Any) -> None:
    whole_header, whole_claims = own(TOKENS)
    assert TOKENS.read(signed({**whole_header, **header}, {**whole_claims, **claims}, b"w" * 32)) is None
    TOKENS.read(signed({**whole_header, **header}, {**whole_claims, **claims}))


@pytest.mark.parametrize(
    "secret", [*SAMPLES, *(each * 8 for each in SAMPLES), "x" * 64, "Your-Secret-Key" * 4, "abab" * 16, "short"]
)
def test_a_secret_that_is_short_or_an_example_stops_the_start(secret: str) -> None:
    with pytest.raises(StartupError, match="jwt-secret"):
        given_secret(secret)


def test_the_secret_is_made_once_for_its_user_alone(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    secret = load_secret(folder)
    file = folder / "jwt-secret"
    assert (load_secret(folder), len(secret) >= 43, file.stat().st_mode & 0o777) == (secret, True, 0o600)
    file.chmod(0o640)
    with pytest.raises(StartupError, match="Others may read"):
        load_secret(folder)
    file.chmod(0o600)
    file.write_text("a-string-secret-at-least-256-bits-long-a-string-secret-at-least-256-bits-long")
    with pytest.raises(StartupError, match="example"):
        load_secret(folder)
