"""Up to where a stream of events was taken: what to resume from, and what has come already."""

from __future__ import annotations

AHEAD_LIMIT = 200_000


class Position:
    """Everything up to `seq` was taken, and of what lies beyond, `_ahead`.

    Events come in the order of `seq`, but for one case: while a replay is under way, topics that are live already
    send theirs in between. Until the replays have ended, only what is known to be in order moves `seq`; the others
    are remembered, so that a resumption brings neither gap nor duplicate.
    """

    def __init__(self) -> None:
        self.seq = 0
        self._replays: set[str] = set()
        self._ordered_up_to = 0
        self._ahead: set[int] = set()

    def start(self, seq: int) -> None:
        """Begin anew behind `seq`."""
        self.seq = seq
        self._replays.clear()
        self._ahead.clear()

    def start_now(self, head: int) -> None:
        """Begin behind this head: nothing was followed before. Events after it may have been taken already."""
        self.start(max(head, self.seq, *self._ahead))

    def replaying(self, replay: str) -> None:
        """One replay more is under way."""
        self._replays.add(replay)
        self._ordered_up_to = self.seq

    def connected(self) -> None:
        """The replays of the connection before have ended with it."""
        self._replays.clear()

    def ordered(self, up_to: int) -> None:
        """The replay is one of all topics that are followed: what comes up to this head is its own, and in order."""
        if len(self._replays) == 1:
            self._ordered_up_to = up_to

    def settled(self, replay: str) -> None:
        """It has ended. With the last one, nothing before what was taken is still to come."""
        if replay not in self._replays:
            return
        self._replays.discard(replay)
        if not self._replays:
            self.seq = max(self.seq, *self._ahead) if self._ahead else self.seq
            self._ahead.clear()

    def take(self, seq: int) -> bool:
        """Note that this event came. False if it had come before."""
        if seq <= self.seq or seq in self._ahead:
            return False
        if not self._replays or seq <= self._ordered_up_to:
            self.seq = seq
        else:
            self._ahead.add(seq)
        return True

    @property
    def overfull(self) -> bool:
        """More came out of order than is kept in mind."""
        return len(self._ahead) > AHEAD_LIMIT
