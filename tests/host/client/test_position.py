"""From where a broken stream of events is resumed."""

from __future__ import annotations

import random

from kandev_host.client.backoff import Backoff
from kandev_host.client.position import Position


def test_live_events_move_the_position() -> None:
    position = Position()
    position.start(7)
    assert [position.take(seq) for seq in (8, 12)] == [True, True]
    assert position.seq == 12


def test_what_came_before_is_told_from_what_is_new() -> None:
    position = Position()
    position.start(7)
    position.take(9)
    assert [position.take(seq) for seq in (7, 8, 9, 10)] == [False, False, False, True]


def test_a_live_event_amid_a_replay_does_not_move_the_position_past_what_is_still_to_come() -> None:
    position = Position()
    position.start(0)
    position.replaying("r")
    position.ordered(100)
    for seq in (1, 2, 101, 3):
        position.take(seq)
    assert position.seq == 3


def test_beginning_now_forgets_nothing_that_was_taken_ahead() -> None:
    position = Position()
    position.replaying("of nothing")
    position.take(12)
    position.start_now(11)
    assert (position.seq, position.take(12)) == (12, False)


def test_the_end_of_the_last_replay_settles_what_came_ahead() -> None:
    position = Position()
    for replay in ("one", "two"):
        position.replaying(replay)
    position.take(50)
    position.settled("one")
    assert position.seq == 0
    position.settled("two")
    assert position.seq == 50


def test_the_fence_of_a_replay_that_was_given_up_settles_nothing() -> None:
    position = Position()
    position.replaying("old")
    position.start(0)
    position.replaying("new")
    position.take(50)
    position.settled("old")
    assert position.seq == 0


def test_resumed_wherever_it_broke_every_event_is_taken_once() -> None:
    """Replays of everything, with live events in between, broken off at random."""
    for number in range(200):
        dice = random.Random(number)
        position, taken, head = Position(), [], 60
        while position.seq < head:
            position.connected()
            position.replaying("r")
            position.ordered(40)
            replay, live = list(range(position.seq + 1, head - 9)), list(range(head - 9, head + 1))
            stream = replay + live if dice.random() < 0.3 else live[:5] + replay + live[5:]
            cut = dice.randrange(len(stream) + 1) if dice.random() < 0.8 else len(stream)
            taken += [seq for seq in stream[:cut] if position.take(seq)]
            if cut == len(stream):
                position.settled("r")
        assert sorted(taken) == list(range(1, head + 1))


def test_waits_double_up_to_the_limit_with_full_jitter() -> None:
    longest = Backoff(first_s=1, limit_s=10).waits(lambda: 1.0)
    assert [next(longest) for _ in range(6)] == [1, 2, 4, 8, 10, 10]
    waits = Backoff(first_s=1, limit_s=10).waits(random.Random(1).random)
    assert all(0 <= next(waits) <= 10 for _ in range(100))
