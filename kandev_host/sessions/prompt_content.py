"""A prompt as far as its agent takes it (ACP: PromptCapabilities). Text and links are for every agent."""

from __future__ import annotations

from typing import Any

from kandev_host.errors import ValidationFailed
from kandev_host.protocol.acp import Json, text_block

_NEEDED = {"image": "image", "audio": "audio"}


def fit_prompt(blocks: list[Json], capabilities: Json | None, field: str = "prompt") -> list[Json]:
    """The blocks to send; an embedded text becomes a text block for agents that take none embedded.

    Raises `ValidationFailed`, naming the block, for an image, a sound or other data that the agent does not take.
    """
    offered = (capabilities or {}).get("promptCapabilities")
    takes: dict[str, Any] = offered if isinstance(offered, dict) else {}
    return [_fitted(block, takes, f"{field}[{index}]") for index, block in enumerate(blocks)]


def _fitted(block: Json, takes: dict[str, Any], path: str) -> Json:
    kind = block.get("type")
    if kind in _NEEDED and takes.get(_NEEDED[kind]) is not True:
        raise ValidationFailed(f"{path}.type", f"This agent takes no {kind} in a prompt; describe it, or name a file")
    if kind != "resource" or takes.get("embeddedContext") is True:
        return block
    resource = block.get("resource")
    text = resource.get("text") if isinstance(resource, dict) else None
    if not isinstance(resource, dict) or not isinstance(text, str):
        raise ValidationFailed(f"{path}.resource", "This agent takes no embedded files, and this one is no text")
    return text_block(f"{resource.get('uri', '')}:\n\n{text}")
