"""An ACP agent that does as it is told, for tests: `python -m kandev_host.testing.scripted_agent [SCRIPT]`.

Standard library only, and no code of the host, so that it is an independent other side. SCRIPT (or the environment
variable SCRIPTED_AGENT) is a JSON object, every key optional:

    start        steps before anything is read
    initialize   the result's fields, or {"error": {...}}, or null to never answer
    new          the fields of session/new's result; new_steps are played before it is answered, after_new behind it
    prompt       steps of every turn; a prompt whose text is a JSON list brings its own
    ignore_cancel, ignore_eof, ignore_term   booleans
    log          a file to which every line from the host is appended

A step is an object with one of these keys:

    text, thought    a chunk; with "repeat": n (n chunks) and "delay_s" before each; "{n}" counts
    update           any update, sent as it is; with "session": another session id
    tool             a tool_call;  tool_update  a tool_call_update
    flood            so many text chunks, as fast as the pipe takes them; with "size" characters each
    permission       params of session/request_permission without sessionId; then "chosen": {optionId: steps,
                     "cancelled": steps}; "options" are filled in if absent; "withdraw": true cancels the request
    request          {"method", "params"}: a request to the host; its answer comes back as a text chunk
    notify           {"method", "params"}
    write            {"path", "text"}: a file;  child  a command left running, with the agent's stdout
    raw, hex         bytes on stdout, as text or hexadecimal;  huge  one line of so many bytes
    stderr           a line, with "repeat"
    sleep_s          wait, ended by a cancel;  hang  wait for ever, ended by nothing
    exit             end with this code;  close  close stdout and live on
    usage, meta      fields of the answer to the prompt
    stop             end the turn with this stop reason;  error  end it with this error;  no_stop  without a reason
    after            steps played behind the answer
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

Json = dict[str, Any]
SESSION = "scripted-session"
OPTIONS = [
    {"optionId": "always", "name": "Always allow", "kind": "allow_always"},
    {"optionId": "reject", "name": "Reject", "kind": "reject_once"},
    {"optionId": "once", "name": "Allow once", "kind": "allow_once"},
]


class TurnOver(Exception):
    """A step ended the turn."""


class ScriptedAgent:
    """Reads the host's lines on a thread, plays the script on the main one."""

    def __init__(self, script: Json) -> None:
        self.script = script
        self.incoming: queue.Queue[Json | None] = queue.Queue()
        self.answers: dict[Any, queue.Queue[Json]] = {}
        self.cancelled = threading.Event()
        self.next_id = 0
        self.deaf = False
        self.answer: Json = {}
        self.after: list[Json] = []

    # --- wire -------------------------------------------------------------------------------------------------------

    def send(self, message: Json) -> None:
        self.write(json.dumps({"jsonrpc": "2.0", **message}, separators=(",", ":")).encode() + b"\n")

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(1, view) :]

    def update(self, update: Json, session: str = SESSION) -> None:
        self.send({"method": "session/update", "params": {"sessionId": session, "update": update}})

    def read(self) -> None:
        log = self.script.get("log")
        for line in sys.stdin.buffer:
            while self.deaf:
                time.sleep(1)
            if log:
                with Path(log).open("ab") as file:
                    file.write(line)
            message = json.loads(line)
            if message.get("method") == "session/cancel":
                if not self.script.get("ignore_cancel"):
                    self.cancelled.set()
            elif "method" not in message:
                self.answers.setdefault(message["id"], queue.Queue()).put(message)
            else:
                self.incoming.put(message)
        self.incoming.put(None)
        if not self.script.get("ignore_eof"):
            os._exit(0)

    def request(self, method: str, params: Json, *, withdraw: bool = False) -> Json:
        identifier = self.next_id
        self.next_id += 1
        waiting = self.answers.setdefault(identifier, queue.Queue())
        self.send({"id": identifier, "method": method, "params": params})
        if withdraw:
            self.send({"method": "$/cancel_request", "params": {"requestId": identifier}})
        return waiting.get()

    # --- requests of the host ---------------------------------------------------------------------------------------

    def main(self) -> None:
        if self.script.get("ignore_term"):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        threading.Thread(target=self.read, daemon=True).start()
        self.play(self.script.get("start", []))
        while (message := self.incoming.get()) is not None:
            handler = getattr(self, "on_" + message["method"].replace("/", "_"), None)
            if handler is None:
                self.send({"id": message["id"], "error": {"code": -32601, "message": "Method not found"}})
            else:
                handler(message)
        while self.script.get("ignore_eof"):
            time.sleep(1)

    def on_initialize(self, message: Json) -> None:
        wanted = self.script.get("initialize", {})
        if wanted is None:
            return
        if "error" in wanted:
            self.send({"id": message["id"], **wanted})
            return
        info = {"name": "scripted", "version": "1"}
        self.send({"id": message["id"], "result": {"protocolVersion": 1, "agentInfo": info, **wanted}})

    def on_authenticate(self, message: Json) -> None:
        self.send({"id": message["id"], "result": {}})

    def on_session_new(self, message: Json) -> None:
        self.play(self.script.get("new_steps", []))
        wanted = self.script.get("new", {})
        if "error" in wanted:
            self.send({"id": message["id"], **wanted})
        else:
            self.send({"id": message["id"], "result": {"sessionId": SESSION, **wanted}})
        self.play(self.script.get("after_new", []))

    def on_session_set_mode(self, message: Json) -> None:
        self.send({"id": message["id"], "result": {}})

    def on_session_set_config_option(self, message: Json) -> None:
        options = self.script.get("new", {}).get("configOptions", [])
        params = message["params"]
        changed = [{**o, "currentValue": params["value"]} if o["id"] == params["configId"] else o for o in options]
        self.send({"id": message["id"], "result": {"configOptions": changed}})

    def on_session_prompt(self, message: Json) -> None:
        self.cancelled.clear()
        self.answer, self.after = {"stopReason": "end_turn"}, []
        text = "".join(block.get("text", "") for block in message["params"]["prompt"])
        steps = json.loads(text) if text.startswith("[") else self.script.get("prompt", [{"text": "Done."}])
        try:
            self.play(steps)
            if self.cancelled.is_set():
                self.answer["stopReason"] = "cancelled"
        except TurnOver:
            pass
        if "error" in self.answer:
            self.send({"id": message["id"], "error": self.answer["error"]})
        else:
            self.send({"id": message["id"], "result": self.answer})
        self.cancelled.clear()
        self.play(self.after)

    # --- steps ------------------------------------------------------------------------------------------------------

    def play(self, steps: list[Json]) -> None:
        for step in steps:
            if self.cancelled.is_set():
                return
            name = next(key for key in step if hasattr(self, "do_" + key))
            getattr(self, "do_" + name)(step[name], step)

    def do_text(self, text: str, step: Json, variant: str = "agent_message_chunk") -> None:
        for n in range(step.get("repeat", 1)):
            if self.cancelled.wait(step["delay_s"]) if "delay_s" in step else self.cancelled.is_set():
                return
            content = {"type": "text", "text": text.replace("{n}", str(n))}
            self.update({"sessionUpdate": variant, "content": content})

    def do_thought(self, text: str, step: Json) -> None:
        self.do_text(text, step, "agent_thought_chunk")

    def do_update(self, update: Json, step: Json) -> None:
        self.update(update, step.get("session", SESSION))

    def do_tool(self, call: Json, _step: Json) -> None:
        self.update({"sessionUpdate": "tool_call", **call})

    def do_tool_update(self, call: Json, _step: Json) -> None:
        self.update({"sessionUpdate": "tool_call_update", **call})

    def do_flood(self, count: int, step: Json) -> None:
        content = {"type": "text", "text": "x" * step.get("size", 30)}
        update = {"sessionUpdate": "agent_message_chunk", "content": content}
        params = {"sessionId": SESSION, "update": update}
        line = json.dumps({"jsonrpc": "2.0", "method": "session/update", "params": params}).encode() + b"\n"
        block = line * 100
        for _ in range(count // 100):
            self.write(block)
        self.write(line * (count % 100))

    def do_permission(self, asked: Json, step: Json) -> None:
        params = {"sessionId": SESSION, "options": OPTIONS, **asked}
        answer = self.request("session/request_permission", params, withdraw=step.get("withdraw", False))
        if "error" in answer:
            self.do_text(f"error {answer['error']['code']}", {})
            return
        outcome = answer["result"]["outcome"]
        chosen = outcome.get("optionId", "cancelled")
        self.do_text(f"permission: {chosen}", {})
        self.play(step.get("chosen", {}).get(chosen, []))

    def do_request(self, request: Json, _step: Json) -> None:
        answer = self.request(request["method"], request.get("params", {}))
        self.do_text(json.dumps(answer, sort_keys=True), {})

    def do_notify(self, notification: Json, _step: Json) -> None:
        self.send(notification)

    def do_write(self, file: Json, _step: Json) -> None:
        Path(file["path"]).write_text(file["text"])

    def do_child(self, command: list[str], _step: Json) -> None:
        subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)

    def do_raw(self, text: str, step: Json) -> None:
        self.write(text.encode() * step.get("repeat", 1))

    def do_hex(self, text: str, _step: Json) -> None:
        self.write(bytes.fromhex(text))

    def do_huge(self, size: int, _step: Json) -> None:
        block = b"x" * 65536
        for _ in range(size // len(block)):
            self.write(block)
        self.write(b"x" * (size % len(block)) + b"\n")

    def do_stderr(self, text: str, step: Json) -> None:
        for n in range(step.get("repeat", 1)):
            os.write(2, text.replace("{n}", str(n)).encode() + b"\n")

    def do_sleep_s(self, seconds: float, _step: Json) -> None:
        self.cancelled.wait(seconds)

    def do_hang(self, _value: Any, _step: Json) -> None:
        while True:
            time.sleep(3600)

    def do_exit(self, code: int, _step: Json) -> None:
        os._exit(code)

    def do_close(self, _value: Any, _step: Json) -> None:
        os.close(1)

    def do_deaf(self, _value: Any, _step: Json) -> None:
        self.deaf = True

    def do_usage(self, usage: Json, _step: Json) -> None:
        self.answer["usage"] = usage

    def do_meta(self, meta: Json, _step: Json) -> None:
        self.answer["_meta"] = meta

    def do_after(self, steps: list[Json], _step: Json) -> None:
        self.after = steps

    def do_stop(self, reason: str, _step: Json) -> None:
        self.answer["stopReason"] = reason
        raise TurnOver

    def do_no_stop(self, _value: Any, _step: Json) -> None:
        del self.answer["stopReason"]
        raise TurnOver

    def do_error(self, error: Json, _step: Json) -> None:
        self.answer["error"] = error
        raise TurnOver


def main() -> None:
    """Play the script given as first argument or in SCRIPTED_AGENT."""
    text = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("SCRIPTED_AGENT", "{}")
    ScriptedAgent(json.loads(text)).main()


if __name__ == "__main__":
    main()
