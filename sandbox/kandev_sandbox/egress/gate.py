"""The one place that decides about a connection and makes it: match, resolve once, check, dial what was checked."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio

from kandev_sandbox import sockets
from kandev_sandbox.egress import addresses
from kandev_sandbox.egress.decisions import Decision, Protocol, Refused, Unreachable, printable
from kandev_sandbox.egress.lookup import TIMEOUT_S, Lookup, Resolver
from kandev_sandbox.egress.names import Address, parse_host
from kandev_sandbox.egress.rules import Rules, entry_for, suggestions
from kandev_sandbox.sockets import Stream

CONNECT_TIMEOUT_S = 15.0
MAX_ADDRESSES = 4
HINT = "add {entry} to allow"


class Gate:
    """Of one jail. `hint` is how a person allows an `{entry}`; `tell` hears every decision, and must not raise."""

    def __init__(
        self,
        rules: Rules,
        *,
        hint: str = HINT,
        tell: Callable[[Decision], None] | None = None,
        lookup: Lookup | None = None,
    ) -> None:
        self._rules = rules
        self._hint = hint
        self._tell = tell or (lambda _decision: None)
        self._lookup = lookup or Resolver()

    def allow(self, entries: Sequence[str]) -> None:
        """Let through to these as well, from now on. Raises `PolicyError`."""
        self._rules = self._rules.also(entries)

    @asynccontextmanager
    async def open(self, host: str, port: int, protocol: Protocol) -> AsyncIterator[Stream]:
        """A connection to what the jail asked for. Raises `Refused` and `Unreachable`; the decision is told, and at the
        end what went through."""
        connected, decision = await self._opened(host, port, protocol)
        server = Stream(connected)
        try:
            yield server
        finally:
            server.close()
            sent, received = server.sent_bytes, server.received_bytes
            self._tell(replace(decision, ended=True, sent_bytes=sent, received_bytes=received))

    async def _opened(self, host: str, port: int, protocol: Protocol) -> tuple[socket.socket, Decision]:
        asked = Decision(allowed=False, host=printable(host), port=port, protocol=protocol, reason="")
        try:
            name = parse_host(host)
        except ValueError as error:
            raise self._refused(replace(asked, reason=f"{asked.host!r} is not allowed: {error}")) from error
        asked = replace(asked, host=str(name))
        rule = self._rules.match(name, port)
        if rule is None:
            reason = f"{_shown(name, port)} is not in the allowlist of this jail"
            raise self._refused(replace(asked, reason=reason, how_to_allow=self._how(suggestions(name, port))))
        asked = replace(asked, rule=rule)
        try:
            targets = self._checked(await self._addresses(name, port), asked)
            return await self._dial(targets, asked)
        except Unreachable as error:
            self._tell(replace(asked, allowed=True, reason=f"allowed, but unreachable: {error}"))
            raise

    async def _addresses(self, name: str | Address, port: int) -> list[Address]:
        if not isinstance(name, str):
            return [name]
        try:
            with anyio.fail_after(TIMEOUT_S + 1):
                found = await self._lookup(name, port)
        except TimeoutError as error:
            raise Unreachable(f"{name} was not found in time", "timeout") from error
        parsed = []
        for text in found:
            try:
                parsed.append(addresses.parse(text))
            except ValueError:
                continue  # of one link alone: nothing that a name of the internet may mean
        if not parsed:
            raise Unreachable(f"{name} has no address", "name")
        return parsed

    def _checked(self, found: Sequence[Address], asked: Decision) -> list[Address]:
        """Those that may be dialled. Raises `Refused` if there are none."""
        allowed = [address for address in found if self._objection(address, asked.port) is None]
        if not allowed:
            raise self._led_astray(found[0], asked)
        return allowed[:MAX_ADDRESSES]

    def _objection(self, address: Address, port: int) -> str | None:
        """Why an address must not be dialled, unless it is listed itself."""
        if self._rules.match(address, port) is not None:
            return None
        what = addresses.special(address)
        if what is None and addresses.is_own(address):
            what = "this machine's"
        return what

    def _led_astray(self, address: Address, asked: Decision) -> Refused:
        what = self._objection(address, asked.port) or "this machine's"
        reason = f"{asked.host} leads to {address} ({what}), which no name may lead to"
        how = self._how((entry_for(address, asked.port),))
        return self._refused(replace(asked, rule=None, address=str(address), reason=reason, how_to_allow=how))

    async def _dial(self, targets: Sequence[Address], asked: Decision) -> tuple[socket.socket, Decision]:
        failure = Unreachable("no address answers", "network")
        with anyio.move_on_after(CONNECT_TIMEOUT_S):
            for index, address in enumerate(targets):
                share_s = CONNECT_TIMEOUT_S / (len(targets) - index)
                try:
                    connected = await sockets.dial(str(address), asked.port, share_s)
                except OSError as error:
                    failure = _failure(error, address)
                    continue
                # Looked at again where the addresses of this machine may have changed meanwhile.
                if addresses.leads_home(connected) and self._rules.match(address, asked.port) is None:
                    connected.close()
                    raise self._led_astray(address, asked)
                made = replace(asked, allowed=True, address=str(address), reason=f"allowed by {asked.rule}")
                self._tell(made)
                return connected, made
        raise failure

    def _how(self, entries: Sequence[str]) -> str:
        first, *others = entries
        return self._hint.replace("{entry}", first) + "".join(f" (or {other})" for other in others)

    def _refused(self, decision: Decision) -> Refused:
        self._tell(decision)
        return Refused(decision)


def _shown(name: str | Address, port: int) -> str:
    text = str(name)
    return f"[{text}]:{port}" if ":" in text else f"{text}:{port}"


def _failure(error: OSError, address: Address) -> Unreachable:
    if isinstance(error, TimeoutError):
        return Unreachable(f"{address} does not answer", "timeout")
    if isinstance(error, ConnectionRefusedError):
        return Unreachable(f"{address} refuses the connection", "refused")
    return Unreachable(f"{address} cannot be reached", "network")
