"""What a run looks like: notifications as lines on the terminal, and the end of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from kandev_host.cli.pulls import quarter, words
from kandev_host.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

    from kandev_host.cli.running.outcome import Outcome

_MARKS = {"completed": ("✓", "green"), "failed": ("✗", "red"), "in_progress": ("…", "cyan"), "pending": ("·", "dim")}
_PLAN = {"completed": "✓", "in_progress": "▸", "pending": "○"}
_SHOWN = ("acp.log", "acp.progress", "permission.resolved", "elicitation.resolved")
_OUTCOMES = {"completed": "green", "failed": "red", "blocked": "yellow", "cancelled": "yellow"}


class View(Protocol):
    """Where a run is shown: to a person, or as JSON lines."""

    def started(self, task: Mapping[str, Any], agent: Mapping[str, Any], url: str, attempts: int) -> None: ...

    def notification(self, message: Mapping[str, Any]) -> None: ...

    def note(self, text: str) -> None: ...

    def finished(self, outcome: Outcome) -> None: ...


class TerminalView:
    """Thoughts dim, messages plain, tool calls and plans as lines. Nothing is drawn over, so it can be piped.

    An error waits for the line that says what follows from it, which tells it too: it is shown once.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._speaker: str | None = None
        self._at_line_start = True
        self._plan: object = None
        self._tools: dict[str, tuple[str, str]] = {}
        self._error: Mapping[str, Any] = {}
        self._attempts = 1
        self._failed: object = None
        self._denied: set[tuple[Any, Any]] = set()
        self._pulled: dict[Any, tuple[Any, int]] = {}

    def started(self, task: Mapping[str, Any], agent: Mapping[str, Any], url: str, attempts: int) -> None:
        self._attempts = attempts
        where = f"{agent.get('agent_type')} in {agent.get('runtime')}"
        self._line(f"▶ {task.get('title')}  ({where}; task {task.get('id')} at {url})", "bold")
        if agent.get("network") == "host":
            self.note("  It has the network of this host, and reaches all that you do.")

    def note(self, text: str) -> None:
        self._line(text, "yellow")

    def notification(self, message: Mapping[str, Any]) -> None:
        payload = message.get("payload") or {}
        action = message.get("action")
        if action in _SHOWN:
            self._tell_failure()
        update = payload.get("update") or {}
        if action == "acp.log" and isinstance(update, dict):
            self._update(update, payload)
        elif action == "acp.progress":
            self._show_plan(update.get("entries") if isinstance(update, dict) else None, payload)
        elif action == "acp.error":
            self._failure(payload)
        elif action == "orchestrator.updated":
            self._attempt(payload.get("entry") or {}, str(message.get("timestamp")))
        elif action == "permission.resolved":
            permission = payload.get("permission") or {}
            call = permission.get("tool_call") or {}
            why = permission.get("reason") if permission.get("state") != "allowed" else None
            told = f"  permission {permission.get('state')}: {call.get('title') or call.get('toolCallId')}"
            self._line(told + (f" ({why})" if why else ""), "yellow")
        elif action == "network.decided":
            self._network(payload)
        elif action == "image.pulling":
            self._pulling(payload)
        elif action == "credential.used" and not payload.get("allowed"):
            told = f"  credential {payload.get('name')}: {payload.get('what') or payload.get('way')}"
            self._line(f"{told}: {payload.get('reason')}", "yellow")
        elif action == "elicitation.resolved":
            self._elicitation(payload.get("elicitation") or {})

    def end(self) -> None:
        """What is printed next begins a line of its own."""
        self._break()
        self._tell_failure()

    def finished(self, outcome: Outcome) -> None:
        self._break()
        self._tell_failure(unless=outcome.reason)
        if outcome.diff:
            self._show_diff(outcome)
        style = _OUTCOMES.get(outcome.result, "")
        self._line(outcome.verdict(), f"bold {style}")
        if withheld := outcome.withheld():
            self._line(withheld, "yellow")
        self._line(outcome.usage_line(), "dim")
        if outcome.workspace_hint:
            self._line(outcome.workspace_hint, "dim")

    def _network(self, payload: Mapping[str, Any]) -> None:
        """A denial, once: what was let through is what the user has allowed."""
        what = (payload.get("host"), payload.get("port"))
        if payload.get("allowed") or what in self._denied:
            return
        self._denied.add(what)
        how = payload.get("how_to_allow")
        self._line(f"  network: {payload.get('reason')}" + (f"; to allow it: {how}" if how else ""), "yellow")

    def _pulling(self, payload: Mapping[str, Any]) -> None:
        """At its beginning and its end, and for every quarter. Why one failed, the agent's end says."""
        image, sizes = payload.get("image"), (payload.get("bytes_done") or 0, payload.get("bytes_total") or 0)
        step = (payload.get("state"), quarter(*sizes))
        if payload.get("state") == "failed" or self._pulled.get(image) == step:
            return
        self._pulled[image] = step
        layers = (payload.get("layers_done") or 0, payload.get("layers_total") or 0)
        self._line(f"  image {image} {payload.get('state')}: {words(*layers, *sizes)}", "dim")

    def _failure(self, payload: Mapping[str, Any]) -> None:
        self._tell_failure(unless=payload.get("message"))
        self._error = payload

    def _tell_failure(self, unless: Any = None) -> None:
        error, self._error = self._error, {}
        if error and error.get("message") != unless:
            self._line(f"✗ {error.get('code')}: {error.get('message')}", "red")

    def _attempt(self, entry: Mapping[str, Any], at: str) -> None:
        """What a failed attempt means: `entry` of the queue, as it was `at` this time of the host."""
        if entry.get("state") != "waiting" or entry.get("failure") is None:
            return
        reason, not_before = entry.get("reason"), entry.get("not_before")
        if self._failed == (entry.get("attempt"), not_before):
            return  # something else of the entry was changed
        self._failed = (entry.get("attempt"), not_before)
        self._tell_failure(unless=reason)
        wait = datetime.fromisoformat(not_before) - datetime.fromisoformat(at) if not_before else timedelta()
        counted = f"attempt {entry.get('attempt')} of {self._attempts} failed: "
        told = f"✗ {'' if entry.get('failure') == 'host_died' else counted}{reason}"
        self._line(f"{told.removesuffix('.')}. Trying again in {max(wait.total_seconds(), 0):.1f} s.", "red")

    def _update(self, update: Mapping[str, Any], payload: Mapping[str, Any]) -> None:
        kind = update.get("sessionUpdate")
        if kind in ("agent_message_chunk", "agent_thought_chunk"):
            content = update.get("content") or {}
            text = content.get("text") if isinstance(content, dict) else None
            thought = kind == "agent_thought_chunk"
            self._flow(str(kind), str(text or f"[{content.get('type')}]"), "dim italic" if thought else "")
        elif kind in ("tool_call", "tool_call_update"):
            self._show_tool(update)
        elif kind is None and payload.get("message"):
            self._line(f"  {payload['message']}", "dim")

    def _show_tool(self, update: Mapping[str, Any]) -> None:
        call = str(update.get("toolCallId"))
        title, status = self._tools.get(call, ("", "pending"))
        now = (str(update.get("title") or title or call), str(update.get("status") or status))
        if self._tools.get(call) == now:
            return
        self._tools[call] = now
        mark, style = _MARKS.get(now[1], ("·", ""))
        self._line(f"  {mark} {now[0]}" + ("" if now[1] in _MARKS and now[1] != "failed" else f" ({now[1]})"), style)

    def _elicitation(self, elicitation: Mapping[str, Any]) -> None:
        if elicitation.get("completed_at"):
            self._line(f"  done with: {elicitation.get('url')}", "dim")
        else:
            self._line(f"  answer {elicitation.get('state')}: {elicitation.get('message')}", "yellow")

    def _show_plan(self, entries: Any, payload: Mapping[str, Any]) -> None:
        if not isinstance(entries, list):
            if payload.get("message"):
                self._line(f"  {payload['message']}", "blue")
            return
        if entries == self._plan:
            return
        self._plan = entries
        self._line("  plan:", "blue")
        for entry in entries:
            if isinstance(entry, dict):
                self._line(f"    {_PLAN.get(str(entry.get('status')), '○')} {entry.get('content')}", "blue")

    def _show_diff(self, outcome: Outcome) -> None:
        from rich.syntax import Syntax

        text = printable(outcome.diff or "", lines=True).rstrip("\n")
        self._console.print(Syntax(text, "diff", background_color="default", theme="ansi_dark", word_wrap=False))
        if outcome.truncated:
            self._line("  (the diff is longer; this is its beginning)", "yellow")
        self._line(f"  {outcome.files} file(s), +{outcome.additions} -{outcome.deletions}", "bold")

    def _flow(self, speaker: str, text: str, style: str) -> None:
        if speaker != self._speaker:
            self._break()
        self._speaker = speaker
        self._print(printable(text, lines=True), style)
        self._at_line_start = text.endswith("\n")

    def _line(self, text: str, style: str = "") -> None:
        self._break()
        # What has several lines (an agent's last words, a script) goes on behind a bar: it cannot pass for ours.
        shown = printable(text.rstrip(), lines=True).replace("\n", "\n    | ")
        self._print(shown + "\n", style)

    def _break(self) -> None:
        if not self._at_line_start:
            self._print("\n", "")
        self._at_line_start = True
        self._speaker = None

    def _print(self, text: str, style: str) -> None:
        from rich.text import Text

        self._console.print(Text(text, style=style), end="", soft_wrap=True)


class JsonView:
    """Every notification as it came, one a line, and a summary object at the end."""

    def __init__(self) -> None:
        from kandev_host.cli.output import emit

        self._emit = emit

    def started(self, task: Mapping[str, Any], agent: Mapping[str, Any], url: str, attempts: int) -> None:
        self._emit({"type": "started", "task": task, "agent": agent, "url": url, "attempts": attempts})

    def notification(self, message: Mapping[str, Any]) -> None:
        self._emit(message)

    def note(self, text: str) -> None:
        self._emit({"type": "note", "message": text})

    def finished(self, outcome: Outcome) -> None:
        self._emit({"type": "summary", **outcome.summary()})
