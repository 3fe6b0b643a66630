"""Owns the forwarders of all running agents: each has addresses and a path of its own, from its start to its end."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType

import anyio
import anyio.abc

from kandev_host.errors import Unavailable
from kandev_host.services.credentials.uses import Uses
from kandev_host.services.forwarding.http import LOOPBACK, HttpForwarder
from kandev_host.services.forwarding.ssh import SshForwarder

log = logging.getLogger(__name__)
KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Brokered:
    """Settings of git in the jail (key, value) and the loopback services of the host that it may reach for them.

    `shown` are the addresses that git names in its errors, and what they stand for.
    """

    config: tuple[tuple[str, str], ...] = ()
    allow: tuple[str, ...] = ()
    shown: Mapping[str, str] = field(default_factory=dict, repr=False)


class Brokerage:
    """Use as an async context manager: leaving it ends them all."""

    def __init__(self) -> None:
        self._group: anyio.abc.TaskGroup | None = None
        self._scopes: dict[str, list[anyio.CancelScope]] = {}

    async def __aenter__(self) -> Brokerage:
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._group is not None:
            self._group.cancel_scope.cancel()
            await self._group.__aexit__(None, None, None)
            self._group = None

    async def open(self, agent_id: str, wanted: Sequence[Uses]) -> Brokered:
        """Begin to serve these to an agent, until `close`. Raises what keeps one from being served."""
        if self._group is None:
            raise Unavailable("The host is stopping")
        config: list[tuple[str, str]] = []
        allow = []
        shown = {}
        for uses in wanted:
            key = secrets.token_urlsafe(KEY_BYTES)
            port = await self._group.start(self._serve, agent_id, uses, key, name=f"git of agent {agent_id}")
            scheme = "http" if uses.grant.scheme == "https" else "git"
            base = f"{scheme}://{LOOPBACK}:{port}/{key}/repo"
            config += [(f"url.{base}.insteadOf", url) for url in uses.grant.spellings()]
            allow.append(f"{LOOPBACK}:{port}")
            shown[base] = uses.grant.url
        return Brokered(tuple(config), tuple(allow), shown)

    def close(self, agent_id: str) -> None:
        """Serve nothing more to it. Again, or for one that has none, is nothing."""
        for scope in self._scopes.pop(agent_id, []):
            scope.cancel()

    async def _serve(
        self, agent_id: str, uses: Uses, key: str, *, task_status: anyio.abc.TaskStatus[int] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        ready = False
        with anyio.CancelScope() as scope:
            self._scopes.setdefault(agent_id, []).append(scope)
            try:
                kind = HttpForwarder if uses.grant.scheme == "https" else SshForwarder
                async with kind(uses, key).serving() as port:
                    task_status.started(port)
                    ready = True
                    await anyio.sleep_forever()
            except Exception:
                if not ready:
                    raise
                # One agent's git breaks alone: it sees a connection refused.
                log.exception("the git of agent %s is served no more (%s)", agent_id, uses.grant.name)
