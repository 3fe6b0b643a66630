"""A released agent asks in a form: what a person chose reaches the model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from kandev_host.client import Client

pytestmark = [pytest.mark.anyio, pytest.mark.agents]
DEADLINE_S = 60
QUESTION = {
    "question": "Which colour?",
    "header": "Colour",
    "multiSelect": False,
    "options": [{"label": "Red", "description": "warm"}, {"label": "Blue", "description": "cold"}],
}


async def until(client: Client, action: str) -> dict[str, Any]:
    with anyio.fail_after(DEADLINE_S):
        async for message in client.notifications():
            if message.action == action:
                return dict(message.payload)
            if message.action == "permission.requested":  # to ask at all
                options = message.payload["permission"]["options"]
                option_id = next(each["optionId"] for each in options if each["kind"] == "allow_once")
                answer = {"permission_id": message.payload["permission"]["id"], "option_id": option_id}
                await client.call("permission.respond", answer)
    raise AssertionError(f"the socket closed before {action}")


async def test_claude_asks_in_a_form_and_goes_on_with_what_was_chosen(
    host: Any, fake_models: Any, repository: Callable[..., Path]
) -> None:
    steps = [{"call": "AskUserQuestion", "args": {"questions": [QUESTION]}}, {"text": "MODEL-DONE"}]
    async with Client.connect(host.url, host.token) as client:
        board = (await client.call("board.create", {"name": "Ask"}))["board"]
        fields = {"board_id": board["id"], "title": "Ask", "description": fake_models.script(*steps)}
        task = (await client.call("task.create", fields | {"repository_url": str(repository())}))["task"]
        await client.call("orchestrator.start", {"task_id": task["id"], "agent_type": "claude"})
        asked = (await until(client, "elicitation.requested"))["elicitation"]
        assert asked["mode"] == "form"
        fields = asked["requested_schema"]["properties"]
        name, field = next((name, field) for name, field in fields.items() if field.get("oneOf"))
        assert [option["title"].split()[0] for option in field["oneOf"]] == ["Red", "Blue"]
        wrong = {"elicitation_id": asked["id"], "outcome": "accept", "content": {name: "Green"}}
        with pytest.raises(Exception, match="none of the choices"):
            await client.call("elicitation.respond", wrong)
        chosen = wrong | {"content": {name: field["oneOf"][1]["const"]}}
        assert (await client.call("elicitation.respond", chosen))["elicitation"]["answered"] == [name]
        result = await until(client, "acp.result")
    assert (result["status"], "MODEL-DONE" in result["summary"]) == ("completed", True)
