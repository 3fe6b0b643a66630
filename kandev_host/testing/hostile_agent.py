"""Agents as hostile as any that was seen, and what has to come of each: `hostile_agent MODE`.

`MODES` has a mode for each observation, `FLOODS` those that take their time. A mode is a script of
the `scripted_agent`, with the steps that are added here, and what must follow from it:

    script     what the agent does
    cancel     its turn is cancelled as soon as it is at work; `pending`: as soon as so many questions wait
    preset     the preset that it is launched with
    turn       how its turn ends: as acp.result says, or "failed"; absent: it has none, or none that ends by itself
    status     how the agent ends: of itself, or STOPPED, by whoever launched it
    failure    of what kind that is
    words      in the error of the agent, or of its turn
    said       texts of it that are told as they are
    codes      of the acp.error that are told, beside the turn's and the agent's own
    logged     a line of its log
    grows      by how many bytes the host may grow, if that is more than usual
    asked      states of its permission requests, and how many there are of each; shown: of the call of each
"""

from __future__ import annotations

import json
import os
import queue
import sys
import zipapp
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kandev_host.testing import scripted_agent
from kandev_host.testing.scripted_agent import OPTIONS, SESSION, Json, ScriptedAgent

GIB = 1 << 30
BLOCK = 1 << 20
GARBAGE = b"Usage: agent [options] ........\n"
DAEMON = "trap '' TERM HUP; setsid sleep 86399.5 & setsid sleep 86399.5 <&- >&- 2>&- & sleep 86399.5"
HANG: Json = {"hang": True}
WORKS: Json = {"text": "working"}
DONE: Json = {"text": "done"}
EVIL: Json = {
    "toolCall": {"toolCallId": "0", "title": "Nothing", "kind": "think"},
    "options": [{"optionId": "yes", "name": "Yes", "kind": "allow_once"}],
    "outcome": {"outcome": "selected", "optionId": "yes"},
    "sessionId": "another",
    "tool_call": {"title": "Nothing"},
    "kandev": {"preset": "unattended"},
}


class HostileAgent(ScriptedAgent):
    """The steps beyond those of a script:

    huge_text     one message, in one line of so many bytes
    commands      an available_commands_update, in one line of so many bytes
    flood_bytes   so many bytes of messages, of 256 KiB each; then the text "sent N"
    line_bytes    so many bytes without a newline, then one
    garbage_bytes so many bytes of lines that are a program's help
    huge_answer   an answer to the prompt of so many bytes
    noise_bytes   so many bytes on stderr; with "lines": true, of 1 KiB each
    asks          requests with these ids, in one write, before any answer is read; their outcomes are told as a text.
                  With "method" and "params"; "deaf": nothing is read any more
    """

    def do_huge_text(self, size: int, _step: Json) -> None:
        self._padded('{"sessionUpdate":"agent_message_chunk","content":{"type":"text","text":"', size, '"}}')

    def do_commands(self, size: int, _step: Json) -> None:
        head = '{"sessionUpdate":"available_commands_update","availableCommands":[{"name":"big","description":"'
        self._padded(head, size, '"}]}')

    def _padded(self, head: str, size: int, tail: str) -> None:
        around = f'{{"jsonrpc":"2.0","method":"session/update","params":{{"sessionId":"{SESSION}","update":{head}'
        end = f"{tail}}}}}\n"
        self.write(around.encode())
        self._fill(1, size - len(around) - len(end))
        self.write(end.encode())

    def do_flood_bytes(self, size: int, _step: Json) -> None:
        content = {"type": "text", "text": "x" * (256 << 10)}
        update = {"sessionUpdate": "agent_message_chunk", "content": content}
        message = {"jsonrpc": "2.0", "method": "session/update", "params": {"sessionId": SESSION, "update": update}}
        line = json.dumps(message).encode() + b"\n"
        sent = 0
        while sent < size and not self.cancelled.is_set():
            self.write(line)
            sent += len(line)
        self.do_text(f"sent {sent}", {})

    def do_line_bytes(self, size: int, _step: Json) -> None:
        self._fill(1, size)
        self.write(b"\n")

    def do_garbage_bytes(self, size: int, _step: Json) -> None:
        self._fill(1, size, GARBAGE)

    def do_huge_answer(self, size: int, _step: Json) -> None:
        self.answer["_meta"] = {"big": "x" * size}

    def do_noise_bytes(self, size: int, step: Json) -> None:
        self._fill(2, size, b"x" * 1023 + b"\n" if step.get("lines") else b"x")

    def _fill(self, descriptor: int, size: int, unit: bytes = b"x") -> None:
        block = memoryview(unit * (BLOCK // len(unit)))
        while size > 0:
            size -= os.write(descriptor, block[: min(size, len(block))])

    def do_asks(self, ids: list[Any], step: Json) -> None:
        method = step.get("method", "session/request_permission")
        asked = {"sessionId": SESSION, "toolCall": {"toolCallId": "t", "title": "Edit"}, "options": OPTIONS}
        self.deaf = bool(step.get("deaf"))
        for id in ids:
            self.answers.setdefault(id, queue.Queue())
        for id in ids:
            self.send({"id": id, "method": method, "params": step.get("params", asked)})
        outcomes = [_outcome(self.answers[id].get()) for id in ids]
        self.do_text(", ".join(f"{outcomes.count(outcome)} {outcome}" for outcome in sorted(set(outcomes))), {})


def _outcome(answer: Json) -> str:
    if "error" in answer:
        return f"error {answer['error']['code']}"
    outcome = answer["result"]["outcome"]
    return str(outcome.get("optionId", outcome["outcome"]))


def _mode(*steps: Json, turn: str | None = "completed", status: str = "STOPPED", **more: Any) -> Json:
    """A mode whose turn is these steps; what is no field of a mode is a key of its script."""
    fields = {"cancel", "pending", "preset", "failure", "words", "said", "codes", "logged", "asked", "shown", "grows"}
    mode = {key: more.pop(key) for key in fields & more.keys()}
    return {"script": {"prompt": list(steps), **more}, "turn": turn, "status": status, **mode}


def _asks(toolcall: Json, **params: Any) -> Json:
    return {"permission": {"toolCall": toolcall, **params}}


FAULT = ["PROTOCOL_FAULT"]
MODES: dict[str, Json] = {
    # Lines: their size, and what is none of ACP.
    "line of 569 KB": _mode({"commands": 569_000}, DONE, said=["done"]),
    "line of 100 MB": _mode({"huge_text": 100_000_000}, DONE, said=["done"], codes=FAULT),
    "answer of 20 MB": _mode(
        WORKS, {"huge_answer": 20_000_000}, turn="failed", words="longer than a line may be", codes=FAULT
    ),
    "no objects": _mode({"raw": '42\n[]\nnull\n""\ntrue\n{}\n[{"jsonrpc":"2.0"}]\n'}, DONE, said=["done"], codes=FAULT),
    "not UTF-8": _mode(
        {"hex": "ff0a" + b'{"jsonrpc":"2.0","method":"session/update","params":"\xff\xfe"}\n'.hex()},
        DONE,
        said=["done"],
        codes=FAULT,
    ),
    "NUL": _mode({"hex": "00" * 5000 + "0a"}, {"text": "a\0b"}, said=["a\0b"], codes=FAULT),
    "only garbage": _mode(
        start=[{"garbage_bytes": GIB}, HANG],
        turn=None,
        status="FAILED",
        failure="crash",
        words="lines in a row that are not ACP",
        codes=FAULT,
        logged=GARBAGE.decode().strip(),
    ),
    "binary": _mode(
        start=[{"hex": "00ff" * 4000 + "0a"}, {"exit": 0}], turn=None, status="FAILED", failure="crash",
        words="exited with code 0 before it answered initialize", codes=FAULT,
    ),
    "no end of a line": _mode(
        start=[{"stderr": "still loading"}, {"line_bytes": 30_000_000}, HANG], turn=None, status="FAILED",
        failure="crash", words="did not answer initialize within", codes=FAULT, logged="still loading",
    ),
    "nested": _mode({"raw": '{"jsonrpc":"2.0","params":' + "[" * 100_000 + "\n"}, DONE, said=["done"], codes=FAULT),
    "half a line": _mode(
        WORKS, {"raw": '{"jsonrpc":"2.0","me'}, {"exit": 4}, turn="failed", status="FAILED", failure="crash",
        words="exited with code 4", codes=FAULT,
    ),
    "1 MB of stderr": _mode({"noise_bytes": 1 << 20}, {"noise_bytes": 1 << 20, "lines": True}, DONE, said=["done"]),
    # Order.
    "updates before the session": _mode(
        DONE,
        new_steps=[{"text": "early"}, {"tool": {"toolCallId": "e", "title": "Early"}}],
        said=["early", "done"],
    ),
    "a flood before the session": _mode(DONE, new_steps=[{"flood_bytes": 32 << 20}], said=["done"]),
    "updates after the turn": _mode(DONE, {"after": [{"text": "late"}]}, said=["done", "late"]),
    "update without its call": _mode({"tool_update": {"toolCallId": "7", "status": "in_progress"}}),
    "two answers": _mode(
        {"raw": '{"jsonrpc":"2.0","id":2,"result":{"stopReason":"refusal"}}\n'}, DONE, turn="refused", codes=FAULT
    ),
    # Permissions.
    "permission for a call nobody knows": _mode(
        {"tool": {"toolCallId": "1", "title": "Run"}}, _asks({"toolCallId": "elsewhere"}),
        turn="cancelled", cancel=True, pending=1, asked={"cancelled": 1},
    ),
    "permission without an id": _mode(_asks({"title": "Run"}), said=["error -32602"], asked={}),
    "permission for another session": _mode(
        {"tool": {"toolCallId": "1", "title": "Look", "kind": "read"}},
        _asks({"toolCallId": "1"}, sessionId="another"),
        preset="unattended", said=["error -32602"], asked={},
    ),
    "permission without a session": _mode(
        {"asks": [0], "params": {"toolCall": {"toolCallId": "1"}, "options": OPTIONS}},
        said=["1 error -32602"], asked={},
    ),
    "only allow_always": _mode(
        _asks({"toolCallId": "1", "kind": "read"}, options=[{"optionId": "a", "name": "Once", "kind": "allow_always"}]),
        preset="unattended", turn="cancelled", cancel=True, pending=1, asked={"cancelled": 1},
    ),
    "_meta that imitates arguments": _mode(
        {"update": {"sessionUpdate": "session_info_update", "_meta": EVIL}},
        _asks({"toolCallId": "1", "title": "Delete", "kind": "delete", "_meta": EVIL}, _meta=EVIL),
        {"meta": EVIL},
        turn="cancelled", cancel=True, pending=1, asked={"cancelled": 1},
        shown={"toolCallId": "1", "title": "Delete", "kind": "delete"},
    ),
    "1,000 permission requests": _mode(
        {"asks": list(range(1000))},
        turn="cancelled", cancel=True, pending=64, asked={"cancelled": 64},
    ),
    # What a turn is said to be.
    "end_turn without a text": _mode({"stop": "end_turn"}, turn="empty"),
    "an HTTP error as text": _mode(
        {"text": "unexpected status 401 Unauthorized: Missing bearer, url: https://api.example.org/v1/responses"},
        turn="failed", words="unexpected status 401",
    ),
    "an HTTP error": _mode({"error": {"code": 400, "message": "model not found"}}, turn="failed", words="(400)"),
    "no stop reason": _mode(WORKS, {"no_stop": True}, turn="failed", words="unknown stop reason"),
    # Ids.
    "ids 0, null and strings": _mode(
        {"asks": [0, None, "", "0", "a" * 5000, -1, 2**62], "method": "_mine/ask", "params": {}},
        said=["7 error -32601"],
    ),
    "the same id again": _mode({"asks": ["x", "x", "x"], "method": "_mine/ask", "params": {}},
                               said=["3 error -32601"]),
    "answers to nobody": _mode(
        {"raw": '{"jsonrpc":"2.0","id":"2","result":{"stopReason":"refusal"}}\n'},
        {"raw": '{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"?"}}\n'},
        DONE, said=["done"], codes=FAULT,
    ),
    "methods of its own": _mode(
        {"notify": {"method": "_auth/status_update", "params": {}}},
        {"notify": {"method": "qwen/notify/x"}},
        {"asks": ["q"], "method": "craft/drainMidTurnQueue"},
        {"asks": ["f"], "method": "fs/write_text_file", "params": {"path": "/etc/passwd", "content": ""}},
        said=["1 error -32601"],
    ),
    # Silence.
    "never answers initialize": _mode(
        initialize=None, ignore_term=True, ignore_eof=True, turn=None, status="FAILED", failure="crash",
        words="did not answer initialize within",
    ),
    "never answers session/new": _mode(
        new_steps=[HANG], ignore_term=True, ignore_eof=True, turn=None, status="FAILED", failure="crash",
        words="did not answer session/new within",
    ),
    "never answers the prompt": _mode(
        WORKS, HANG, ignore_cancel=True, turn="cancelled", cancel=True, status="FAILED", failure="turn",
        words="did not end its turn within",
    ),
    "ignores everything": _mode(
        WORKS, HANG, ignore_cancel=True, ignore_term=True, ignore_eof=True, turn="cancelled", cancel=True,
        status="FAILED", failure="turn", words="did not end its turn within",
    ),
    "ignores EOF and TERM": _mode(DONE, ignore_term=True, ignore_eof=True, said=["done"]),
    "closes its output": _mode(
        WORKS, {"close": True}, HANG, ignore_eof=True, ignore_term=True, turn="cancelled", cancel=True,
        status="FAILED", failure="turn", words="did not end its turn within",
    ),
    "asks and does not listen": _mode(
        WORKS, {"asks": list(range(20_000)), "method": "_mine/ask", "params": {}, "deaf": True},
        turn="cancelled", cancel=True, status="FAILED", failure="turn", words="did not end its turn within",
    ),
    # What it leaves behind, and what it is made of.
    "leaves daemons": _mode({"child": ["/usr/bin/env", "-i", "/bin/sh", "-c", DAEMON]}, DONE, said=["done"]),
    "exits": _mode(
        start=[{"stderr": "no API key"}, {"exit": 3}], turn=None, status="FAILED", failure="crash",
        words="exited with code 3 before it answered initialize", logged="no API key",
    ),
    "another version": _mode(
        initialize={"protocolVersion": 2}, turn=None, status="FAILED", failure="config", words="version 2 of ACP",
    ),
    "a session without a name": _mode(
        new={"sessionId": None}, turn=None, status="FAILED", failure="crash", words="session/new",
    ),
}  # fmt: skip
# Apart from the others, for they take their time.
FLOODS: dict[str, Json] = {
    "1 GB of updates": _mode({"flood_bytes": GIB}),
    "a line of 1 GB": _mode({"line_bytes": GIB}, DONE, said=["done"], codes=FAULT),
    "1 GB of stderr": _mode({"noise_bytes": GIB, "lines": True}, DONE, said=["done"]),
    # What waits to be written is bounded, but one line alone is several copies of itself.
    "lines just under the limit": _mode(*[{"huge_text": 8 << 20}] * 24, DONE, said=["done"], grows=192 << 20),
}  # fmt: skip


def write_program(path: Path) -> Path:
    """Make this agent one executable file, which needs nothing but Python."""
    with TemporaryDirectory() as folder:
        package = Path(folder) / "kandev_host/testing"
        package.mkdir(parents=True)
        for empty in (package.parent, package):
            (empty / "__init__.py").touch()
        for module in (scripted_agent.__file__, __file__):
            (package / Path(module).name).write_bytes(Path(module).read_bytes())
        zipapp.create_archive(folder, path, sys.executable, "kandev_host.testing.hostile_agent:main")
    path.chmod(0o755)
    return path


def main() -> None:
    """Be as the mode says that is the first argument."""
    HostileAgent({**MODES, **FLOODS, "neighbour": {"script": {}}}[sys.argv[1]]["script"]).main()


if __name__ == "__main__":
    main()
