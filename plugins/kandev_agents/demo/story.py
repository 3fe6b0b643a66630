"""What is played: the directives of a prompt, or else the story of a small task."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

from . import script, workspace
from .script import Step
from .turn import Turn, text_content, tree
from .wire import INTERNAL_ERROR, Object, RpcError
from .workspace import ToolError

README = "README.md"


async def play(turn: Turn, prompt: str) -> str:
    """Play the prompt; answers ACP's stop reason. Raises `RpcError` where it says `fail:`."""
    steps = script.steps(prompt)
    if not steps:
        await tell(turn, prompt)
    planned = [step for step in steps if step.name in _PLANNED]
    if planned:
        await turn.plan(0, *map(str, planned))
    for step in steps:
        if step.name == "refuse":
            await turn.say("I will not do that.")
            return "refusal"
        await _PLAYED[step.name](turn, step)
        if step in planned:
            await turn.plan(planned.index(step) + 1)
    if planned and not any(step.name == "say" for step in steps):
        await turn.say(f"Not done: {', '.join(turn.failed)}." if turn.failed else "Done.")
    return "end_turn"


async def _write(turn: Turn, step: Step) -> None:
    await turn.edit(f"Write {step.path}", {step.path: _lines(step.text) + "\n"})


async def _append(turn: Turn, step: Step) -> None:
    try:
        old = workspace.read_or_none(turn.session.root, step.path) or ""
    except ToolError:
        old = ""  # the edit itself meets the same error, and shows it
    gap = "" if not old or old.endswith("\n") else "\n"
    await turn.edit(f"Add to {step.path}", {step.path: f"{old}{gap}{_lines(step.text)}\n"})


async def _read(turn: Turn, step: Step) -> None:
    await turn.read(step.text)


async def _flood(turn: Turn, step: Step) -> None:
    for number in range(int(step.text)):
        await turn.update("agent_message_chunk", content={"type": "text", "text": f"{number} "})
        if number % 100 == 0:
            await asyncio.sleep(0)  # a client that reads fast never holds the flood up, and its cancel must be read


async def _cost(turn: Turn, step: Step) -> None:
    turn.session.cost += float(step.text)


async def _ask(turn: Turn, step: Step) -> None:
    answer = await turn.ask_in_a_form(step.text)
    if answer is None:
        await turn.say("You did not answer.")
    else:
        await turn.say(f"You answered with {len(answer.split())} words.")


async def _exit(turn: Turn, step: Step) -> None:
    os._exit(int(float(step.text)) & 0xFF)


async def _fail(turn: Turn, step: Step) -> None:
    raise RpcError(INTERNAL_ERROR, step.text)


_PLAYED: dict[str, Callable[[Turn, Step], Awaitable[None]]] = {
    "write": _write,
    "append": _append,
    "read": _read,
    "run": lambda turn, step: turn.run(step.text),
    "say": lambda turn, step: turn.say(_lines(step.text)),
    "think": lambda turn, step: turn.think(_lines(step.text)),
    "ask": _ask,
    "help": lambda turn, step: turn.say(script.help_text()),
    "sleep": lambda turn, step: asyncio.sleep(float(step.text)),
    "flood": _flood,
    "cost": _cost,
    "exit": _exit,
    "fail": _fail,
}


_PLANNED = ("write", "append", "read", "run", "sleep", "flood")


def _lines(text: str) -> str:
    return text.replace("\\n", "\n")


@dataclass(frozen=True)
class Sight:
    """What the agent saw of the project: its files, and lines with a word of the prompt (file, line, text)."""

    names: list[str]
    hits: list[tuple[str, int, str]]


async def tell(turn: Turn, prompt: str) -> None:
    """Look around, read what the prompt is about, write a note about it, and say what was done."""
    title = next((line.strip("# ").strip() for line in prompt.splitlines() if line.strip()), "Task")[:120]
    await turn.think(f"I am asked: {title}. I have no model to think with, so I look, note what I see, and show you.")
    await turn.plan(0, "Look at the project", "Read what the task is about", "Write a note", "Say what was done")
    names = await _list(turn)
    await turn.plan(1)
    sight = Sight(names, await _search(turn, names, script.keywords(prompt)))
    read = await _read_some(turn, sight)
    await turn.plan(2)
    path = f"NOTES-{script.slug(title)}.md"
    done = await turn.edit(f"Write {path}", _texts(turn, path, title, prompt, sight))
    await turn.plan(3)
    looked = f"I looked at {len(names)} files" + (f", read {' and '.join(read)}" if read else "")
    if done:
        await turn.say(f"{looked}, and wrote what I saw to {path}.")
    else:
        await turn.say(f"{looked}. {path} is not written, so nothing is changed.")
    await turn.plan(4)


async def _list(turn: Turn) -> list[str]:
    names = workspace.files(turn.session.root)
    locations = [{"path": str(turn.session.root / name)} for name in names[:5]]
    found: Object = {"content": [text_content(tree(names))], "locations": locations, "rawOutput": {"files": len(names)}}
    await turn.look("List the files", "search", {"path": "."}, found)
    return names


async def _search(turn: Turn, names: list[str], words: list[str]) -> list[tuple[str, int, str]]:
    if not words:
        return []
    hits = workspace.search(turn.session.root, names, words)
    lines = "\n".join(f"{name}:{line}: {text}" for name, line, text in hits)
    locations = [{"path": str(turn.session.root / name), "line": line} for name, line, _ in hits]
    found: Object = {"content": [text_content(lines or "(nothing)")], "locations": locations}
    await turn.look(f"Search for {', '.join(words)}", "search", {"words": words}, found)
    return hits


async def _read_some(turn: Turn, sight: Sight) -> list[str]:
    wanted = [README] if README in sight.names else []
    wanted += [name for name, _, _ in sight.hits if name != README and not name.startswith("NOTES-")][:1]
    return [name for name in wanted or sight.names[:1] if await turn.read(name) is not None]


def _texts(turn: Turn, path: str, title: str, prompt: str, sight: Sight) -> dict[str, str]:
    """The files the story writes: the note, and a link to it in the README."""
    root = turn.session.root
    old, readme = _text(turn, path), _text(turn, README)
    asked = "\n".join(f"> {line}".rstrip() for line in prompt.strip().splitlines())
    if old is not None:
        return {path: f"{old.rstrip()}\n\n## Asked again\n\n{asked}\n"}
    texts = {path: _note(title, asked, sight)}
    link = f"[{title}]({path})"
    if readme is not None and link not in readme and not (root / README).is_symlink():
        texts[README] = f"{readme.rstrip()}\n\nNote: {link}\n".lstrip()
    return texts


def _text(turn: Turn, path: str) -> str | None:
    try:
        return workspace.read_or_none(turn.session.root, path)
    except ToolError:
        return None


def _note(title: str, asked: str, sight: Sight) -> str:
    kinds = Counter(PurePosixPath(name).suffix or "without suffix" for name in sight.names).most_common(5)
    seen = ", ".join(f"{count} {kind}" for kind, count in kinds) or "none"
    places = "\n".join(f"- `{name}`, line {line}: `{text.replace('`', '')}`" for name, line, text in sight.hits[:8])
    return (
        f"# {title}\n\n"
        "Written by the demo agent of kandev-host. It has no model: it looks, asks and writes, so that the whole way\n"
        "of a task can be seen.\n\n"
        f"## Asked\n\n{asked}\n\n## Seen\n\n{len(sight.names)} files: {seen}.\n" + (f"\n{places}\n" if places else "")
    )
