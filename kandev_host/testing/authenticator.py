"""What every Authenticator must do, and every Issuer. Subclass one and give it its fixtures.

`AuthenticatorContract` wants `authenticator` and a `token` that it knows; `IssuerContract` also `login`, a name and its
password.
"""

from __future__ import annotations

import anyio
import pytest

from kandev_host.interfaces import Authenticator, Credentials, Issued, Issuer, Principal

HERE = "127.0.0.1"
STRANGE = ("", " ", "x" * 16_384, "a.b.c", "eyJhbGciOiJub25lIn0.e30.", "\ud800", "\x00", "null", "../token", "' OR 1=1")


async def whose(authenticator: Authenticator, token: str) -> Principal | None:
    """Who shows this token."""
    return await authenticator.authenticate(Credentials(token, HERE))


async def known(authenticator: Authenticator, token: str) -> Principal:
    """The same of a good one."""
    found = await whose(authenticator, token)
    assert found is not None
    return found


@pytest.mark.anyio
class AuthenticatorContract:
    """The tests. They use only what `Authenticator` promises."""

    async def test_a_good_token_is_somebodys_while_it_holds(self, authenticator: Authenticator, token: str) -> None:
        principal = await known(authenticator, token)
        assert authenticator.holds(principal) is True
        assert not principal.credential.startswith("session:")
        assert token not in repr(principal)

    async def test_any_other_text_is_nobodys(self, authenticator: Authenticator, token: str) -> None:
        beside = (token[:-1], token + "x", token.swapcase(), f" {token}", f"Bearer {token}")
        assert [await whose(authenticator, text) for text in (*STRANGE, *beside)] == [None] * (len(STRANGE) + 5)

    async def test_several_ask_at_once(self, authenticator: Authenticator, token: str) -> None:
        found: dict[int, Principal | None] = {}

        async def ask(number: int) -> None:
            found[number] = await whose(authenticator, "wrong" if number % 2 else token)

        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(ask, number)
        assert {number for number, principal in found.items() if principal is not None} == set(range(0, 20, 2))

    async def test_what_is_revoked_holds_no_more(self, authenticator: Authenticator, token: str) -> None:
        principal = await known(authenticator, token)
        revoked = await authenticator.revoke(principal)
        assert authenticator.holds(principal) is not revoked
        assert (await whose(authenticator, token) is None) is revoked


class IssuerContract(AuthenticatorContract):
    """The tests of an Issuer, which is an Authenticator too."""

    @staticmethod
    async def entered(authenticator: Authenticator, login: tuple[str, str]) -> tuple[Issuer, Issued]:
        """What a log-in gets."""
        assert isinstance(authenticator, Issuer)
        issued = await authenticator.log_in(*login, HERE)
        assert isinstance(issued, Issued)
        return authenticator, issued

    async def test_a_log_in_gets_a_token_of_its_principal(
        self, authenticator: Authenticator, login: tuple[str, str]
    ) -> None:
        _, issued = await self.entered(authenticator, login)
        assert await whose(authenticator, issued.token) == issued.principal
        assert issued.token not in repr(issued)

    async def test_any_other_name_or_password_gets_nothing(
        self, authenticator: Authenticator, login: tuple[str, str]
    ) -> None:
        issuer, _ = await self.entered(authenticator, login)
        name, password = login
        wrong = [(name, text) for text in ("", password[:-1], password + "x", password.swapcase(), *STRANGE[2:])]
        wrong += [("nobody", password), ("", ""), (password, name)]
        assert not any([isinstance(await issuer.log_in(*each, HERE), Issued) for each in wrong])
        unknown = [("nobody", password), ("", ""), (password, name)]
        assert [await issuer.log_in(*each, HERE) for each in unknown] == [None] * len(unknown)

    async def test_a_refresh_token_is_good_once_and_used_again_ends_its_log_in(
        self, authenticator: Authenticator, login: tuple[str, str]
    ) -> None:
        issuer, first = await self.entered(authenticator, login)
        if first.refresh_token is None:
            return
        assert await whose(authenticator, first.refresh_token) is None
        second = await issuer.refresh(first.refresh_token, HERE)
        assert isinstance(second, Issued)
        assert second.principal.id == first.principal.id
        assert not isinstance(await issuer.refresh(first.refresh_token, HERE), Issued)
        assert not authenticator.holds(second.principal)
        assert [await issuer.refresh(text, HERE) for text in STRANGE] == [None] * len(STRANGE)
