"""An agent of the Kandev architecture's shape (`content` for `prompt`, updates with `content` and `stopReason`).

The text of a prompt is a JSON list of what it does: "ack" answers with {sessionId, status}, "end" with a stop reason,
"error" with an error, "exit" exits; an object is the params of a session/update. A program of its own, not a test.
"""

from __future__ import annotations

import json
import sys
from typing import Any

SESSION = "seed-1"


def send(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def act(step: Any, id: int) -> None:
    if step == "ack":
        send({"id": id, "result": {"sessionId": SESSION, "status": "ok"}})
    elif step == "end":
        send({"id": id, "result": {"stopReason": "end_turn"}})
    elif step == "error":
        send({"id": id, "error": {"code": -32603, "message": "It broke"}})
    elif step == "exit":
        raise SystemExit(0)
    else:
        send({"method": "session/update", "params": {"sessionId": SESSION, **step}})


for line in sys.stdin:
    message = json.loads(line)
    if message.get("method") == "session/new":
        send({"id": message["id"], "result": {"sessionId": SESSION, "status": "ok"}})
    elif message.get("method") == "session/prompt":
        assert "prompt" not in message["params"]
        for step in json.loads(message["params"]["content"][0]["text"]):
            act(step, message["id"])
    elif "id" in message:
        send({"id": message["id"], "error": {"code": -32601, "message": "Method not found"}})
