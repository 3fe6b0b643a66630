"""A stand-in for model providers, so that released agents work offline (OpenAI chat and responses, Anthropic messages).

There is no model: what it answers is a script that travels in the prompt, so the server keeps no state and several
agents may use it at once. Step n is played when n tool results follow the script:

    {"call": "write", "args": {…}}    call this tool
    {"text": "…"}                     say it; the turn ends
    {"error": 400, "message": "…"}    answer with this HTTP status
    {"hang": 30}                      answer nothing for so many seconds

A request that offers no tools (a title, a summary), or one past the script, gets a short text. Standard library only.
"""

from __future__ import annotations

import argparse
import base64
import itertools
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

INPUT_TOKENS, CACHED_TOKENS, OUTPUT_TOKENS = 1000, 200, 34
_SCRIPT = re.compile(r"<<script ([A-Za-z0-9_=-]+)>>")
_numbers = itertools.count(1)

Object = dict[str, Any]


def script(*steps: Object) -> str:
    """The steps as a piece of text to put into a prompt."""
    return f"<<script {base64.urlsafe_b64encode(json.dumps(steps).encode()).decode()}>>"


def step_of(turns: list[tuple[str, str]]) -> Object:
    """The step that is due after these (role, text); role "result" is the result of a tool."""
    steps: list[Object] = []
    done = 0
    for role, text in turns:
        found = _SCRIPT.findall(text) if role == "user" else []
        if found:
            steps, done = json.loads(base64.urlsafe_b64decode(found[-1])), 0
        elif role == "result":
            done += 1
    return steps[done] if done < len(steps) else {"text": "The script is over."}


def flat(content: Any) -> str:
    """All text of a nested content value."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(flat(part) for part in content)
    if isinstance(content, dict):
        return "\n".join(flat(content[key]) for key in ("text", "content", "output") if key in content)
    return ""


# --- what was asked: (role, text) of each turn ------------------------------------------------------------------------


def chat_turns(body: Object) -> Iterator[tuple[str, str]]:
    for message in body.get("messages", []):
        yield ("result" if message["role"] == "tool" else message["role"]), flat(message.get("content"))


def messages_turns(body: Object) -> Iterator[tuple[str, str]]:
    for message in body.get("messages", []):
        content = message.get("content")
        for block in content if isinstance(content, list) else [{"type": "text", "text": content}]:
            yield ("result" if block.get("type") == "tool_result" else message["role"]), flat(block)


def responses_turns(body: Object) -> Iterator[tuple[str, str]]:
    items = body.get("input", [])
    for item in [{"role": "user", "content": items}] if isinstance(items, str) else items:
        result = item.get("type", "").endswith("_output")
        yield ("result" if result else item.get("role", "")), flat(item)


# --- the answer, streamed as each provider streams it: (event name or None, data) -------------------------------------


def chat_events(step: Object, model: str) -> Iterator[tuple[str | None, Object]]:
    base = {"id": f"chatcmpl-{next(_numbers)}", "object": "chat.completion.chunk", "created": 0, "model": model}
    if "call" in step:
        function = {"name": step["call"], "arguments": json.dumps(step["args"])}
        call = {"index": 0, "id": f"call_{next(_numbers)}", "type": "function", "function": function}
        delta: Object = {"role": "assistant", "tool_calls": [call]}
    else:
        delta = {"role": "assistant", "content": step["text"]}
    finish = "tool_calls" if "call" in step else "stop"
    yield None, {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    yield None, {**base, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}
    usage = {
        "prompt_tokens": INPUT_TOKENS + CACHED_TOKENS,
        "completion_tokens": OUTPUT_TOKENS,
        "total_tokens": INPUT_TOKENS + CACHED_TOKENS + OUTPUT_TOKENS,
        "prompt_tokens_details": {"cached_tokens": CACHED_TOKENS},
    }
    yield None, {**base, "choices": [], "usage": usage}


def messages_events(step: Object, model: str) -> Iterator[tuple[str | None, Object]]:
    usage = {
        "input_tokens": INPUT_TOKENS,
        "cache_read_input_tokens": CACHED_TOKENS,
        "cache_creation_input_tokens": 0,
        "output_tokens": OUTPUT_TOKENS,
    }
    if "call" in step:
        block: Object = {"type": "tool_use", "id": f"toolu_{next(_numbers):012d}", "name": step["call"], "input": {}}
        delta: Object = {"type": "input_json_delta", "partial_json": json.dumps(step["args"])}
    else:
        block, delta = {"type": "text", "text": ""}, {"type": "text_delta", "text": step["text"]}
    message = {"id": f"msg_{next(_numbers)}", "type": "message", "role": "assistant", "model": model, "content": []}
    stop = {"stop_reason": "tool_use" if "call" in step else "end_turn", "stop_sequence": None}
    start = {**message, "stop_reason": None, "stop_sequence": None, "usage": usage}
    for event in (
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": stop, "usage": usage},
        {"type": "message_stop"},
    ):
        yield str(event["type"]), event


def responses_events(step: Object, model: str) -> Iterator[tuple[str | None, Object]]:
    if "call" in step:
        item: Object = {"type": "function_call", "id": f"fc_{next(_numbers)}", "call_id": f"call_{next(_numbers)}"}
        item |= {"name": step["call"], "arguments": json.dumps(step["args"]), "status": "completed"}
    else:
        text = {"type": "output_text", "text": step["text"], "annotations": []}
        item = {"type": "message", "id": f"msg_{next(_numbers)}", "role": "assistant", "content": [text]}
    usage = {
        "input_tokens": INPUT_TOKENS + CACHED_TOKENS,
        "input_tokens_details": {"cached_tokens": CACHED_TOKENS},
        "output_tokens": OUTPUT_TOKENS,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": INPUT_TOKENS + CACHED_TOKENS + OUTPUT_TOKENS,
    }
    whole = {"id": f"resp_{next(_numbers)}", "object": "response", "model": model, "status": "completed"}
    events: tuple[Object, ...] = (
        {"type": "response.created", "response": {**whole, "status": "in_progress", "output": []}},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": {**whole, "output": [item], "usage": usage}},
    )
    for number, event in enumerate(events):
        yield event["type"], {**event, "sequence_number": number}


ENDPOINTS = {
    "/chat/completions": (chat_turns, chat_events),
    "/messages": (messages_turns, messages_events),
    "/responses": (responses_turns, responses_events),
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
        if path.endswith("/count_tokens"):
            self._json({"input_tokens": INPUT_TOKENS})
        elif endpoint is None:
            self._json({"error": {"message": "no such endpoint"}}, 404)
        else:
            turns, events = endpoint
            step = step_of(list(turns(body)))
            if "call" in step and not body.get("tools"):
                step = {"text": "A title"}
            self._play(step, events, str(body.get("model")), stream=bool(body.get("stream")))

    def _play(self, step: Object, events: Any, model: str, *, stream: bool) -> None:
        if "error" in step:
            self._json({"type": "error", "error": {"type": "api_error", "message": step["message"]}}, step["error"])
        elif "hang" in step:
            self.server.closing.wait(step["hang"])
        elif not stream:
            self._json({"error": {"message": "only streamed answers are made here"}}, 400)
        else:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            for name, data in events(step, model):
                self._event(name, json.dumps(data))
            if events is chat_events:
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
