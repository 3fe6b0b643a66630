"""How the providers of models speak: what each is asked, what it answers and streams, and how it refuses."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

INPUT_TOKENS, CACHED_TOKENS, OUTPUT_TOKENS = 1000, 200, 34
_numbers = itertools.count(1)

Object = dict[str, Any]


def pieces(step: Object) -> Iterator[str]:
    """The parts of a text, each in its time."""
    for number in range(step.get("repeat", 1)):
        time.sleep(step.get("delay", 0))
        yield step["text"].replace("{n}", str(number))


def least(schema: Object) -> Any:
    """The least value that fits a JSON schema, as far as agents use them."""
    if schema.get("enum"):
        return schema["enum"][0]
    kind = str(schema.get("type", "string")).lower()
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: least(properties.get(name, {})) for name in schema.get("required", properties)}
    return {"integer": 1, "number": 1, "boolean": False, "array": []}.get(kind, "A title")


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


def gemini_turns(body: Object) -> Iterator[tuple[str, str]]:
    for content in body.get("contents", []):
        for part in content.get("parts", []):
            yield ("result" if "functionResponse" in part else content.get("role", "user")), flat(part)


# --- the answer, streamed as each provider streams it: (event name or None, data) -------------------------------------


def chat_deltas(step: Object) -> Iterator[Object]:
    if "call" in step:
        function = {"name": step["call"], "arguments": json.dumps(step["args"])}
        call = {"index": 0, "id": f"call_{next(_numbers)}", "type": "function", "function": function}
        yield {"role": "assistant", "tool_calls": [call]}
    else:
        for text in pieces(step):
            yield {"role": "assistant", "content": text}


def chat_events(step: Object, model: str) -> Iterator[tuple[str | None, Object]]:
    base = {"id": f"chatcmpl-{next(_numbers)}", "object": "chat.completion.chunk", "created": 0, "model": model}
    for delta in chat_deltas(step):
        yield None, {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    finish = "tool_calls" if "call" in step else "stop"
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
        deltas: Iterator[Object] = iter([{"type": "input_json_delta", "partial_json": json.dumps(step["args"])}])
    else:
        block = {"type": "text", "text": ""}
        deltas = ({"type": "text_delta", "text": text} for text in pieces(step))
    message = {"id": f"msg_{next(_numbers)}", "type": "message", "role": "assistant", "model": model, "content": []}
    stop = {"stop_reason": "tool_use" if "call" in step else "end_turn", "stop_sequence": None}
    start = {**message, "stop_reason": None, "stop_sequence": None, "usage": usage}
    yield "message_start", {"type": "message_start", "message": start}
    yield "content_block_start", {"type": "content_block_start", "index": 0, "content_block": block}
    for delta in deltas:
        yield "content_block_delta", {"type": "content_block_delta", "index": 0, "delta": delta}
    yield "content_block_stop", {"type": "content_block_stop", "index": 0}
    yield "message_delta", {"type": "message_delta", "delta": stop, "usage": usage}
    yield "message_stop", {"type": "message_stop"}


def responses_events(step: Object, model: str) -> Iterator[tuple[str | None, Object]]:
    numbers = itertools.count()

    def event(kind: str, **fields: Any) -> tuple[str, Object]:
        return kind, {"type": kind, "sequence_number": next(numbers), **fields}

    whole = {"id": f"resp_{next(_numbers)}", "object": "response", "model": model, "status": "completed"}
    yield event("response.created", response={**whole, "status": "in_progress", "output": []})
    if "call" in step:
        item: Object = {"type": "function_call", "id": f"fc_{next(_numbers)}", "call_id": f"call_{next(_numbers)}"}
        item |= {"name": step["call"], "arguments": json.dumps(step["args"]), "status": "completed"}
        yield event("response.output_item.added", output_index=0, item=item)
    else:
        item = {"type": "message", "id": f"msg_{next(_numbers)}", "role": "assistant", "content": []}
        yield event("response.output_item.added", output_index=0, item=item)
        said = []
        for text in pieces(step):
            said.append(text)
            yield event("response.output_text.delta", item_id=item["id"], output_index=0, content_index=0, delta=text)
        item = {**item, "content": [{"type": "output_text", "text": "".join(said), "annotations": []}]}
    usage = {
        "input_tokens": INPUT_TOKENS + CACHED_TOKENS,
        "input_tokens_details": {"cached_tokens": CACHED_TOKENS},
        "output_tokens": OUTPUT_TOKENS,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": INPUT_TOKENS + CACHED_TOKENS + OUTPUT_TOKENS,
    }
    yield event("response.output_item.done", output_index=0, item=item)
    yield event("response.completed", response={**whole, "output": [item], "usage": usage})


def gemini_events(step: Object, model: str) -> Iterator[tuple[str | None, Object]]:
    usage = {
        "promptTokenCount": INPUT_TOKENS + CACHED_TOKENS,
        "cachedContentTokenCount": CACHED_TOKENS,
        "candidatesTokenCount": OUTPUT_TOKENS,
        "totalTokenCount": INPUT_TOKENS + CACHED_TOKENS + OUTPUT_TOKENS,
    }
    if "call" in step:
        # An agent that is told of no signature makes one up, or refuses to go on.
        call = {"functionCall": {"name": step["call"], "args": step["args"]}, "thoughtSignature": "ZmFrZQ=="}
        parts: Iterator[Object] = iter([call])
    else:
        parts = ({"text": text} for text in pieces(step))
    for part in parts:
        yield None, {"candidates": [{"content": {"role": "model", "parts": [part]}, "index": 0}], "modelVersion": model}
    end = {"content": {"role": "model", "parts": [{"text": ""}]}, "finishReason": "STOP", "index": 0}
    yield None, {"candidates": [end], "usageMetadata": usage, "modelVersion": model}


# --- how each refuses, and where it is asked for JSON -----------------------------------------------------------------


def openai_error(status: int, message: str) -> Object:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}


def anthropic_error(status: int, message: str) -> Object:
    return {"type": "error", "error": {"type": "invalid_request_error", "message": message}}


def gemini_error(status: int, message: str) -> Object:
    return {"error": {"code": status, "message": message, "status": "INVALID_ARGUMENT"}}


def wanted(body: Object) -> Object | None:
    """The schema that the answer must fit, in whichever provider's words."""
    output, gemini = body.get("output_config") or {}, body.get("generationConfig") or {}
    for form in ((body.get("text") or {}).get("format"), output.get("format"), body.get("response_format")):
        if form and form.get("type") == "json_schema":
            return dict(form.get("schema") or form.get("json_schema", {}).get("schema", {}))
    return gemini.get("responseJsonSchema") or gemini.get("responseSchema")


@dataclass(frozen=True)
class Provider:
    turns: Callable[[Object], Iterator[tuple[str, str]]]
    events: Callable[[Object, str], Iterator[tuple[str | None, Object]]]
    error: Callable[[int, str], Object]


GEMINI = Provider(gemini_turns, gemini_events, gemini_error)
ENDPOINTS = {
    "/chat/completions": Provider(chat_turns, chat_events, openai_error),
    "/messages": Provider(messages_turns, messages_events, anthropic_error),
    "/responses": Provider(responses_turns, responses_events, openai_error),
    ":generateContent": GEMINI,
    ":streamGenerateContent": GEMINI,
}
