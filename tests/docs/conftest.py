"""The story of the documentation, played once on a real host; and the official AsyncAPI parser from npm."""

from __future__ import annotations

import importlib.util
import json
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import pytest

from kandev_host.protocol.notifications import NOTIFICATIONS

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs"
REPLAY_S = 120


def load(name: str) -> ModuleType:
    """A script of docs/, as a module."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@dataclass
class Telling:
    """What came of the story: each step's message, all notifications, what the host said of itself, what it kept."""

    play: ModuleType
    known: dict[str, Any]
    schema: dict[str, Any] = field(default_factory=dict)
    messages: dict[int, dict[str, Any]] = field(default_factory=dict)
    heard: list[dict[str, Any]] = field(default_factory=list)
    promised: dict[str, dict[str, int]] = field(default_factory=dict)
    replayed: dict[str, set[str]] = field(default_factory=dict)
    error: str = "the story was not begun"

    def message(self, step: int) -> dict[str, Any]:
        assert step in self.messages, self.error
        return self.messages[step]

    async def tell(self, story: list[dict[str, Any]]) -> None:
        async with self.play.player(self.known) as player:
            self.heard, self.known = player.heard, player.known
            try:
                for number, step in enumerate(story):
                    if step.get("request") == "board.delete":
                        await self._replay()
                    self.messages[number] = (await player.play(step)).message
            except AssertionError as error:
                self.error = str(error)

    def about(self, topic: str) -> dict[str, int]:
        """Id and number of the kept notifications that the table promises to `task:$task` and the like."""
        kept = [each for each in self.heard if "seq" in each and topic in NOTIFICATIONS[each["action"]].topics]
        return {each["id"]: each["seq"] for each in kept if self._is_about(topic, each["payload"])}

    def _is_about(self, topic: str, payload: dict[str, Any]) -> bool:
        if topic == "board":  # the story has one
            return True
        id = payload[f"{topic}_id"] if f"{topic}_id" in payload else payload[topic]["id"]
        return bool(id == self.known[topic])

    async def _replay(self) -> None:
        """While the task is still there: of what is gone nobody can ask."""
        for topic in ("task", "board", "agent"):
            self.promised[topic] = promised = self.about(topic)
            self.replayed[topic] = await self._replayed(topic, max(promised.values()))

    async def _replayed(self, topic: str, last: int) -> set[str]:
        """The ids of the kept events of a topic, up to the one with this number."""
        found: set[str] = set()
        async with self.play.player(self.known) as player:
            await player.play({"request": "auth.login", "payload": {"token": "$token"}})
            topics = [f"{topic}:{self.known[topic]}"]
            await player.play({"request": "events.subscribe", "payload": {"topics": topics, "after_seq": 0}})
            with anyio.move_on_after(REPLAY_S):
                while True:
                    message = await player.next()
                    found.add(message["id"])
                    if message["seq"] >= last:
                        break
        return found


@pytest.fixture(scope="session")
def telling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Telling]:
    play = load("play")
    with play.host(tmp_path_factory.mktemp("story")) as known:
        told = Telling(play, dict(known))
        with urllib.request.urlopen(f"{known['url']}/schema.json", timeout=30) as answer:
            told.schema = json.load(answer)
        anyio.run(told.tell, json.loads(play.STORY.read_text()))
        yield told


@pytest.fixture(scope="session")
def asyncapi(npm_folder: Callable[..., Path]) -> Path:
    """The folder of the official parser."""
    files = [HERE / "asyncapi" / name for name in ("package.json", "package-lock.json", "check.mjs")]
    return npm_folder("asyncapi", files, "ci", "--ignore-scripts")
