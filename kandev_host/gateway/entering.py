"""What lets somebody in: a token, a name with its password, or a refresh token; and the answer to it."""

from __future__ import annotations

import msgspec

from kandev_host.errors import Unauthorized, ValidationFailed
from kandev_host.gateway.guard import Guard
from kandev_host.interfaces import Issued, Principal
from kandev_host.protocol.actions.auth import Login, LoginReply, PrincipalInfo, Refresh

_FIRST = {"auth.login": Login, "auth.refresh": Refresh}
_WANTED = {"auth.login": "{token}, or {name, password}", "auth.refresh": "{refresh_token}"}


async def enter(guard: Guard, shown: Login | Refresh, address: str) -> tuple[Principal, LoginReply]:
    """Who shows that, and what they are told. Raises as the guard does, `ValidationFailed` for half of it."""
    if isinstance(shown, Refresh):
        return _of(await guard.refresh(shown.refresh_token, address))
    if (flaw := _flaw(shown)) is not None:
        raise flaw
    if isinstance(shown.name, str) and isinstance(shown.password, str):
        return _of(await guard.log_in(shown.name, shown.password, address))
    principal = await guard.authenticate(str(shown.token), address)
    return principal, logged_in(principal)


def _flaw(shown: Login) -> ValidationFailed | None:
    token, name, password = (isinstance(each, str) for each in (shown.token, shown.name, shown.password))
    if token and (name or password):
        return ValidationFailed("token", "token comes alone, without a name and its password")
    if token or (name and password):
        return None
    field = "password" if name else "name" if password else "token"
    return ValidationFailed(field, f"{field} is missing: a log-in shows {_WANTED['auth.login']}")


def first_message(action: str, payload: msgspec.Raw) -> Login | Refresh:
    """What must come first on a socket that was opened without credentials. Raises `Unauthorized` for anything else."""
    if action not in _FIRST:
        raise Unauthorized(f"Log in first: the first message must be auth.login, not {action}")
    try:
        shown: Login | Refresh = msgspec.json.decode(payload, type=_FIRST[action])
    except ValueError as error:
        raise Unauthorized(f"{action} needs {_WANTED[action]}: {error}") from None
    if isinstance(shown, Login) and (flaw := _flaw(shown)) is not None:
        raise Unauthorized(flaw.message)
    return shown


def logged_in(principal: Principal) -> LoginReply:
    """The payload that answers auth.login."""
    shown = PrincipalInfo(id=principal.id, kind=principal.kind, name=principal.name)
    return LoginReply(principal=shown, expires_at=principal.expires_at)


def _of(issued: Issued) -> tuple[Principal, LoginReply]:
    reply = logged_in(issued.principal)
    return issued.principal, msgspec.structs.replace(reply, token=issued.token, refresh_token=issued.refresh_token)
