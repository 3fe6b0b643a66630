"""An agent built on the official SDK that wants a log-in, and has options. A program of its own, not a test."""

from __future__ import annotations

import asyncio
from typing import Any

import acp
from acp import schema


class OptionsAgent(acp.Agent):
    """Refuses a session until somebody has logged in; tells its options in a message."""

    def on_connect(self, conn: Any) -> None:
        self._conn = conn
        self._logged_in = False
        self._model = "small"
        self._fast = False

    async def initialize(self, protocol_version: int, client_capabilities: Any = None, **_: Any) -> Any:
        assert client_capabilities.auth.terminal
        assert client_capabilities.session.config_options.boolean is not None
        return schema.InitializeResponse(
            protocol_version=protocol_version,
            agent_capabilities=schema.AgentCapabilities(),
            auth_methods=[
                schema.AuthMethodAgent(id="key", name="Key"),
                schema.TerminalAuthMethod(
                    id="cli", name="Terminal", type="terminal", args=["--login"], env={"HOW": "here"}
                ),
            ],
        )

    async def authenticate(self, method_id: str, **_: Any) -> Any:
        assert method_id == "key"
        self._logged_in = True
        return schema.AuthenticateResponse()

    async def new_session(self, cwd: str, mcp_servers: Any = None, **_: Any) -> Any:
        if not self._logged_in:
            raise acp.RequestError.auth_required()
        return schema.NewSessionResponse(session_id="sdk-2", config_options=self._options())

    async def set_config_option(self, config_id: str, session_id: str, value: str | bool, **_: Any) -> Any:
        assert session_id == "sdk-2"
        if config_id == "fast":
            assert isinstance(value, bool)
            self._fast = value
        else:
            assert config_id == "llm"
            self._model = str(value)
        return schema.SetSessionConfigOptionResponse(config_options=self._options())

    def _options(self) -> Any:
        values = [schema.SessionConfigSelectOption(value=value, name=value) for value in ("small", "big")]
        return [
            schema.SessionConfigOptionSelect(
                id="llm", name="Model", category="model", type="select", current_value=self._model, options=values
            ),
            schema.SessionConfigOptionBoolean(id="fast", name="Fast", type="boolean", current_value=self._fast),
        ]

    async def prompt(self, prompt: Any, session_id: str, **_: Any) -> Any:
        update = schema.SessionInfoUpdate(session_update="session_info_update", title="A title")
        await self._conn.session_update(session_id, update)
        told = f"{self._model} {self._fast}"
        await self._conn.session_update(session_id, acp.update_agent_message(acp.text_block(told)))
        return schema.PromptResponse(stop_reason="end_turn")

    async def cancel(self, session_id: str, **_: Any) -> None:
        return


if __name__ == "__main__":
    asyncio.run(acp.run_agent(OptionsAgent(), use_unstable_protocol=True))
