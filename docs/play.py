"""Play the examples of docs/protocol.md on a real host: `python docs/play.py` writes down what it answered.

docs/examples/story.json is one conversation, in order. A step is a request with its response (or error), or a
notification that is waited for. `$name` stands for a value that is only known when it is played: `save` takes it from
an answer ({"task": "task.id"}), and later steps use it. A test plays the story too, and compares.
"""

from __future__ import annotations

import http.server
import json
import os
import re
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import anyio

ROOT = Path(__file__).resolve().parents[1]
STORY = Path(__file__).parent / "examples/story.json"
STEP_S = 60
CONFIG = """
[session]
heartbeat_interval_s = 1.0

[agents.broken]
command = ["/bin/sh", "-c", "git ls-remote -q https://models.example 2>&-; echo 'no model is configured' >&2; exit 3"]
description = "Asks for what it may not reach, and ends at once, with a word on stderr"
credentials = ["models"]

[credentials.models]
variables = ["MODELS_TOKEN"]

[agents.contained]
command = ["agent"]
runtime = "docker"
description = "In a container of an engine that does not get its image"

[runtime.docker]
socket = "{engine}"
image = "ghcr.io/team/agent:2"
"""
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
SHOWN_TIME = "2026-01-10T10:30:00Z"
TEXT_CHARS = 240

Json = dict[str, Any]


class StoryError(AssertionError):
    """The host did otherwise than the story says."""


@dataclass
class Played:
    """A step, and the message that the host sent for it."""

    step: Json
    message: Json


@dataclass
class Player:
    """Plays steps on one socket. `known` are the values of `$names`; `heard` are all notifications so far."""

    socket: aiohttp.ClientWebSocketResponse
    known: dict[str, Any]
    heard: list[Json] = field(default_factory=list)
    _told: dict[str, int] = field(default_factory=dict)
    _requests: int = 0

    async def play(self, step: Json) -> Played:
        """Raises `StoryError` when the answer does not come, or is another than a response or error as written."""
        try:
            with anyio.fail_after(STEP_S):
                message = await (self._ask(step) if "request" in step else self._hear(step))
        except TimeoutError:
            names = [each["action"] for each in self.heard[-12:]]
            raise StoryError(f"{step} did not come; the last notifications: {names}") from None
        for name, path in step.get("save", {}).items():
            self.known[name] = _at(message["payload"], path)
        return Played(step, message)

    async def _ask(self, step: Json) -> Json:
        self._requests += 1
        id = f"{self._requests}"
        request = {"id": id, "type": "request", "action": step["request"], "payload": self.filled(step["payload"])}
        await self.socket.send_json(request)
        while (message := await self.next())["id"] != id:
            self.heard.append(message)
        wanted = "error" if "error" in step else "response"
        if message["type"] != wanted:
            raise StoryError(f"{step['request']} was answered with {message['payload']}")
        return message

    async def _hear(self, step: Json) -> Json:
        """The first notification of the name, after the one that was heard before, that has what `where` says."""
        name, where = step["notification"], self.filled(step.get("where", {}))
        at = self._told.get(name, 0)
        while True:
            while at < len(self.heard):
                message, at = self.heard[at], at + 1
                if message["action"] == name and all(_at(message["payload"], key) == where[key] for key in where):
                    self._told[name] = at
                    return message
            self.heard.append(await self.next())

    async def next(self) -> Json:
        """Whatever the host sends next."""
        message: Json = await self.socket.receive_json()
        return message

    def filled(self, value: Any) -> Any:
        """`value` with what the `$names` stand for."""
        return _mapped(value, lambda text: self.known[text[1:]] if text.startswith("$") else text)

    def shown(self, value: Any, lists: int | None) -> Any:
        """`value` as it is written down: names for ids, one time for all, long texts and lists cut."""
        names = {known: f"${name}" for name, known in self.known.items() if isinstance(known, str)}

        def text(found: str) -> str:
            for known, name in names.items():
                if found == known:
                    return name
                if known.startswith("/"):
                    found = found.replace(known, name)
            found = TIME.sub(SHOWN_TIME, ID.sub(lambda match: names.get(match[0], match[0]), found))
            found = found.replace(sys.executable, "/usr/bin/python3").replace(str(ROOT), "/opt/kandev-host")
            found = re.sub(r"kandev/[0-9a-f-]{8,}", "kandev/0199a5b0", found)
            return found if len(found) <= TEXT_CHARS else found[: TEXT_CHARS - 1] + "…"

        cut = value
        if lists is not None and isinstance(value, dict):
            cut = {key: part[:lists] if isinstance(part, list) else part for key, part in value.items()}
        return _mapped(cut, text)


def _mapped(value: Any, of_text: Callable[[str], Any]) -> Any:
    if isinstance(value, dict):
        return {key: _mapped(part, of_text) for key, part in value.items()}
    if isinstance(value, list):
        return [_mapped(part, of_text) for part in value]
    return of_text(value) if isinstance(value, str) else value


def _at(value: Any, path: str) -> Any:
    """`task.id`, `columns.0.id`; None where there is no such thing."""
    for key in path.split("."):
        if isinstance(value, list):
            value = value[int(key)] if int(key) < len(value) else None
        elif isinstance(value, dict):
            value = value.get(key)
        else:
            return None
    return value


def differences(told: Any, found: Any, known: dict[str, Any], path: str = "payload") -> list[str]:
    """Where `found` has not the shape of what the documentation tells: names, types, and the values of `$names`."""
    if isinstance(told, dict) and isinstance(found, dict):
        lost = [f"{path}.{key} is not there" for key in told if key not in found]
        both = [key for key in told if key in found]
        return lost + [line for key in both for line in differences(told[key], found[key], known, f"{path}.{key}")]
    if isinstance(told, list) and isinstance(found, list):
        if len(found) < len(told):
            return [f"{path} has {len(found)} items, not {len(told)}"]
        pairs = zip(told, found, strict=False)
        return [line for n, (a, b) in enumerate(pairs) for line in differences(a, b, known, f"{path}.{n}")]
    if isinstance(told, str) and told.startswith("$") and told[1:] in known:
        return [] if found == known[told[1:]] else [f"{path} is {found!r}, not {told}"]
    if told is None or found is None or _kind(told) == _kind(found):
        return []
    return [f"{path} is a {_kind(found)}, not a {_kind(told)}"]


def _kind(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return type(value).__name__
    return "number"


@contextmanager
def host(folder: Path) -> Iterator[dict[str, str]]:
    """`kandev-host up` in an empty folder: the values of `$url`, `$token` and `$repository`."""
    (folder / "settings.toml").write_text(CONFIG.replace("{engine}", str(folder / "engine")))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KANDEV_")}
    environment |= {"KANDEV_HOME": str(folder / "data"), "KANDEV_CONFIG": str(folder / "settings.toml")}
    environment |= {"MODELS_TOKEN": "example"}
    command = [sys.executable, "-m", "kandev_host", "up", "--port", "0", "--json"]
    with (
        pretended_engine(folder / "engine"),
        (folder / "host.log").open("w") as log,
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            assert line, (folder / "host.log").read_text()
            token = (folder / "data/token").read_text().strip()
            yield {"url": json.loads(line)["url"], "token": token, "repository": str(_repository(folder / "website"))}
        finally:
            process.terminate()


class _Engine(http.server.BaseHTTPRequestHandler):
    """As much of the Docker Engine's API as it takes to begin a pull, and to break it off."""

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        told: Any = {"message": "No such image"}
        if path.endswith("/version"):
            told = {"Version": "28.5.2", "ApiVersion": "1.51"}
        elif path.endswith("/info"):
            bounds = dict.fromkeys(("MemoryLimit", "SwapLimit", "PidsLimit", "CpuCfsQuota"), True)
            told = {"SecurityOptions": ["name=seccomp,profile=builtin"], "CgroupVersion": "2", **bounds}
        elif path.endswith("/containers/json"):
            told = []
        self._answer(404 if "/images/" in path else 200, [told], 0)

    def do_POST(self) -> None:
        first, second = {"id": "5f70bf18a086"}, {"id": "1c74526957fc"}
        sizes = {"current": 31_457_280, "total": 83_886_080}
        steps = [{"status": "Already exists", **first}]
        steps += [{"status": "Downloading", "progressDetail": sizes, **second}]
        self._answer(200, [*steps, {"error": "ghcr.io is not reached any more"}], 1.0)

    def _answer(self, status: int, lines: list[Any], rest_s: float) -> None:
        """The last line comes after a rest."""
        self.send_response(status)
        self.end_headers()
        for number, line in enumerate(lines, start=1):
            time.sleep(rest_s if number == len(lines) else 0)
            self.wfile.write(json.dumps(line).encode() + b"\n")

    def address_string(self) -> str:
        return "the host"

    def log_message(self, *_: Any) -> None:
        """Quiet."""


class _EngineServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@contextmanager
def pretended_engine(path: Path) -> Iterator[None]:
    """Whoever plays the story need not have Docker."""
    with _EngineServer(str(path), _Engine) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def _repository(folder: Path) -> Path:
    folder.mkdir()
    (folder / "README.md").write_text("# A website\n\nIt greets.\n")
    identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false")
    for arguments in (("init", "-q", "-b", "main"), ("add", "-A"), (*identity, "commit", "-qm", "first")):
        subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)
    return folder


@asynccontextmanager
async def player(known: dict[str, str]) -> AsyncIterator[Player]:
    """On a socket that nobody has logged in on: the story begins with auth.login."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{known['url']}/ws", max_msg_size=0) as socket,
    ):
        yield Player(socket, dict(known))


async def record(known: dict[str, str], story: list[Json]) -> None:
    """Write what the host answers into the steps, where they tell another shape."""
    async with player(known) as playing:
        for step in story:
            message = (await playing.play(step)).message
            key = next((key for key in ("response", "error") if key in step), None)
            key = key or ("payload" if "notification" in step else "response")
            if step.get(key) is None or differences(step[key], message["payload"], playing.known):
                step[key] = playing.shown(message["payload"], step.get("lists"))
                print(f"{step.get('request') or step['notification']}: written", file=sys.stderr)


def main() -> int:
    story = json.loads(STORY.read_text())
    try:
        with tempfile.TemporaryDirectory() as folder, host(Path(folder)) as known:
            anyio.run(record, known, story)
    finally:
        STORY.write_text(json.dumps(story, indent=1, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
