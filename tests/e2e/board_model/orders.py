"""Requests in the model: one at a time, or several at once in any order that explains what the host said. Pure."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence

from .effects import EFFECTS
from .refusals import REFUSALS, reason_of
from .world import Difference, Reply, Sent, Told, World, same


def accepted(world: World, sent: Sent, reply: Reply) -> list[Told]:
    """Do the request in the world; what it tells. Raises `Difference` when the host answered otherwise."""
    reasons = set(REFUSALS[sent.action](world, sent.payload))
    if reasons:
        if not reply.error:
            raise Difference(f"{sent.action} {sent.payload} must be refused with one of {reasons}, and had {reply}")
        if reason_of(reply.payload) not in reasons:
            raise Difference(f"{sent.action} {sent.payload} was refused with {reply.payload}, not one of {reasons}")
        return []
    if reply.error:
        raise Difference(f"{sent.action} {sent.payload} is right, and was refused with {reply.payload}")
    return EFFECTS[sent.action](world, sent.payload, reply.payload)


def orders(world: World, batch: Sequence[tuple[Sent, Reply]], told: Sequence[Told]) -> list[World]:
    """The worlds of all sequential orders that explain these answers and events; at least one."""
    found: list[World] = []
    wrong: list[str] = []
    for order in itertools.permutations(batch):
        then = copy.deepcopy(world) if len(batch) > 1 else world
        try:
            same_events([accepted(then, sent, reply) for sent, reply in order], told)
        except Difference as error:
            wrong.append(str(error))
            continue
        if then not in found:
            found.append(then)
    if not found:
        asked = "\n".join(f"{sent}\n    -> {reply}" for sent, reply in batch)
        raise Difference(f"No order of\n{asked}\nexplains it:\n" + "\n".join(dict.fromkeys(wrong)))
    return found


def same_events(expected: Sequence[Sequence[Told]], actual: Sequence[Told]) -> None:
    """Boards are changed independently: of each, the events stand in the order of its requests."""
    for board in {told.board_id for told in itertools.chain(*expected, actual)}:
        here = [told for told in actual if told.board_id == board]
        for group in expected:
            wanted = [told for told in group if told.board_id == board]
            got, here = here[: len(wanted)], here[len(wanted) :]
            same(sorted(wanted, key=_which), sorted(got, key=_which), f"events of the board {board}")
        same([], here, f"events of the board {board} that nothing explains")


def _which(told: Told) -> tuple[str, str]:
    return told.action, next(value["id"] for value in told.payload.values() if isinstance(value, dict))
