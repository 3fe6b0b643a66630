"""An agent built on the official SDK, as an independent other side. A program of its own, not a test."""

from __future__ import annotations

import asyncio
from typing import Any

import acp
from acp import schema


class SdkAgent(acp.Agent):
    """Asks, writes and says goodbye, in the SDK's own words."""

    def on_connect(self, conn: Any) -> None:
        self._conn = conn

    async def initialize(self, protocol_version: int, client_capabilities: Any = None, **_: Any) -> Any:
        capabilities = client_capabilities
        self._offered = capabilities.terminal
        assert capabilities.fs.read_text_file == capabilities.fs.write_text_file == self._offered
        return schema.InitializeResponse(
            protocol_version=protocol_version,
            agent_capabilities=schema.AgentCapabilities(load_session=False),
            auth_methods=[schema.AuthMethodAgent(id="key", name="Key")],
        )

    async def authenticate(self, method_id: str, **_: Any) -> Any:
        assert method_id == "key"
        return schema.AuthenticateResponse()

    async def new_session(self, cwd: str, mcp_servers: Any = None, **_: Any) -> Any:
        assert (cwd, mcp_servers) == ("/workspace", [])
        ask = schema.SessionMode(id="ask", name="Ask")
        auto = schema.SessionMode(id="auto", name="Auto")
        modes = schema.SessionModeState(current_mode_id="auto", available_modes=[auto, ask])
        return schema.NewSessionResponse(session_id="sdk-1", modes=modes)

    async def set_session_mode(self, mode_id: str, session_id: str, **_: Any) -> Any:
        assert (mode_id, session_id) == ("ask", "sdk-1")
        return schema.SetSessionModeResponse()

    async def prompt(self, prompt: Any, session_id: str, **_: Any) -> Any:
        call = acp.start_tool_call("t1", "Write a file", kind="edit", status="pending")
        await self._conn.session_update(session_id, call)
        options = [
            schema.PermissionOption(option_id="n", name="No", kind="reject_once"),
            schema.PermissionOption(option_id="y", name="Yes", kind="allow_once"),
        ]
        answer = await self._conn.request_permission(
            session_id=session_id, tool_call=acp.update_tool_call("t1"), options=options
        )
        if self._offered:
            await self._use_what_is_offered(session_id)
        chosen = getattr(answer.outcome, "option_id", "cancelled")
        await self._conn.session_update(session_id, acp.update_tool_call("t1", status="completed"))
        await self._conn.session_update(
            session_id, acp.update_agent_message(acp.text_block(f"{prompt[0].text} {chosen}"))
        )
        usage = schema.Usage(total_tokens=9, input_tokens=7, output_tokens=2)
        return schema.PromptResponse(stop_reason="end_turn", usage=usage)

    async def _use_what_is_offered(self, session_id: str) -> None:
        """Files and a terminal of the host, in one place."""
        path = "/workspace/notes/sdk.txt"
        await self._conn.write_text_file(session_id=session_id, path=path, content="one\ntwo\nthree\n")
        part = await self._conn.read_text_file(session_id=session_id, path=path, line=2, limit=1)
        assert part.content == "two\n"
        variable = schema.EnvVariable(name="WORD", value="sdk")
        terminal = await self._conn.create_terminal(
            session_id=session_id,
            command="sh",
            args=["-c", 'cat "$WORD.txt"; exit 3'],
            cwd="/workspace/notes",
            env=[variable],
        )
        ids = {"session_id": session_id, "terminal_id": terminal.terminal_id}
        ended = await self._conn.wait_for_terminal_exit(**ids)
        output = await self._conn.terminal_output(**ids)
        assert (ended.exit_code, output.output, output.truncated) == (3, "one\ntwo\nthree\n", False)
        await self._conn.kill_terminal(**ids)
        await self._conn.release_terminal(**ids)

    async def cancel(self, session_id: str, **_: Any) -> None:
        return


if __name__ == "__main__":
    asyncio.run(acp.run_agent(SdkAgent(), use_unstable_protocol=True))
