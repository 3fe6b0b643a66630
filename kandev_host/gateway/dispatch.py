"""Action → decode → authorise → handler → reply. The one place where errors become codes.

What changes something goes by its receipt (see `receipts`); what only reads does not pay for that.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextvars import copy_context
from functools import partial
from inspect import isawaitable
from typing import Any, Protocol

import msgspec
from msgspec import UNSET, UnsetType

from kandev_host import tracing
from kandev_host.audit.acting import EVERYDAY
from kandev_host.errors import KandevError, StartupError, UnknownAction, ValidationFailed
from kandev_host.gateway.access import Access, Check
from kandev_host.gateway.auditing import Auditing
from kandev_host.gateway.receipts import Answer, Claim, Memory, Receipts, refusal, response
from kandev_host.gateway.subscriptions import Followed, Subscriptions
from kandev_host.interfaces import Action, Call, Principal
from kandev_host.log_ids import bound
from kandev_host.models import new_id
from kandev_host.protocol.complaints import complaint
from kandev_host.protocol.envelope import (
    BadEnvelope,
    Request,
    address,
    decode_request,
    encode_answer,
    encode_error,
    encode_response,
    error_payload,
)
from kandev_host.redaction import clean_payload
from kandev_host.secrets import known

logger = logging.getLogger(__name__)

# What people read of files and of their own terminals goes to them as it is: whoever edits a file must have it whole.
# And so do rows of the audit, which have no secrets in them: changed, they could not be checked.
# And so does a log-in, whose answer has a token.
WHOLE = frozenset({"audit.list", "auth.refresh", "workspace.read", "workspace.diff", "shell.read"})
# Replies up to this size never wait for room: what is worked on at once bounds them.
SMALL_REPLY_BYTES = 64 << 10


class _Code(msgspec.Struct):
    code: str


_codes = msgspec.json.Decoder(_Code)


class SocketCall(Call, frozen=True):
    """A call that came over a socket, with the subscriptions of that socket and the address at its other end."""

    subscriptions: Subscriptions
    renew: Callable[[Principal], None]
    address: str


class Caller(Protocol):
    """The socket, as dispatch sees it."""

    @property
    def principal(self) -> Principal: ...

    @property
    def address(self) -> str: ...

    @property
    def subscriptions(self) -> Subscriptions: ...

    @property
    def memory(self) -> Memory:
        """Of this socket's own requests whose ids are no UUIDs."""
        ...

    def renew(self, principal: Principal) -> None:
        """From now on it is open by this credential, of the same user."""
        ...

    def reply(self, frame: bytes) -> None: ...

    async def room(self, size: int) -> None: ...


class _Entry(msgspec.Struct, frozen=True):
    action: Action[Any]
    decode: Callable[[msgspec.Raw], Any]
    reads: bool
    recorded: bool
    audited: bool  # although it is not recorded


class Pending:
    """A request that needs a task of its own, in the `context` that it was begun in: with the ids of the log.

    `abandonable` ones only read: nobody misses them on a closed socket.
    """

    __slots__ = ("abandonable", "context", "run")

    def __init__(self, run: Callable[[], Coroutine[Any, Any, None]], abandonable: bool) -> None:
        self.run = run
        self.abandonable = abandonable
        self.context = copy_context()

    def within(self, span: tracing.Span) -> Pending:
        """The same as this span, which ends with it."""

        async def run() -> None:
            with span:
                await self.run()

        return Pending(run, self.abandonable)


class Dispatcher:
    """Serves requests with `actions`. `read_seq` tells the journal's head, for responses to reads."""

    def __init__(
        self,
        actions: Iterable[Action[Any]],
        read_seq: Callable[[], int],
        receipts: Receipts,
        access: Access,
        depth_limit: int = 64,
        auditing: Auditing | None = None,
    ) -> None:
        self._read_seq = read_seq
        self._receipts = receipts
        self._access = access
        self._depth_limit = depth_limit
        self._auditing = auditing or Auditing()
        self._entries: dict[str, _Entry] = {}
        for action in actions:
            if action.name in self._entries:
                raise StartupError(f"The action {action.name} is registered twice; one of the plugins must go")
            decoder = msgspec.json.Decoder(action.request)
            reads = action.scope.endswith(":read")
            recorded = not reads and action.keeps != "nothing"
            audited = not reads and not recorded and action.name not in EVERYDAY
            self._entries[action.name] = _Entry(action, decoder.decode, reads, recorded, audited)

    def serve(self, frame: bytes, caller: Caller) -> Pending | None:
        """Answer the request in `frame` at once, or return what is still to run."""
        try:
            request = decode_request(frame, self._depth_limit)
        except BadEnvelope as error:
            caller.reply(encode_error(error.id, error.action, error))
            return None
        ids = bound(alone=True, request_id=request.id)
        if tracing.on():
            return self._traced(request, caller, ids)
        with ids:
            return self._serve(request, caller)

    def _traced(self, request: Request, caller: Caller, ids: bound) -> Pending | None:
        span = self._span(request)
        with ids, span.here():
            pending = self._serve(request, caller)
            if pending is not None:
                return pending.within(span)
        span.end()
        return None

    def _span(self, request: Request) -> tracing.Span:
        name = request.action if request.action in self._entries else "unknown"
        return tracing.begin(
            f"kandev.action {name}",
            {"rpc.system.name": "kandev", "rpc.method": name, "network.protocol.name": "websocket"},
            kind="server",
            parent=tracing.read_context(request.traceparent, request.tracestate),
        )

    def _serve(self, request: Request, caller: Caller) -> Pending | None:
        try:
            entry = self._entry(request.action)
            return self._begun(request, entry, _decoded(entry, request.payload), caller)
        except Exception as error:
            caller.reply(self._refused(request, error, caller))
        return None

    def _begun(self, request: Request, entry: _Entry, value: Any, caller: Caller) -> Pending | None:
        principal = caller.principal
        check = self._access.admit(principal, entry.action, value)
        if entry.recorded:
            return self._change(request, entry, value, caller, check)
        subscriptions = caller.subscriptions
        call = SocketCall(principal, request.id, subscriptions.follow, subscriptions, caller.renew, caller.address)
        # Taken before the handler looks: what is read is at least as new as this.
        seq = self._read_seq() if entry.reads else UNSET
        if entry.audited:
            work = partial(self._audited, request, entry, value, call, caller.address, check)
            return Pending(lambda: self._finish(request, work(), seq, caller), abandonable=False)
        result = _handled(check, entry.action, call, value)
        if isawaitable(result):
            return Pending(lambda: self._finish(request, result, seq, caller), entry.reads)
        caller.reply(_told(request, result, seq))
        return None

    def _audited(
        self, request: Request, entry: _Entry, value: Any, call: SocketCall, address: str, check: Check | None
    ) -> Coroutine[Any, Any, Any]:
        work = partial(_handled, check, entry.action, call, value)
        return self._auditing.carried_out(request.action, value, call.principal, address, work)

    def refuse(self, frame: bytes, error: KandevError, caller: Caller) -> None:
        """Answer `error` to the request in `frame`, whatever it asks."""
        id, action = address(frame)
        caller.reply(encode_error(id, action, error))

    async def _finish(self, request: Request, result: Awaitable[Any], seq: int | UnsetType, caller: Caller) -> None:
        try:
            payload = await result
            then = None
            if isinstance(payload, Followed):
                payload, then = payload.payload, payload.then
            frame = _told(request, payload, seq)
        except Exception as error:
            caller.reply(self._refused(request, error, caller))
            return
        if len(frame) > SMALL_REPLY_BYTES:
            await caller.room(len(frame))
        caller.reply(frame)
        if then is not None:
            await then()

    def _change(self, request: Request, entry: _Entry, value: Any, caller: Caller, check: Check | None) -> Pending:
        claim, new = self._receipts.claim(caller.principal.id, request, caller.memory)
        if not new:
            # Somebody else carries it out: nobody misses this one on a closed socket.
            return Pending(lambda: self._repeat(request, claim, caller), abandonable=True)
        return Pending(lambda: self._carry_out(request, entry, value, claim, caller, check), abandonable=False)

    async def _repeat(self, request: Request, claim: Claim, caller: Caller) -> None:
        answer = await self._receipts.repeat(claim)
        await self._follow(answer, caller)
        await self._send(request, answer, caller)

    async def _carry_out(
        self, request: Request, entry: _Entry, value: Any, claim: Claim, caller: Caller, check: Check | None
    ) -> None:
        followed: list[str] = []
        subscriptions = caller.subscriptions

        def subscribe(topic: str) -> None:
            followed.append(topic)
            subscriptions.follow(topic)

        then: Callable[[], Awaitable[None]] | None = None
        follows = entry.action.follows

        def answer_to(reply: Any) -> Answer:
            return response(reply, (*followed, *follows(reply)))

        async def work() -> Answer:
            nonlocal then
            try:
                call = SocketCall(caller.principal, request.id, subscribe, subscriptions, caller.renew, caller.address)
                payload = await self._audited(request, entry, value, call, caller.address, check)
                if isinstance(payload, Followed):
                    payload, then = payload.payload, payload.then
                answer = answer_to(payload)
                for topic in follows(payload):
                    subscribe(topic)
                return answer
            except Exception as error:
                return refusal(self._known(error, request, caller))

        try:
            answer = await self._receipts.perform(
                claim, work, secret=entry.action.keeps == "effect", answer_to=answer_to
            )
        except Exception as error:
            answer = refusal(self._known(error, request, caller))
        if not followed:
            await self._follow(answer, caller)  # it was carried out before, for another socket
        await self._send(request, answer, caller, whole=entry.action.keeps == "effect")
        if then is not None:
            await then()

    async def _send(self, request: Request, answer: Answer, caller: Caller, *, whole: bool = False) -> None:
        if answer.is_error and tracing.on():
            tracing.current().fail(_codes.decode(answer.payload).code)
        whole = not answer.is_error and (whole or request.action in WHOLE)
        payload = answer.payload if whole else _clean(request, answer.payload)
        frame = encode_answer(request.id, request.action, msgspec.Raw(payload), answer.is_error)
        if len(frame) > SMALL_REPLY_BYTES:
            await caller.room(len(frame))
        caller.reply(frame)

    async def _follow(self, answer: Answer, caller: Caller) -> None:
        for topic in answer.topics:
            if await self._access.may_follow(caller.principal, topic):
                caller.subscriptions.follow(topic)

    def _entry(self, name: str) -> _Entry:
        entry = self._entries.get(name)
        if entry is None:
            nearest = difflib.get_close_matches(name, self._entries, n=1)
            raise UnknownAction(name, nearest[0] if nearest else None)
        return entry

    def _refused(self, request: Request, error: Exception, caller: Caller) -> bytes:
        """The answer, without known secrets as that of a request that went well."""
        known_error = self._known(error, request, caller)
        tracing.current().fail(known_error.code)
        said = msgspec.json.encode(error_payload(known_error))
        return encode_answer(request.id, request.action, msgspec.Raw(_clean(request, said)), is_error=True)

    def _known(self, error: Exception, request: Request, caller: Caller) -> KandevError:
        self._auditing.refused(error, request.action, caller.principal, caller.address)
        if isinstance(error, KandevError):
            return error
        correlation_id = new_id()
        logger.error("%s failed unforeseen, correlation id %s", request.action, correlation_id, exc_info=error)
        return KandevError("Something unforeseen went wrong; the host's log has it", correlation_id=correlation_id)


def _handled(check: Check | None, action: Action[Any], call: Call, value: Any) -> Any:
    return action.handler(call, value) if check is None else _checked(check, action, call, value)


async def _checked(check: Check, action: Action[Any], call: Call, value: Any) -> Any:
    await check()
    result = action.handler(call, value)
    return await result if isawaitable(result) else result


def _decoded(entry: _Entry, payload: msgspec.Raw) -> Any:
    try:
        return entry.decode(payload)
    except msgspec.ValidationError as error:
        raise complaint(entry.action.request, str(error)) from None
    except UnicodeDecodeError:
        raise ValidationFailed("payload", "The payload holds a string that is not UTF-8") from None
    except RecursionError:
        raise ValidationFailed("payload", "The payload is nested too deeply") from None


def _told(request: Request, payload: Any, seq: int | UnsetType) -> bytes:
    """The answer, without known secrets: what an agent said may have come into it on another way than the journal's."""
    frame = encode_response(request.id, request.action, payload, seq)
    if request.action in WHOLE or not known.of(*_owners(request)).found_json(frame):
        return frame
    clean = msgspec.Raw(_clean(request, msgspec.json.encode(payload)))
    return encode_response(request.id, request.action, clean, seq)


def _clean(request: Request, payload: bytes) -> bytes:
    return clean_payload(request.action, payload, *_owners(request))


class _Named(msgspec.Struct):
    agent_id: str | None = None
    task_id: str | None = None


_named = msgspec.json.Decoder(_Named)


def _owners(request: Request) -> tuple[str | None, ...]:
    """Whose the answer is, where something may have been typed for them alone."""
    if not known.any_own:
        return ()
    try:
        named = _named.decode(request.payload)
    except msgspec.MsgspecError:
        return ()
    return named.agent_id, named.task_id
