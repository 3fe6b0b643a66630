from __future__ import annotations

from collections.abc import Mapping

from kandev_host.telemetry import FanOut


class Sink:
    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.calls: list[tuple[str, float]] = []

    def count(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        self.calls.append((name, value))
        if self.fails:
            raise RuntimeError("full")

    def observe(self, name: str, seconds: float, labels: Mapping[str, str]) -> None:
        self.count(name, seconds, labels)


def test_every_provider_gets_every_measurement() -> None:
    sinks = [Sink(), Sink()]
    fan = FanOut(sinks)
    fan.count("kandev_turns_total", 1, {})
    fan.observe("kandev_turn_seconds", 2.5, {})
    assert [sink.calls for sink in sinks] == [[("kandev_turns_total", 1), ("kandev_turn_seconds", 2.5)]] * 2


def test_a_provider_that_raises_is_dropped_and_the_others_go_on() -> None:
    broken, sound = Sink(fails=True), Sink()
    fan = FanOut([broken, sound])
    fan.count("kandev_turns_total", 1, {})
    fan.count("kandev_turns_total", 1, {})
    assert (len(broken.calls), len(sound.calls)) == (1, 2)


def test_without_providers_nothing_happens() -> None:
    FanOut().count("kandev_turns_total", 1, {})
