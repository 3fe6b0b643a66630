"""The authenticator "users": names with passwords, tokens, API keys (extra `kandev-host[users]`)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from kandev_host import Action, Authenticator, Environment, Provider, hookimpl

if TYPE_CHECKING:
    from kandev_users.authenticator import Users
    from kandev_users.tokens import Tokens

EXTRA = "kandev-host[users]"
NAME = "users"


class UsersSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Users with passwords, tokens and keys (docs/users.md)."""

    local_token: Annotated[
        bool, Meta(description="Does the local token let programs of this machine in, as an administrator?")
    ] = True
    token_lifetime_s: Annotated[
        float, Meta(ge=1, le=3600, description="Time that an access token is good; a refresh token brings the next.")
    ] = 3600.0
    login_lifetime_s: Annotated[
        float, Meta(gt=0, description="Time after which a log-in cannot be refreshed any more.")
    ] = 30 * 86_400.0
    secret: Annotated[
        str | None,
        Meta(
            description="What access tokens are signed with, instead of the file jwt-secret: 32 random bytes or more."
        ),
    ] = None
    issuer: Annotated[
        str | None, Meta(description="Another issuer of JWTs (iss): their sub is the name of a user here.")
    ] = None
    issuer_key_file: Annotated[
        str | None, Meta(description="Its public key in PEM: RSA (then RS256 alone) or Ed25519 (EdDSA alone).")
    ] = None
    issuer_audience: Annotated[str, Meta(description="What its tokens must name as aud.")] = "kandev-host"
    issuer_key_id: Annotated[str | None, Meta(description="What they must name as kid; unset is any.")] = None


@asynccontextmanager
async def open_users(settings: UsersSettings, environment: Environment) -> AsyncIterator[Authenticator]:
    """Raises `StartupError` for files that others could read, and for a secret that is an example."""
    from kandev_host import TokenFile
    from kandev_users.authenticator import Users
    from kandev_users.database import Database
    from kandev_users.directory import Directory
    from kandev_users.passwords import Passwords
    from kandev_users.tokens import given_secret, load_secret

    folder = Path(environment.data_dir)
    tokens = _tokens(settings, load_secret(folder) if settings.secret is None else given_secret(settings.secret))
    with Database(folder) as database:
        yield Users(
            Directory(database, local=settings.local_token),
            tokens,
            Passwords(),
            login_lifetime_s=settings.login_lifetime_s,
            local=TokenFile(folder) if settings.local_token else None,
        )


def check_users(settings: UsersSettings) -> None:
    """Raise what `open_users` would for a secret that is an example, and for a key of an issuer that is none."""
    from kandev_users.tokens import given_secret

    _tokens(settings, "" if settings.secret is None else given_secret(settings.secret))


def _tokens(settings: UsersSettings, secret: str) -> Tokens:
    from kandev_users.tokens import Tokens

    return Tokens(
        secret,
        lifetime_s=settings.token_lifetime_s,
        issuer=settings.issuer,
        key_file=None if settings.issuer_key_file is None else Path(settings.issuer_key_file),
        audience=settings.issuer_audience,
        key_id=settings.issuer_key_id,
    )


@hookimpl
def kandev_authenticators() -> list[Provider[UsersSettings, Authenticator]]:
    missing = None if all(map(find_spec, ("argon2", "cryptography", "jwt"))) else EXTRA
    return [Provider(NAME, open_users, UsersSettings, missing, check=check_users)]


@hookimpl
def kandev_actions(services: Any) -> list[Action[Any]]:
    users = _selected(services)
    if users is None:
        return []
    from kandev_users.actions import users_actions
    from kandev_users.owners import Owners

    return users_actions(users, Owners(services), lambda: services.running.scopes)


@hookimpl
def kandev_lifespan(services: Any) -> AbstractAsyncContextManager[None]:
    users = _selected(services)
    if users is None:
        return nullcontext()
    from kandev_users.owners import owners_of

    return owners_of(services, users.directory.users)


def _selected(services: Any) -> Users | None:
    """The authenticator of the host, if it is ours."""
    if services.settings.use.authenticator != NAME:
        return None
    from kandev_users.authenticator import Users

    return services.authenticator if isinstance(services.authenticator, Users) else None
