"""GET /schema.json: to everybody on this machine, under the host's own names, plugins' actions included."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

pytestmark = pytest.mark.anyio


async def ask(house: Any, **headers: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.get(f"{house.url}/schema.json", headers=headers) as response:
        assert response.content_type == "application/json"
        return response.status, await response.json()


async def test_it_needs_no_token(house: Any) -> None:
    status, schema = await ask(house)
    assert (status, schema["asyncapi"]) == (200, "3.0.0")


async def test_it_holds_every_action_that_is_served(house: Any) -> None:
    _, schema = await ask(house)
    served = {action.name for action in house.actions()} | {"auth.login", "auth.refresh", "auth.ticket", "auth.logout"}
    operations = {name for name in schema["operations"] if not name.startswith("notification.")}
    assert operations == served


async def test_it_names_the_hosts_own_address_and_limits(open_house: Any) -> None:
    async with open_house(sockets_total=7) as house:
        _, schema = await ask(house)
        assert f"http://{schema['servers']['host']['host']}" == house.url
        assert schema["x-limits"]["sockets_total"] == 7


@pytest.mark.parametrize(("header", "value", "status"), [("Host", "evil.example", 421), ("Origin", "null", 403)])
async def test_foreign_names_and_origins_are_refused(house: Any, header: str, value: str, status: int) -> None:
    found, answer = await ask(house, **{header: value})
    assert found == status
    assert "asyncapi" not in answer


async def test_two_askers_get_the_same_bytes(house: Any) -> None:
    assert await ask(house) == await ask(house)
