#!/usr/bin/env python3
"""An ACP agent that answers the prompt `N` with N message chunks, as fast as its pipe takes them."""

import json
import sys
from typing import Any


def say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def flood(session: str, count: int) -> None:
    update = {
        "sessionUpdate": "agent_message_chunk",
        "content": {"type": "text", "text": "forty words of a model's answer " * 3},
    }
    line = (
        json.dumps({"jsonrpc": "2.0", "method": "session/update", "params": {"sessionId": session, "update": update}})
        + "\n"
    )
    block = line * 1000
    for _ in range(count // 1000):
        sys.stdout.write(block)
    sys.stdout.write(line * (count % 1000))
    sys.stdout.flush()


def main() -> None:
    for line in sys.stdin:
        message = json.loads(line)
        match message.get("method"):
            case "initialize":
                say({"id": message["id"], "result": {"protocolVersion": 1, "agentCapabilities": {}}})
            case "session/new":
                say({"id": message["id"], "result": {"sessionId": "flood"}})
            case "session/prompt":
                flood("flood", int(message["params"]["prompt"][0]["text"]))
                say({"id": message["id"], "result": {"stopReason": "end_turn"}})
            case _ if "id" in message:
                say({"id": message["id"], "error": {"code": -32601, "message": "method not found"}})


if __name__ == "__main__":
    main()
