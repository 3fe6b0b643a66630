"""From what a client sends as a prompt to ACP content blocks (ACP: ContentBlock)."""

from __future__ import annotations

from typing import Any

from kandev_host.errors import ValidationFailed
from kandev_host.models import Task

Block = dict[str, Any]

_NEEDED: dict[str, tuple[str, ...]] = {
    "text": ("text",),
    "image": ("data", "mimeType"),
    "audio": ("data", "mimeType"),
    "resource_link": ("uri", "name"),
    "resource": (),
}


def to_blocks(prompt: str | list[Block], field: str = "prompt") -> list[Block]:
    """Text becomes one block; blocks are checked for what their type needs. Raises `ValidationFailed`."""
    if isinstance(prompt, str):
        if not prompt.strip():
            raise ValidationFailed(field, "The prompt is empty")
        return [{"type": "text", "text": prompt}]
    for index, block in enumerate(prompt):
        _check(block, f"{field}[{index}]")
    return prompt


def _check(block: Block, path: str) -> None:
    kind = block.get("type")
    needed = _NEEDED.get(kind) if isinstance(kind, str) else None
    if needed is None:
        raise ValidationFailed(f"{path}.type", f"A content block is one of {', '.join(_NEEDED)}")
    for name in needed:
        if not isinstance(block.get(name), str):
            raise ValidationFailed(f"{path}.{name}", f"A block of type {kind} needs the text {name}")
    if kind == "resource" and not isinstance(block.get("resource"), dict):
        raise ValidationFailed(f"{path}.resource", "A block of type resource needs an object resource")


def task_prompt(task: Task) -> list[Block]:
    """What an orchestrated run is told: the title, and the description, unless one of them says it all."""
    title, description = task.title.strip(), task.description.strip()
    return to_blocks(description if description.startswith(title) else f"{title}\n\n{description}".strip())
