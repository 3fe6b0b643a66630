"""What a prompt may hold is what its agent takes."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from acp import schema

from kandev_host.errors import ValidationFailed
from kandev_host.sessions.prompt_content import fit_prompt

pytestmark = pytest.mark.anyio

DATA = base64.b64encode(b"bytes").decode()
TEXT = {"type": "text", "text": "Look."}
LINK = {"type": "resource_link", "uri": "file:///workspace/a", "name": "a"}
IMAGE = {"type": "image", "data": DATA, "mimeType": "image/png"}
AUDIO = {"type": "audio", "data": DATA, "mimeType": "audio/wav"}
NOTES = {"type": "resource", "resource": {"uri": "attachment:///notes.md", "text": "Be brief."}}
BLOB = {"type": "resource", "resource": {"uri": "attachment:///a.bin", "blob": DATA}}
ALL = {"promptCapabilities": {"image": True, "audio": True, "embeddedContext": True}}


def test_an_agent_that_takes_everything_is_sent_it_as_it_is() -> None:
    blocks: list[dict[str, Any]] = [TEXT, LINK, IMAGE, AUDIO, NOTES, BLOB]
    assert fit_prompt(blocks, ALL) == blocks
    schema.PromptRequest.model_validate({"sessionId": "s", "prompt": blocks})


@pytest.mark.parametrize("capabilities", [None, {}, {"promptCapabilities": None}, {"promptCapabilities": {"image": 1}}])
def test_text_and_links_are_for_every_agent_and_an_embedded_text_becomes_text(capabilities: Any) -> None:
    told = {"type": "text", "text": "attachment:///notes.md:\n\nBe brief."}
    assert fit_prompt([TEXT, LINK, NOTES], capabilities) == [TEXT, LINK, told]


@pytest.mark.parametrize(
    ("block", "field"), [(IMAGE, "prompt[1].type"), (AUDIO, "prompt[1].type"), (BLOB, "prompt[1].resource")]
)
def test_what_an_agent_does_not_take_is_refused_by_its_field(block: Any, field: str) -> None:
    with pytest.raises(ValidationFailed) as caught:
        fit_prompt([TEXT, block], {"promptCapabilities": {}})
    assert caught.value.details["field"] == field


async def test_a_prompt_that_turns_out_not_to_be_taken_fails_its_turn(world: Any) -> None:
    agent_id = await world.start()
    await world.until_idle()
    await world.supervisor.prompt(agent_id, [IMAGE], "user")
    told = await world.until("acp.error")
    assert "takes no image" in told["message"]
    assert (await world.turn()).state == "failed"


async def test_an_image_reaches_the_agent_that_takes_one(world: Any, tmp_path: Path) -> None:
    log = tmp_path / "lines"
    agent_id = await world.start({"initialize": {"agentCapabilities": ALL}, "log": str(log)})
    await world.until_idle()
    await world.supervisor.prompt(agent_id, [IMAGE], "user")
    await world.until("acp.result")
    (sent,) = [json.loads(line) for line in log.read_text().splitlines() if "session/prompt" in line]
    assert sent["params"]["prompt"] == [IMAGE]
