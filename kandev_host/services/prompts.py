"""From what a client sends as a prompt to ACP content blocks (ACP: ContentBlock)."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from kandev_host.errors import PayloadTooLarge, ValidationFailed
from kandev_host.models import Task

Block = dict[str, Any]

TEXT_CHARS = 512 << 10
DATA_BYTES = 8 << 20
NAME_CHARS = 8192
_NEEDED: dict[str, tuple[str, ...]] = {
    "text": ("text",),
    "image": ("data", "mimeType"),
    "audio": ("data", "mimeType"),
    "resource_link": ("uri", "name"),
    "resource": (),
}
_MIME_TYPE = re.compile(r"[\w.+-]{1,100}/[\w.+-]{1,100}(;.{0,200})?", re.ASCII)


def to_blocks(prompt: str | list[Block], field: str = "prompt") -> list[Block]:
    """Text becomes one block; blocks are checked for what their type needs.

    Raises `ValidationFailed`, and `PayloadTooLarge` for a text or data beyond their bounds.
    """
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
    if kind == "resource":
        _check_resource(block.get("resource"), f"{path}.resource")
    elif kind in ("image", "audio"):
        if not block["mimeType"].startswith(f"{kind}/"):
            raise ValidationFailed(f"{path}.mimeType", f"A block of type {kind} has a MIME type {kind}/…")
        _check_data(block["data"], f"{path}.data")
    _check_texts(block, path)


def _check_resource(resource: Any, path: str) -> None:
    """ACP: TextResourceContents or BlobResourceContents."""
    if not isinstance(resource, dict):
        raise ValidationFailed(path, "A block of type resource needs an object resource")
    if not isinstance(resource.get("uri"), str):
        raise ValidationFailed(f"{path}.uri", "A resource needs the text uri")
    if isinstance(resource.get("text"), str) == isinstance(resource.get("blob"), str):
        raise ValidationFailed(path, "A resource has either a text or a blob")
    if isinstance(resource.get("blob"), str):
        _check_data(resource["blob"], f"{path}.blob")
    _check_texts(resource, path)


def _check_texts(block: Block, path: str) -> None:
    bounds = {"text": TEXT_CHARS, "uri": NAME_CHARS, "name": NAME_CHARS}
    for name, limit in bounds.items():
        value = block.get(name)
        if isinstance(value, str) and len(value) > limit:
            raise PayloadTooLarge(f"{name} has more than {limit} characters", limit, f"{path}.{name}")
    mime_type = block.get("mimeType")
    if mime_type is not None and not (isinstance(mime_type, str) and _MIME_TYPE.fullmatch(mime_type)):
        raise ValidationFailed(f"{path}.mimeType", "A MIME type is written as in image/png")


def _check_data(data: str, path: str) -> None:
    if len(data) > DATA_BYTES * 4 // 3 + 4:
        raise PayloadTooLarge("The data is too large", DATA_BYTES, path)
    try:
        base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValidationFailed(path, f"The data is not base64: {error}") from error


def task_prompt(task: Task) -> list[Block]:
    """What an orchestrated run is told: the title, and the description, unless one of them says it all."""
    title, description = task.title.strip(), task.description.strip()
    return to_blocks(description if description.startswith(title) else f"{title}\n\n{description}".strip())
