"""A stand-in for model providers, so that released agents work offline.

It speaks OpenAI chat and responses, Anthropic messages and Gemini generateContent. There is no model: what it answers
is a script that travels in the prompt, so that several agents may use it at once. Step n is played when n tool results
follow the script:

    {"call": "write", "args": {…}}    call this tool
    {"text": "…"}                     say it; the turn ends
    {"text": "{n} ", "repeat": 600, "delay": 0.05}    say it so often, with so many seconds before each
    {"error": 400, "message": "…"}    answer with this HTTP status, as the provider words it
    {"hang": 30}                      answer nothing for so many seconds

A request that offers no tools (a title, a summary), or one past the script, gets a short text; one that wants JSON
gets the least that fits its schema. The steps that were played to their end are counted, script by script: what an
agent reports can be compared with `FakeModels.tally`. Standard library only.
"""

from __future__ import annotations

import argparse
import base64
import dataclasses
import itertools
import json
import re
import secrets
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from fake_providers import (
    CACHED_TOKENS,
    ENDPOINTS,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    Object,
    Provider,
    least,
    wanted,
)  # fmt: skip

COUNTED_S = 60
_numbers = itertools.count()
_SCRIPT = re.compile(r"<<script ([A-Za-z0-9_=-]+)>>")


@dataclass
class Tally:
    """What was served to one script: calls of the model that were answered to the end, and their tokens.

    `results` are what its tools returned to the model, `heard` is all that the model was told: (role, text).
    """

    calls: int = 0
    results: tuple[str, ...] = ()
    heard: tuple[tuple[str, str], ...] = ()

    def who_said(self, words: str) -> set[str]:
        """The roles of the turns with these words, "assistant" also where a provider calls it "model"."""
        return {"assistant" if role == "model" else role for role, text in self.heard if words in text}

    @property
    def input_tokens(self) -> int:
        """All that was read, the cached ones included."""
        return self.calls * (INPUT_TOKENS + CACHED_TOKENS)

    @property
    def cached_tokens(self) -> int:
        return self.calls * CACHED_TOKENS

    @property
    def output_tokens(self) -> int:
        return self.calls * OUTPUT_TOKENS

    def cost(self, *, per_input: float, per_cached: float, per_output: float) -> float:
        """At prices of a million tokens; `per_input` is of those that were not cached."""
        fresh = self.input_tokens - self.cached_tokens
        return (fresh * per_input + self.cached_tokens * per_cached + self.output_tokens * per_output) / 1e6


def script(*steps: Object) -> str:
    """The steps as a piece of text to put into a prompt. No two are the same, so that each has its own tally."""
    told = json.dumps({"id": secrets.token_hex(4), "number": next(_numbers), "steps": steps})
    return f"<<script {base64.urlsafe_b64encode(told.encode()).decode()}>>"


@dataclass(frozen=True)
class Due:
    """The step that is due, the script it is of, what the tools of the steps before it returned, and all turns."""

    script: str
    step: Object
    results: tuple[str, ...]
    heard: tuple[tuple[str, str], ...]


def due(turns: Iterable[tuple[str, str]]) -> Due:
    """What comes after these (role, text); role "result" is the result of a tool.

    The script that was made last is the one that is played: older ones may be told again, before it or after it.
    """
    heard = tuple(turns)
    steps: list[Object] = []
    name, number, results = "", -1, []
    for role, text in heard:
        for found in _SCRIPT.findall(text) if role == "user" else ():
            told = json.loads(base64.urlsafe_b64decode(found))
            if told["number"] >= number:
                name, number, steps, results = found, told["number"], told["steps"], []
        if role == "result":
            results.append(text)
    step = steps[len(results)] if len(results) < len(steps) else {"text": "The script is over."}
    return Due(f"<<script {name}>>", step, tuple(results), heard)


def streamed(body: Object, path: str) -> bool:
    return bool(body.get("stream")) or path.endswith(":streamGenerateContent")


def whole(events: Iterator[tuple[str | None, Object]]) -> Object:
    """The answer to a request for one that is not streamed, which only Gemini sends: its last event, and all text."""
    told = [data for _, data in events]
    parts = [part for data in told for part in data["candidates"][0]["content"]["parts"]]
    text = "".join(part.get("text", "") for part in parts)
    return {
        **told[-1],
        "candidates": [{**told[-1]["candidates"][0], "content": {"role": "model", "parts": [{"text": text}]}}],
    }


class Handler(BaseHTTPRequestHandler):
    server: FakeModels

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        model = {"id": "fake-model", "object": "model", "type": "model", "display_name": "Fake", "owned_by": "fake"}
        self._json({"object": "list", "data": [model], "has_more": False})

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        path = self.path.split("?")[0]
        endpoint = next((found for suffix, found in ENDPOINTS.items() if path.endswith(suffix)), None)
        self.server.paths.append(path)
        if path.endswith(("/count_tokens", ":countTokens")):
            self._json({"input_tokens": INPUT_TOKENS, "totalTokens": INPUT_TOKENS})
        elif endpoint is None:
            self._json({"error": {"message": "no such endpoint"}}, 404)
        else:
            self._answer(endpoint, body, path)

    def _answer(self, provider: Provider, body: Object, path: str) -> None:
        now = due(provider.turns(body))
        step = now.step
        schema = wanted(body)
        aside = schema is not None or not body.get("tools")
        if aside and "error" not in step and "hang" not in step:
            step = {"text": "A title" if schema is None else json.dumps(least(schema))}
        if "error" in step:
            self._json(provider.error(step["error"], step["message"]), step["error"])
        elif "hang" in step:
            self.server.closing.wait(step["hang"])
        else:
            with self.server.playing(now.script):
                self._play(provider.events(step, str(body.get("model"))), stream=streamed(body, path))
                if not aside:
                    self.server.count(now)

    def _play(self, events: Iterator[tuple[str | None, Object]], *, stream: bool) -> None:
        if not stream:
            self._json(whole(events))
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for name, data in events:
            self._event(name, json.dumps(data))
        if self.path.split("?")[0].endswith("/chat/completions"):
            self._event(None, "[DONE]")

    def _event(self, name: str | None, data: str) -> None:
        self.wfile.write((f"event: {name}\n" if name else "").encode() + f"data: {data}\n\n".encode())
        self.wfile.flush()

    def _json(self, value: Object, status: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class FakeModels(ThreadingHTTPServer):
    """Serves on 127.0.0.1 within `with`; `paths` are those posted to."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.paths: list[str] = []
        self.closing = threading.Event()
        self._tallies: dict[str, Tally] = {}
        self._playing: Counter[str] = Counter()
        self._lock = threading.Condition()

    @contextmanager
    def playing(self, script: str) -> Iterator[None]:
        """While a step of this script is told, and not counted yet."""
        with self._lock:
            self._playing[script] += 1
        try:
            yield
        finally:
            with self._lock:
                self._playing[script] -= 1
                self._lock.notify_all()

    def count(self, due: Due) -> None:
        """One more call that was answered to the end."""
        with self._lock:
            tally = self._tallies.setdefault(due.script, Tally())
            tally.calls, tally.results, tally.heard = tally.calls + 1, due.results, due.heard

    def tally(self, script: str) -> Tally:
        """What was served to this script so far. An agent may have read the end of a step before it is counted."""
        with self._lock:
            assert self._lock.wait_for(lambda: not self._playing[script], COUNTED_S)
            return dataclasses.replace(self._tallies.get(script, Tally()))

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> FakeModels:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *args: object) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle (a cancelled turn) is nothing to report."""


def main() -> None:
    parser = argparse.ArgumentParser(description="A fake model server on 127.0.0.1")
    parser.add_argument("--port", type=int, default=8377)
    server = FakeModels(parser.parse_args().port)
    print(json.dumps({"url": f"http://{server.address}"}), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
