"""An ACP agent built on the official SDK: it greets, and leaves the greeting in a file."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import acp
from acp.schema import InitializeResponse, NewSessionResponse, PromptResponse


class Hello:
    """Holds one session at a time."""

    def on_connect(self, conn: acp.Client) -> None:
        self._client = conn

    async def initialize(self, protocol_version: int, **_: Any) -> InitializeResponse:
        return InitializeResponse(protocol_version=acp.PROTOCOL_VERSION)

    async def new_session(self, cwd: str, **_: Any) -> NewSessionResponse:
        self._folder = Path(cwd)
        return NewSessionResponse(session_id="hello")

    async def prompt(self, session_id: str, prompt: list[Any], **_: Any) -> PromptResponse:
        greeting = f"Hello! You said: {prompt[0].text.strip()}"
        (self._folder / "HELLO.txt").write_text(greeting + "\n")
        await self._client.session_update(session_id, acp.update_agent_message_text(greeting))
        return PromptResponse(stop_reason="end_turn")

    async def cancel(self, session_id: str, **_: Any) -> None:
        """A greeting is over before anybody could cancel it."""


def main() -> None:
    asyncio.run(acp.run_agent(Hello()))  # type: ignore[arg-type]
