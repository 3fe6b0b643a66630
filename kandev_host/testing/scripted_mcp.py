"""An MCP server on its pipes, for tests: `python -m kandev_host.testing.scripted_mcp`. Standard library only.

MCP (2025-06-18): initialize, tools/list and tools/call, one message a line. Its one tool, `look`, takes {"variable",
"path"} and answers what that variable and that file hold where the server runs.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

Json = dict[str, Any]
VERSION = "2025-06-18"


def result_of(method: str, params: Json) -> Json | None:
    """None for a method that is not there."""
    if method == "initialize":
        return {"protocolVersion": VERSION, "capabilities": {"tools": {}}, "serverInfo": {"name": "s", "version": "1"}}
    if method == "tools/list":
        return {"tools": [{"name": "look", "inputSchema": {"type": "object"}}]}
    if method == "tools/call" and params.get("name") == "look":
        return {"content": [{"type": "text", "text": json.dumps(_look(params.get("arguments", {})))}]}
    return None


def _look(arguments: Json) -> Json:
    path = Path(arguments.get("path", "/"))
    held = path.read_text() if path.is_file() else None
    return {"variable": os.environ.get(arguments.get("variable", "")), "path": held, "arguments": sys.argv[1:]}


def main() -> None:
    """Answer until stdin ends."""
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message:
            continue
        result = result_of(message["method"], message.get("params", {}))
        answer: Json = (
            {"error": {"code": -32601, "message": "Method not found"}} if result is None else {"result": result}
        )
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **answer}), flush=True)


if __name__ == "__main__":
    main()
