"""An ACP agent that does as it is told, for tests: `python -m kandev_host.testing.scripted_agent [SCRIPT]`.

Standard library only, and no code of the host, so that it is an independent other side. SCRIPT (or the environment
variable SCRIPTED_AGENT) is a JSON object, every key optional:

    start        steps before anything is read
    initialize   the result's fields, or {"error": {...}}, or null to never answer
    new          the fields of session/new's result; new_steps are played before it is answered, after_new behind it
    load, resume the result of session/load, session/resume, or {"error": {...}}; absent: the method is not found.
                 load_steps are played before session/load is answered
    list         the answers of session/list, page by page: the first, or the one whose place its cursor names;
                 close, delete  the result of session/close, session/delete, or {"error": {...}}; absent: not found
    prompt       steps of every turn; a prompt whose text is a JSON list brings its own
    login        {"needed": [methods], "methods": [ids], "error": {...}}: those methods are refused with -32000 until
                 one of the ids was authenticated; authenticate is refused with the error if there is one
    refused_values   values of config options that are refused;  ignore_cancel, ignore_eof, ignore_term  booleans
    log          a file to which every line from the host is appended

A step is an object with one of these keys:

    text, thought    a chunk; with "repeat": n (n chunks) and "delay_s" before each; "{n}" counts; with "backwards":
                     true from its end to its beginning, as equipment and mcp: so a test is told of a secret
    update           any update, sent as it is; with "session": another session id
    tool             a tool_call;  tool_update  a tool_call_update
    flood            so many text chunks, as fast as the pipe takes them; with "size" characters each
    permission       params of session/request_permission without sessionId; then "chosen": {optionId: steps,
                     "cancelled": steps}; "options" are filled in if absent; "withdraw": true cancels the request,
                     "meanwhile": steps behind it, before its answer
    elicit           params of elicitation/create without sessionId; what was chosen comes back as a text chunk,
                     with the names of what was filled in
    request          {"method", "params"}: a request to the host; its answer comes back as a text chunk
    notify           {"method", "params"}
    mcp              {"server", "arguments"}: start this stdio server of session/new and call its first tool; the
                     answer comes back as a text chunk;  equipment  the fields of session/new as a text chunk
    write            {"path", "text"}: a file;  child  a command left running, with the agent's stdout
    raw, hex         bytes on stdout, as text or hexadecimal;  huge  one line of so many bytes
    stderr           a line, with "repeat";  exit  end with this code;  close  close stdout and live on
    sleep_s          wait, ended by a cancel;  until_file  wait for this file, ended so too;  hang  for ever, by nothing
    usage, meta      fields of the answer to the prompt;  after  steps played behind the answer
    stop             end the turn with this stop reason;  error  end it with this error;  no_stop  without a reason
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
        self.opened: Json = {}
        self.logged_in = False
        self.options: list[Json] = (script.get("new") or {}).get("configOptions") or []

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
            elif message.get("method", "").startswith("$/"):
                continue
            elif "method" not in message:
                self.answers.setdefault(message["id"], queue.Queue()).put(message)
            else:
                self.incoming.put(message)
        self.incoming.put(None)
        if not self.script.get("ignore_eof"):
            os._exit(0)

    def request(
        self, method: str, params: Json, *, withdraw: bool = False, meanwhile: list[Json] | None = None
    ) -> Json:
        identifier = self.next_id
        self.next_id += 1
        waiting = self.answers.setdefault(identifier, queue.Queue())
        self.send({"id": identifier, "method": method, "params": params})
        if withdraw:
            self.send({"method": "$/cancel_request", "params": {"requestId": identifier}})
        self.play(meanwhile or [])
        return waiting.get()

    # --- requests of the host ---------------------------------------------------------------------------------------

    def main(self) -> None:
        if self.script.get("ignore_term"):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        threading.Thread(target=self.read, daemon=True).start()
        self.play(self.script.get("start", []))
        while (message := self.incoming.get()) is not None:
            handler = getattr(self, "on_" + message["method"].replace("/", "_"), None)
            if message["method"] in self.script.get("login", {}).get("needed", []) and not self.logged_in:
                error = {"code": -32000, "message": "Authentication required"}
                self.send({"id": message["id"], "error": error})
            elif handler is None:
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
        login = self.script.get("login", {})
        if "error" in login:
            self.send({"id": message["id"], "error": login["error"]})
            return
        self.logged_in = message["params"]["methodId"] in login.get("methods", [])
        self.send({"id": message["id"], "result": {}})

    def on_logout(self, message: Json) -> None:
        self.logged_in = False
        self.send({"id": message["id"], "result": {}})

    def on_session_new(self, message: Json) -> None:
        self.opened = message["params"]
        self.play(self.script.get("new_steps", []))
        wanted = self.script.get("new", {})
        if "error" in wanted:
            self.send({"id": message["id"], **wanted})
        else:
            self.send({"id": message["id"], "result": {"sessionId": SESSION, **wanted}})
        self.play(self.script.get("after_new", []))

    def on_session_load(self, message: Json) -> None:
        self.play(self.script.get("load_steps", []))
        self.reopen("load", message)

    def on_session_resume(self, message: Json) -> None:
        self.reopen("resume", message)

    def reopen(self, way: str, message: Json) -> None:
        self.opened = message["params"]
        self.answer_as_told(way, message)

    def on_session_close(self, message: Json) -> None:
        self.answer_as_told("close", message)

    def on_session_delete(self, message: Json) -> None:
        self.answer_as_told("delete", message)

    def on_session_list(self, message: Json) -> None:
        pages = self.script.get("list", [{"error": {"code": -32601, "message": "Method not found"}}])
        page = pages[int(message["params"].get("cursor") or 0)]
        self.send({"id": message["id"], **(page if "error" in page else {"result": page})})

    def answer_as_told(self, way: str, message: Json) -> None:
        wanted = self.script.get(way, {"error": {"code": -32601, "message": "Method not found"}})
        failed = isinstance(wanted, dict) and "error" in wanted
        self.send({"id": message["id"], **(wanted if failed else {"result": wanted})})

    def on_session_set_mode(self, message: Json) -> None:
        self.send({"id": message["id"], "result": {}})

    def on_session_set_config_option(self, message: Json) -> None:
        params = message["params"]
        if params["value"] in self.script.get("refused_values", []):
            self.send({"id": message["id"], "error": {"code": -32602, "message": "Not today"}})
            return
        self.options = [
            {**each, "currentValue": params["value"]} if each["id"] == params["configId"] else each
            for each in self.options
        ]
        self.send({"id": message["id"], "result": {"configOptions": self.options}})

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
            said = text[::-1] if step.get("backwards") else text.replace("{n}", str(n))
            content = {"type": "text", "text": said}
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
        more = {"withdraw": step.get("withdraw", False), "meanwhile": step.get("meanwhile")}
        answer = self.request("session/request_permission", params, **more)
        if "error" in answer:
            self.do_text(f"error {answer['error']['code']}", {})
            return
        outcome = answer["result"]["outcome"]
        chosen = outcome.get("optionId", "cancelled")
        self.do_text(f"permission: {chosen}", {})
        self.play(step.get("chosen", {}).get(chosen, []))

    def do_elicit(self, asked: Json, _step: Json) -> None:
        answer = self.request("elicitation/create", {"sessionId": SESSION, **asked})
        if "error" in answer:
            self.do_text(f"error {answer['error']['code']}", {})
            return
        names = " ".join(answer["result"].get("content", {}))
        self.do_text(f"elicitation: {answer['result']['action']} {names}".rstrip(), {})

    def do_request(self, request: Json, _step: Json) -> None:
        answer = self.request(request["method"], request.get("params", {}))
        self.do_text(json.dumps(answer, sort_keys=True), {})

    def do_equipment(self, _value: Any, step: Json) -> None:
        self.do_text(json.dumps(self.opened), step)

    def do_mcp(self, wanted: Json, step: Json) -> None:
        server = next(server for server in self.opened["mcpServers"] if server["name"] == wanted["server"])
        env = os.environ | {pair["name"]: pair["value"] for pair in server["env"]}
        command, pipe = [server["command"], *server["args"]], subprocess.PIPE
        with subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe, text=True) as process:
            told = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "a", "version": "1"}}
            self.ask_mcp(process, "initialize", told)
            tool = self.ask_mcp(process, "tools/list", {})["tools"][0]["name"]
            answer = self.ask_mcp(process, "tools/call", {"name": tool, "arguments": wanted.get("arguments", {})})
            process.communicate()
        self.do_text(answer["content"][0]["text"], step)

    def ask_mcp(self, process: Any, method: str, params: Json) -> Json:
        process.stdin.write(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}) + "\n")
        process.stdin.flush()
        result: Json = json.loads(process.stdout.readline())["result"]
        return result

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

    def do_until_file(self, path: str, _step: Json) -> None:
        while not (Path(path).exists() or self.cancelled.wait(0.01)):
            pass

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
