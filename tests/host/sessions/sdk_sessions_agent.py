"""A second agent built on the official SDK: what it was opened with, and its sessions. A program, not a test.

Its argument is a file that it writes the calls to.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import acp
from acp import schema


class SessionsAgent(acp.Agent):
    """Says in each turn which MCP servers and directories it was given."""

    def on_connect(self, conn: Any) -> None:
        self._conn = conn
        self._given = ""

    async def initialize(self, protocol_version: int, client_capabilities: Any = None, **_: Any) -> Any:
        sessions = schema.SessionCapabilities(
            list=schema.SessionListCapabilities(),
            close=schema.SessionCloseCapabilities(),
            resume=schema.SessionResumeCapabilities(),
            additional_directories=schema.SessionAdditionalDirectoriesCapabilities(),
        )
        return schema.InitializeResponse(
            protocol_version=protocol_version,
            agent_capabilities=schema.AgentCapabilities(
                session_capabilities=sessions, mcp_capabilities=schema.McpCapabilities(http=True)
            ),
        )

    async def new_session(self, cwd: str, additional_directories: Any = None, mcp_servers: Any = None, **_: Any) -> Any:
        self._take("new", mcp_servers, additional_directories)
        return schema.NewSessionResponse(session_id="sdk-1")

    async def resume_session(
        self, session_id: str, cwd: str, additional_directories: Any = None, mcp_servers: Any = None, **_: Any
    ) -> Any:
        self._take(f"resume {session_id}", mcp_servers, additional_directories)
        return schema.ResumeSessionResponse()

    async def list_sessions(self, cwd: str | None = None, cursor: str | None = None, **_: Any) -> Any:
        found = [schema.SessionInfo(session_id=f"sdk-{n}", cwd="/workspace", title=f"No. {n}") for n in (1, 2)]
        return schema.ListSessionsResponse(sessions=found, next_cursor=None if cursor else "more")

    async def close_session(self, session_id: str, **_: Any) -> Any:
        self._note(f"close {session_id}")
        return schema.CloseSessionResponse()

    async def prompt(self, prompt: Any, session_id: str, **_: Any) -> Any:
        await self._conn.session_update(session_id, acp.update_agent_message(acp.text_block(self._given)))
        return schema.PromptResponse(stop_reason="end_turn")

    async def cancel(self, session_id: str, **_: Any) -> None:
        return

    def _take(self, how: str, servers: Any, directories: Any) -> None:
        names = [type(server).__name__ + " " + server.name for server in servers or []]
        self._given = f"{how}: {', '.join(names)}; {', '.join(directories or [])}"

    def _note(self, call: str) -> None:
        with Path(sys.argv[1]).open("a") as file:
            file.write(call + "\n")


if __name__ == "__main__":
    asyncio.run(acp.run_agent(SessionsAgent(), use_unstable_protocol=True))
