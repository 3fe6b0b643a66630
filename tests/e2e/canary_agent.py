"""An agent that says what it knows, on every way that it has. Standard library only: it runs in the jail."""

import base64
import json
import os
import sys
from typing import Any
from urllib.parse import quote

SESSION = "canaries"
Json = dict[str, Any]


def send(message: Json) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def update(variant: str, **fields: Any) -> None:
    send({"method": "session/update", "params": {"sessionId": SESSION, "update": {"sessionUpdate": variant, **fields}}})


def text(said: str) -> Json:
    return {"type": "text", "text": said}


def spelled(canary: str) -> list[str]:
    """As programs repeat it."""
    inside = f"user:{canary}".encode()
    return [
        canary,
        base64.b64encode(inside).decode(),
        base64.urlsafe_b64encode(b"x" + inside).decode(),
        base64.b64encode(b"xx" + inside).decode(),
        quote(canary, safe=""),
        json.dumps({"env": canary}),
        inside.hex(),
    ]


def request(identifier: int, method: str, **params: Any) -> Json:
    send({"id": identifier, "method": method, "params": {"sessionId": SESSION, **params}})
    while True:
        answer: Json = json.loads(sys.stdin.readline())
        if answer.get("id") == identifier and "method" not in answer:
            return answer


def tell_all(canary: str) -> None:
    for number, said in enumerate(spelled(canary)):
        content = [{"type": "content", "content": text(said)}]
        update("agent_message_chunk", content=text(f"whole: {said}\n"))
        for at in range(0, len(said), 3):
            update("agent_message_chunk", content=text(said[at : at + 3]))
        update("agent_thought_chunk", content=text(said))
        call = {"toolCallId": f"{number}", "title": said, "kind": "execute", "rawInput": {"command": f"echo {said}"}}
        update("tool_call", **call, locations=[{"path": f"/workspace/{said}"}])
        update("tool_call_update", toolCallId=f"{number}", status="completed", content=content, rawOutput={said: said})
        update("plan", entries=[{"content": said, "priority": "high", "status": "in_progress"}])
        update("available_commands_update", availableCommands=[{"name": "x", "description": said}])
        update("session_info_update", title=said, _meta={"x": said})
        update("usage_update", used=1, size=2, _meta={"x": said})
        update("of_tomorrow", deep=[{"x": [said]}])
        sys.stdout.write(f"no JSON: {said}\n")
        print(f"stderr: {said}", file=sys.stderr, flush=True)
    escaped = "".join(f"\\u{ord(char):04x}" for char in canary)
    sys.stdout.write(
        '{"jsonrpc": "2.0", "method": "session/update", "params": {"sessionId": "' + SESSION + '", "update": '
        '{"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": "' + escaped + '"}}}}\n'
    )
    sys.stdout.flush()


def ask_all(canary: str) -> None:
    call = {"toolCallId": "p", "title": canary, "kind": "edit", "rawInput": {"k": canary}}
    options = [{"optionId": "once", "name": f"Allow {canary}", "kind": "allow_once"}]
    request(1, "session/request_permission", toolCall=call, options=options)
    asked = {"type": "object", "properties": {"pin": {"type": "string", "format": "password"}}}
    filled = request(2, "elicitation/create", mode="form", message=f"About {canary}", requestedSchema=asked)
    update("agent_message_chunk", content=text(f"you said: {filled['result'].get('content', {}).get('pin')}\n"))
    command = 'printf %s "$HALF"; sleep 0.05; printf %s "$REST"; echo'
    env = [{"name": "HALF", "value": canary[:9]}, {"name": "REST", "value": canary[9:]}]
    terminal = request(3, "terminal/create", command="sh", args=["-c", command, canary], env=env)["result"]
    request(4, "terminal/wait_for_exit", terminalId=terminal["terminalId"])
    request(5, "terminal/release", terminalId=terminal["terminalId"])


def main() -> None:
    canary = os.environ["CANARY_ACCESS"]
    url = f"https://robot:{os.environ['CANARY_URL'][::-1]}@git.example.org/x.git"
    way = sys.argv[1]
    if way == "dies":
        print(f"no log-in with {canary}", file=sys.stderr, flush=True)
        sys.exit(3)
    for line in sys.stdin:
        message = json.loads(line)
        answer: Json = {"result": {}}
        match message.get("method"):
            case "initialize" if way == "refuses":
                answer = {"error": {"code": -32603, "message": f"bad key {canary}", "data": {"details": canary}}}
            case "initialize":
                answer["result"] = {"protocolVersion": 1, "agentInfo": {"name": canary, "version": "1"}}
            case "session/new":
                server = message["params"]["mcpServers"][0]
                for value in [pair["value"] for pair in server["env"]]:
                    print(f"MCP: {value}", file=sys.stderr, flush=True)
                print(f"arguments: {sys.argv[1:]}", file=sys.stderr, flush=True)
                modes = {"currentModeId": "a", "availableModes": [{"id": "a", "name": canary}]}
                answer["result"] = {"sessionId": SESSION, "modes": modes}
            case "session/prompt":
                tell_all(canary)
                ask_all(canary)
                print(f"fatal: cannot read {url}", file=sys.stderr, flush=True)
                update("agent_message_chunk", content=text(f"cannot read {url}\n"))
                answer = {"error": {"code": -32603, "message": f"quota of {canary}", "data": [canary]}}
        if "id" in message:
            send({"id": message["id"], **answer})


main()
