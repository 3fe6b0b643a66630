"""`GET /schema.json`: what this host serves, the actions of its plugins included, as AsyncAPI.

It tells nothing that is secret, so it wants no token: tools that make clients and pages of it cannot send one. Host and
Origin are checked as everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import anyio
import anyio.to_thread
from aiohttp import web

from kandev_host.gateway.listening import Address
from kandev_host.interfaces import Action
from kandev_host.settings import GatewaySettings


class SchemaRoute:
    """Makes the document when it is first asked for, in a thread: it takes a while, and nobody else should wait."""

    def __init__(
        self, actions: Iterable[Action[Any]], settings: GatewaySettings, address: Callable[[], Address]
    ) -> None:
        self._actions = tuple(actions)
        self._settings = settings
        self._address = address
        self._making = anyio.Lock()
        self._body: bytes | None = None

    async def serve(self, _request: web.Request) -> web.Response:
        async with self._making:
            if self._body is None:
                self._body = await anyio.to_thread.run_sync(self._made)
        return web.Response(body=self._body, content_type="application/json", charset="utf-8")

    def _made(self) -> bytes:
        # Imported by then only: most hosts are never asked, and all of them start.
        from kandev_host.protocol.reference import LIMITS
        from kandev_host.protocol.schema import OFFERS, Offer, encoded

        offers = {}
        for action in self._actions:
            known = OFFERS.get(action.name)
            response = None if known is None else known.response
            offers[action.name] = Offer(action.request, response, action.scope, action.summary)
        limits = {name: getattr(self._settings, name) for name in LIMITS}
        found = self._address()
        address = "localhost" if found.scheme == "unix" else found.url.partition("://")[2]
        return encoded(offers, address=address, limits=limits)
