"""What a prompt asks for: the directives in it, one a line, or nothing but words."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .wire import Object

# name → (hint of its input, what it does); shown to the client as ACP slash commands too.
DIRECTIVES = {
    "write": ("PATH: TEXT", "Write a file; \\n in the text begins a new line"),
    "append": ("PATH: TEXT", "Add a line to a file"),
    "read": ("PATH", "Read a file"),
    "run": ("COMMAND", "Run a shell command in the workspace"),
    "say": ("TEXT", "Say it"),
    "think": ("TEXT", "Think it"),
    "ask": ("TEXT", "Ask you a question in a form, and count the words of the answer"),
    "sleep": ("SECONDS", "Wait, as a model would"),
    "flood": ("COUNT", "Send so many message chunks"),
    "cost": ("AMOUNT", "Report so many US dollars spent"),
    "fail": ("TEXT", "Answer the prompt with an error"),
    "refuse": ("", "End the turn with stop reason refusal"),
    "exit": ("CODE", "End the agent's process at once"),
    "help": ("", "List these directives"),
}
_FORMS = {"PATH: TEXT": r" (?P<path>[^\s:]+): ?(?P<text>.*)", "": r"(?P<text>)", "COUNT": r" (?P<text>\d+)"}
_NUMBER = r" (?P<text>\d+(\.\d+)?)"
_FORMS.update(dict.fromkeys(("SECONDS", "AMOUNT", "CODE"), _NUMBER))
_PATTERNS = {
    name: re.compile(f"/?{name}{_FORMS.get(hint, r': ?(?P<text>.+)')}") for name, (hint, _) in DIRECTIVES.items()
}
_COMMON = re.compile("the|and|for|with|this|that|from|into|please|make|should|could|would|have|has|not|you|all|any")


@dataclass(frozen=True, eq=False)
class Step:
    """One directive."""

    name: str
    text: str = ""
    path: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.path or self.text}"[:80]


def steps(prompt: str) -> list[Step]:
    """The directives of a prompt, in order; empty when it has none, and the words are for the story."""
    found = []
    for line in prompt.splitlines():
        for name, pattern in _PATTERNS.items():
            match = pattern.fullmatch(line.strip())
            if match:
                parts = match.groupdict()
                found.append(Step(name, parts["text"] or "", parts.get("path") or ""))
                break
    return found


def commands() -> list[Object]:
    """ACP AvailableCommand of each directive."""
    return [
        {"name": name, "description": text, **({"input": {"hint": hint}} if hint else {})}
        for name, (hint, text) in DIRECTIVES.items()
    ]


def help_text() -> str:
    """The directives as a Markdown list."""
    lines = (f"- `{name}{_separator(hint)}{hint}`: {text}" for name, (hint, text) in DIRECTIVES.items())
    return "A prompt with one of these on a line of its own is played line by line:\n\n" + "\n".join(lines) + "\n"


def _separator(hint: str) -> str:
    return "" if not hint else " " if hint in _FORMS else ": "


def keywords(prompt: str) -> list[str]:
    """Words of the prompt worth searching for, longest first."""
    words = {word for word in re.findall(r"[a-z][a-z0-9_]{2,}", prompt.lower()) if not _COMMON.fullmatch(word)}
    return sorted(words, key=lambda word: (-len(word), word))[:5]


def slug(prompt: str) -> str:
    """A file name's worth of the prompt's first words."""
    words = re.findall(r"[a-z0-9]+", prompt.lower())[:6]
    return "-".join(words)[:48].strip("-") or "task"


def text_of(blocks: object) -> str:
    """The text of ACP content blocks; of a linked resource its name, of an embedded one its text."""
    parts = []
    for block in blocks if isinstance(blocks, list) else []:
        if not isinstance(block, dict):
            continue
        resource = block.get("resource")
        part = block.get("text") or block.get("name") or (resource.get("text") if isinstance(resource, dict) else None)
        if isinstance(part, str):
            parts.append(part)
    return "\n".join(parts)
