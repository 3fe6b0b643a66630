"""A request that changes something has one effect, however often it is sent with the same id (protocol.md: Envelope).

A request whose id is a UUID has a receipt in the store, written in the transaction of its first effect; its answer
is in it where the work names it then, and else follows before it is sent. So a host that was killed in between knows
that there was an effect, and says that its outcome is unknown. Any other id counts within its connection, in memory.
What commits nothing and fails leaves no receipt: it may be tried again.

What fails after its first effect is not tried again under its id, else it would have that effect twice. An error that
stays, as a Conflict, is its answer for good. One that passes (`errors.PASSING`) is told once, with `outcome_unknown`,
and never kept: the request is as a crash would have left it, begun and without an answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec
from msgspec.structs import replace

from kandev_host.errors import PASSING, Conflict, KandevError
from kandev_host.interfaces import Change, Put
from kandev_host.models import Receipt, Row
from kandev_host.protocol.envelope import Request, error_payload

if TYPE_CHECKING:
    from kandev_host.interfaces import Store
    from kandev_host.journal_entries import Attachment

logger = logging.getLogger(__name__)

# Of all connections together, for UUIDs; what falls out is found in the store.
SHARED_ENTRIES = 4096
SHARED_BYTES = 16 << 20
# Of one connection, for other ids; what falls out is forgotten.
OWN_ENTRIES = 256
OWN_BYTES = 256 << 10

_TYPED_INTO = "elicitation.respond"
_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_encode = msgspec.json.Encoder().encode
_canonical = msgspec.json.Encoder(order="deterministic").encode


class Answer(NamedTuple):
    """What a request is answered: JSON, and the topics that the caller's socket follows from then on."""

    payload: bytes
    is_error: bool
    topics: tuple[str, ...] = ()
    passing: bool = False


class Claim:
    """One request id at work, and later what came of it."""

    __slots__ = ("action", "answer", "digest", "key", "memory", "settled")

    def __init__(self, key: str, action: str, digest: str, memory: Memory) -> None:
        self.key = key
        self.action = action
        self.digest = digest
        self.memory = memory
        self.answer: Answer | None = None
        self.settled: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def check(self, action: str, digest: str) -> None:
        """Raises `Conflict` when this is another request than the one that was claimed."""
        if (self.action, self.digest) != (action, digest):
            raise Conflict(f"This id was used for another request ({self.action}); take a new one", state="id in use")


class Memory:
    """The requests that are worked on, and the last ones that were answered, oldest forgotten first."""

    def __init__(self, limit_entries: int = OWN_ENTRIES, limit_bytes: int = OWN_BYTES) -> None:
        self._limit_entries = limit_entries
        self._limit_bytes = limit_bytes
        self._working: dict[str, Claim] = {}
        self._answered: dict[str, Claim] = {}
        self._bytes = 0

    def get(self, key: str) -> Claim | None:
        return self._working.get(key) or self._answered.get(key)

    def add(self, claim: Claim) -> None:
        self._working[claim.key] = claim

    def settle(self, claim: Claim, answer: Answer, kept: Answer | None) -> None:
        """Whoever waits gets `answer`; whoever asks later gets what is `kept`, or starts anew if nothing is."""
        if self._working.pop(claim.key, None) is None:
            return
        claim.settled.set_result(answer)
        if kept is None:
            return
        claim.answer = kept
        self._answered[claim.key] = claim
        self._bytes += len(kept.payload)
        while len(self._answered) > self._limit_entries or (
            self._bytes > self._limit_bytes and len(self._answered) > 1
        ):
            oldest = self._answered.pop(next(iter(self._answered)))
            self._bytes -= len(oldest.answer.payload) if oldest.answer is not None else 0


class Recorder(Protocol):
    """What receipts need of the journal."""

    async def record(self, *changes: Change) -> tuple[int, ...]: ...

    def attaching(
        self, row: Row | None, with_reply: Callable[[Any], Row] | None = None
    ) -> AbstractContextManager[Attachment]: ...


class Receipts:
    """What became of requests: in memory first, then in the store."""

    def __init__(self, store: Store, journal: Recorder) -> None:
        self._store = store
        self._journal = journal
        self._shared = Memory(SHARED_ENTRIES, SHARED_BYTES)

    def claim(self, principal_id: str, request: Request, own: Memory) -> tuple[Claim, bool]:
        """The claim of this id, and whether it is new; `own` is the connection's memory.

        Who gets a new one must `perform` it. Raises `Conflict` when the id was used for another request.
        """
        digest = digest_of(request.action, request.payload)
        key = f"{principal_id}/{request.id}"
        memory = self._shared if _UUID.fullmatch(request.id) else own
        known = memory.get(key)
        if known is not None:
            known.check(request.action, digest)
            return known, False
        claim = Claim(key, request.action, digest, memory)
        memory.add(claim)
        return claim, True

    async def repeat(self, claim: Claim) -> Answer:
        """The answer of a claim that somebody else performs, or has performed."""
        # Bounded by whoever performs it. Shielded: one who gives up must not take the answer from the others.
        return await asyncio.shield(claim.settled) if claim.answer is None else claim.answer

    async def perform(
        self,
        claim: Claim,
        work: Callable[[], Awaitable[Answer]],
        *,
        secret: bool = False,
        answer_to: Callable[[Any], Answer] | None = None,
    ) -> Answer:
        """Do the `work`, unless the store knows its answer, and keep the answer before returning it.

        `work` raises nothing but cancellation. Of a `secret` answer only the fact is kept. `answer_to` tells the answer
        of a reply that the work names beforehand (`Journal.record`): it is kept with the effect.
        """
        answer, kept = _UNKNOWN, None
        try:
            answer, kept = await self._performed(claim, work, secret, answer_to)
        except KandevError as error:
            answer = refusal(error)
        finally:
            claim.memory.settle(claim, answer, kept)
        return answer

    async def _performed(
        self,
        claim: Claim,
        work: Callable[[], Awaitable[Answer]],
        secret: bool,
        answer_to: Callable[[Any], Answer] | None,
    ) -> tuple[Answer, Answer | None]:
        durable = claim.memory is self._shared
        if durable and (found := await self._store.get(Receipt, claim.key)) is not None:
            claim.action, claim.digest, asked = found.action, found.digest, (claim.action, claim.digest)
            earlier = _UNKNOWN if found.reply is None else Answer(found.reply.encode(), found.is_error, found.topics)
            try:
                claim.check(*asked)
            except Conflict as error:
                return refusal(error), earlier
            return earlier, earlier
        receipt = Receipt(id=claim.key, action=claim.action, digest=claim.digest)
        foreseen = None if secret or answer_to is None else lambda reply: _answered(receipt, answer_to(reply))
        with self._journal.attaching(receipt if durable else None, foreseen if durable else None) as attached:
            answer = await work()
        if answer.is_error and not attached.taken:
            return answer, None
        row, kept = receipt, _UNKNOWN
        if answer.passing:
            answer = _half_done(answer)
        else:
            kept = _NOT_KEPT if secret and not answer.is_error else answer
            row = _answered(receipt, kept)
        if durable and row != (attached.row if attached.taken else None):
            await self._keep(row)
        return answer, kept

    async def _keep(self, row: Receipt) -> None:
        try:
            await self._journal.record(Put(row))
        except KandevError as error:
            # The effect stands, so this answer is the truth. After a restart its outcome is unknown.
            logger.warning("The answer of %s could not be stored: %s", row.action, error)


def _answered(receipt: Receipt, answer: Answer) -> Receipt:
    return replace(receipt, reply=answer.payload.decode(), is_error=answer.is_error, topics=answer.topics)


def digest_of(action: str, payload: msgspec.Raw) -> str:
    """Of what the payload says, however its JSON is written; independent of this version's defaults."""
    try:
        fields = msgspec.json.decode(payload)
        if action == _TYPED_INTO and isinstance(fields, dict) and isinstance(fields.get("content"), dict):
            # What people type there is kept nowhere: of a digest, what is short is soon guessed. The names are kept.
            fields["content"] = sorted(fields["content"])
        said = _canonical(fields)
    except ValueError:  # in a part that its action does not read
        said = bytes(payload)
    return hashlib.blake2b(said, digest_size=16).hexdigest()


def refusal(error: KandevError) -> Answer:
    return Answer(_encode(error_payload(error)), is_error=True, passing=error.code in PASSING)


def _half_done(answer: Answer) -> Answer:
    """A refusal that must not pass for one after which nothing was done."""
    said = msgspec.json.decode(answer.payload)
    said["message"] += "; something of this request was done before"
    said["details"]["outcome_unknown"] = True
    return answer._replace(payload=_encode(said))


def response(payload: Any, topics: tuple[str, ...] = ()) -> Answer:
    """Raises `TypeError` when the payload is not JSON."""
    return Answer(_encode(payload), is_error=False, topics=topics)


_UNKNOWN = refusal(
    Conflict(
        "This request was begun, and how far it came is unknown; look at what it was about, then use a new id",
        outcome_unknown=True,
    )
)
_NOT_KEPT = refusal(
    Conflict("This was done; its response held a secret and was not kept", state="done", response_kept=False)
)
