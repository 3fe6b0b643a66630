"""Sessions and where they are kept: one file of JSON lines per session, in the agent's own home."""

from __future__ import annotations

import asyncio
import json
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from .wire import INVALID_PARAMS, NOT_FOUND, Object, RpcError

MODES = {
    "ask": ("Ask", "Asks before every edit and every command"),
    "accept-edits": ("Accept edits", "Edits without asking, asks before commands"),
    "read-only": ("Read only", "Looks and explains; changes nothing, runs nothing"),
}
THOUGHTS = {"on": "Shown", "off": "Hidden"}
REPLAYED = {
    "user_message_chunk", "agent_message_chunk", "agent_thought_chunk", "tool_call", "tool_call_update", "plan",
}  # fmt: skip
_KEPT = ("id", "cwd", "mode", "thoughts", "title", "updated_at", "tokens", "cost")


def timestamp() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(eq=False)
class Session:
    """One conversation. `tokens` and `cost` are of the whole session; `turn` is the scope of the turn that runs."""

    cwd: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    mode: str = "ask"
    thoughts: str = "on"
    title: str | None = None
    updated_at: str = field(default_factory=timestamp)
    tokens: int = 0
    cost: float = 0.0
    always: set[str] = field(default_factory=set)
    turn: asyncio.Timeout | None = None

    @property
    def root(self) -> Path:
        return Path(self.cwd)

    def modes(self) -> Object:
        """ACP SessionModeState, for clients that know no config options."""
        named = [{"id": id, "name": name, "description": text} for id, (name, text) in MODES.items()]
        return {"currentModeId": self.mode, "availableModes": named}

    def options(self) -> list[Object]:
        """ACP config options; they supersede the modes."""
        modes = [{"value": id, "name": name, "description": text} for id, (name, text) in MODES.items()]
        thoughts = [{"value": value, "name": name} for value, name in THOUGHTS.items()]
        return [
            _select("mode", "Mode", "mode", self.mode, modes),
            _select("model", "Model", "model", "scripted", [{"value": "scripted", "name": "A script, no model"}]),
            _select("thoughts", "Thoughts", "thought_level", self.thoughts, thoughts),
        ]

    def choose(self, option: str, value: object) -> None:
        """Set a config option. Raises `RpcError` for an unknown option or value."""
        known = {one["id"]: [choice["value"] for choice in one["options"]] for one in self.options()}
        if option not in known:
            raise RpcError(INVALID_PARAMS, f"no option {option!r}", known=sorted(known))
        if value not in known[option]:
            raise RpcError(INVALID_PARAMS, f"no value {value!r} for {option}", known=known[option])
        if option != "model":
            setattr(self, option, value)


def _select(id: str, name: str, category: str, value: str, choices: list[Object]) -> Object:
    return {
        "id": id, "name": name, "category": category, "type": "select", "currentValue": value, "options": choices,
    }  # fmt: skip


class Archive:
    """The sessions of this home: those in use, and those on disk."""

    def __init__(self, folder: Path | None = None) -> None:
        data = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local/share")
        self._folder = folder or Path(data, "kandev-demo-agent")
        self._open: dict[str, Session] = {}

    def create(self, cwd: str) -> Session:
        session = Session(cwd)
        self._open[session.id] = session
        self.keep(session)
        return session

    def get(self, id: object) -> Session:
        """A session in use. Raises `RpcError` -32002."""
        session = self._open.get(str(id))
        if session is None:
            raise RpcError(NOT_FOUND, f"no session {id!r} is open")
        return session

    def load(self, id: object, cwd: str) -> Session:
        """A session from disk, to work in `cwd` from now on. Raises `RpcError` -32002."""
        session = self._read(self._path(id))
        session.cwd = cwd
        self._open[session.id] = session
        return session

    def keep(self, session: Session, *updates: Object) -> None:
        """Append what of `updates` is to be replayed; with none, how the session stands now."""
        kept = [update for update in updates if update["sessionUpdate"] in REPLAYED]
        session.updated_at = timestamp()
        state = {name: getattr(session, name) for name in _KEPT}
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._path(session.id).open("a", encoding="utf-8") as file:
            file.writelines(json.dumps({"update": update}) + "\n" for update in kept)
            if not updates:
                file.write(json.dumps({"state": state}) + "\n")

    def history(self, session: Session) -> Iterator[Object]:
        """The updates to replay, in order (ACP: session/load)."""
        for entry in _entries(self._path(session.id)):
            if "update" in entry:
                yield entry["update"]

    def list(self, cwd: str | None) -> list[Object]:
        """ACP SessionInfo of each, the latest first."""
        sessions = [self._read(path) for path in self._folder.glob("*.jsonl")] if self._folder.is_dir() else []
        found = [one for one in sessions if cwd is None or one.cwd == cwd]
        found.sort(key=lambda one: one.updated_at, reverse=True)
        return [{"sessionId": one.id, "cwd": one.cwd, "title": one.title, "updatedAt": one.updated_at} for one in found]

    def close(self, id: object) -> None:
        """Stop its turn and forget it; it stays on disk."""
        session = self._open.pop(str(id), None)
        if session is not None:
            cancel(session)

    def delete(self, id: object) -> None:
        self.close(id)
        self._path(id).unlink(missing_ok=True)

    def _path(self, id: object) -> Path:
        if not isinstance(id, str) or not re.fullmatch("[0-9a-f]{32}", id):
            raise RpcError(NOT_FOUND, f"no session {id!r}")
        return self._folder / f"{id}.jsonl"

    def _read(self, path: Path) -> Session:
        if not path.is_file():
            raise RpcError(NOT_FOUND, f"no session {path.stem!r}")
        session = Session(cwd="/", id=path.stem)
        for entry in _entries(path):
            for name, value in entry.get("state", {}).items():
                setattr(session, name, value)
        return session


def _entries(path: Path) -> Iterator[Object]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            # The last line of an agent that was killed while it wrote is no JSON.
            with suppress(ValueError):
                yield json.loads(line)


def cancel(session: Session) -> None:
    """End the turn that runs, if one does (ACP: session/cancel). A second cancel changes nothing."""
    if session.turn is not None:
        session.turn.reschedule(0)
        session.turn = None
