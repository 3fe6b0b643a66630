"""What a third party's plugin lets in by name and password, held to its time and to what it may answer."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from kandev_host.errors import Unauthorized
from kandev_host.interfaces import Issued, Issuer, Principal
from kandev_host.plugin_contexts import bounded

pytestmark = pytest.mark.anyio

ADA = Principal("ada", "user", "ada", frozenset({"*"}), credential="c")


class Doors:
    """Answers as the password says."""

    remote = False

    async def authenticate(self, credentials: Any) -> Principal | None:
        return None

    def holds(self, principal: Principal) -> bool:
        return True

    async def revoke(self, principal: Principal) -> bool:
        return False

    async def log_in(self, name: str, password: str, address: str) -> Any:
        if password == "hang":
            await anyio.sleep_forever()
        if password == "raise":
            raise ZeroDivisionError
        return {"right": Issued(ADA, "t"), "odd": ADA}.get(password)

    async def refresh(self, refresh_token: str, address: str) -> Any:
        return await self.log_in("ada", refresh_token, address)


async def test_an_issuer_of_a_third_party_fails_closed() -> None:
    failed: list[str] = []
    doors: Any = bounded("doors", Doors(), timeout_s=0.05, failed=failed.append)
    assert isinstance(doors, Issuer)
    assert (await doors.log_in("ada", "right", "")).principal == ADA
    assert await doors.refresh("wrong", "") is None
    for asking in (doors.refresh("hang", ""), doors.log_in("ada", "raise", ""), doors.log_in("ada", "odd", "")):
        with pytest.raises(Unauthorized):
            await asking
    assert [reason.partition(":")[0] for reason in failed] == ["refresh", "log_in", "log_in"]


class Plain:
    """Knows tokens alone."""

    remote = False
    authenticate, holds, revoke = Doors.authenticate, Doors.holds, Doors.revoke


async def test_one_that_knows_tokens_alone_is_no_issuer() -> None:
    plain: Any = Plain()
    assert not isinstance(bounded("doors", plain, timeout_s=1, failed=print), Issuer)
