"""A live agent is not prompted with what it does not take."""

from __future__ import annotations

from typing import Any

import pytest

from kandev_host.errors import ValidationFailed
from kandev_host.models import AgentInstance, Task, Turn
from kandev_host.protocol.actions.agents import AgentPrompt
from kandev_host.settings import Settings

pytestmark = pytest.mark.anyio


async def test_an_image_is_refused_by_its_field_before_anything_changes(open_shop: Any) -> None:
    async with open_shop(Settings()) as shop:
        await shop.plays({"text": "Done."})
        (agent,) = (await shop.house.store.find(AgentInstance)).rows
        before = await shop.house.store.get(Task, shop.task.id), await shop.house.store.count(Turn)
        image = {"type": "image", "data": "eA==", "mimeType": "image/png"}
        with pytest.raises(ValidationFailed) as caught:
            await shop.house.agents.prompt(shop.house.me, AgentPrompt(agent_id=agent.id, prompt=[image]))
        assert caught.value.details["field"] == "prompt[0].type"
        assert (await shop.house.store.get(Task, shop.task.id), await shop.house.store.count(Turn)) == before
