"""All that listens inside a jail's network and is served by the host: named services, and the proxy of an allowlist."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from kandev_sandbox import forward
from kandev_sandbox.egress import environment, proxy
from kandev_sandbox.egress.gate import Gate
from kandev_sandbox.egress.rules import Rules
from kandev_sandbox.policy import Policy


async def listen(pid: int, policy: Policy) -> list[socket.socket]:
    """The listeners in the network namespace of `pid`, for `serving`. Raises `ForwardFailed`."""
    ports = [*policy.ports, *_proxy_ports(policy)]
    return await forward.listen_inside(pid, ports) if ports else []


@asynccontextmanager
async def serving(listeners: Sequence[socket.socket], policy: Policy) -> AsyncIterator[Gate | None]:
    """Serve what `listen` answered until the context is left. Closes the listeners. Answers what decides, or None."""
    gate = None
    count = len(policy.ports)
    async with AsyncExitStack() as stack:
        for listener in listeners:
            stack.callback(listener.close)
        if listeners[count:]:
            gate = Gate(Rules(policy.allow), hint=policy.allow_hint, tell=policy.on_decision, lookup=policy.lookup)
            http, socks = listeners[count:]
            await stack.enter_async_context(proxy.serving(http, socks, gate))
        if listeners[:count]:
            await stack.enter_async_context(forward.forwarding(listeners[:count]))
        yield gate


def _proxy_ports(policy: Policy) -> tuple[int, ...]:
    return environment.proxy_ports(policy.ports) if policy.network == "allowlist" else ()
