"""An agent built on the official SDK that has every feature of ACP v1. A program of its own, not a test.

Its argument says how it takes a session up again: resume or load. It keeps in its home what was called.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import acp
from acp import helpers, schema
from acp.agent import connection

CALLS = Path.home() / "calls"
WAY = sys.argv[1]
SESSION = "sdk-1"


def routes(agent: Any, **how: Any) -> Any:
    """Those of the SDK, and the two methods of its schema that it has no route for yet."""
    router = build(agent, **how)
    router.route_request("session/delete", schema.DeleteSessionRequest, agent, "delete_session")
    router.route_request("logout", schema.LogoutRequest, agent, "logout")
    return router


build = connection.build_agent_router
connection.build_agent_router = routes


class EveryAgent(acp.Agent):
    """Wants a log-in, has modes and options, asks, writes, runs, and tells what it was given."""

    def on_connect(self, conn: Any) -> None:
        self._conn = conn
        self._logged_in = CALLS.exists()
        self._set: dict[str, Any] = {"mode": "auto", "llm": "small", "fast": False}
        self._given = ""

    # --- before and around a session --------------------------------------------------------------------------------

    async def initialize(self, protocol_version: int, client_capabilities: Any = None, **_: Any) -> Any:
        can = client_capabilities
        offered = (can.fs.read_text_file, can.fs.write_text_file, can.terminal, can.auth.terminal)
        assert offered == (True, True, True, True)
        assert None not in (can.session.config_options.boolean, can.elicitation.form, can.elicitation.url)
        sessions = schema.SessionCapabilities(
            list=schema.SessionListCapabilities(),
            close=schema.SessionCloseCapabilities(),
            delete=schema.SessionDeleteCapabilities(),
            resume=schema.SessionResumeCapabilities() if WAY == "resume" else None,
            additional_directories=schema.SessionAdditionalDirectoriesCapabilities(),
        )
        capabilities = schema.AgentCapabilities(
            load_session=WAY == "load",
            session_capabilities=sessions,
            mcp_capabilities=schema.McpCapabilities(http=True),
            prompt_capabilities=schema.PromptCapabilities(image=True, audio=True, embedded_context=True),
            auth=schema.AgentAuthCapabilities(logout=schema.LogoutCapabilities()),
        )
        return schema.InitializeResponse(
            protocol_version=protocol_version,
            agent_capabilities=capabilities,
            auth_methods=[
                schema.AuthMethodAgent(id="key", name="Key"),
                schema.TerminalAuthMethod(id="cli", name="Terminal", type="terminal", args=["--login"]),
            ],
        )

    async def authenticate(self, method_id: str, **_: Any) -> Any:
        self._note(f"authenticate {method_id}")
        self._logged_in = True
        return schema.AuthenticateResponse()

    async def logout(self, **_: Any) -> Any:
        self._note("logout")
        self._logged_in = False
        return schema.LogoutResponse()

    async def new_session(self, cwd: str, **given: Any) -> Any:
        self._take("new", given)
        return schema.NewSessionResponse(session_id=SESSION, config_options=self._options())

    async def resume_session(self, session_id: str, cwd: str, **given: Any) -> Any:
        self._take(f"resume {session_id}", given)
        return schema.ResumeSessionResponse(config_options=self._options())

    async def load_session(self, session_id: str, cwd: str, **given: Any) -> Any:
        self._take(f"load {session_id}", given)
        await self._say(acp.update_agent_message_text("of the replay"))
        return schema.LoadSessionResponse(config_options=self._options())

    async def list_sessions(self, cwd: str | None = None, cursor: str | None = None, **_: Any) -> Any:
        found = [schema.SessionInfo(session_id=name, cwd="/workspace", title=name) for name in (SESSION, "sdk-0")]
        return schema.ListSessionsResponse(sessions=found)

    async def close_session(self, session_id: str, **_: Any) -> Any:
        self._note(f"close {session_id}")
        return schema.CloseSessionResponse()

    async def delete_session(self, session_id: str, **_: Any) -> Any:
        self._note(f"delete {session_id}")
        return schema.DeleteSessionResponse()

    async def set_config_option(self, config_id: str, session_id: str, value: str | bool, **_: Any) -> Any:
        assert (session_id, isinstance(value, bool)) == (SESSION, config_id == "fast")
        self._set[config_id] = value
        return schema.SetSessionConfigOptionResponse(config_options=self._options())

    def _options(self) -> Any:
        def select(id: str, category: str, *values: str) -> Any:
            choices = [schema.SessionConfigSelectOption(value=value, name=value) for value in values]
            now = self._set[id]
            return schema.SessionConfigOptionSelect(
                id=id, name=id, category=category, type="select", current_value=now, options=choices
            )

        fast = schema.SessionConfigOptionBoolean(
            id="fast", name="Fast", type="boolean", current_value=self._set["fast"]
        )
        return [select("mode", "mode", "auto", "ask"), select("llm", "model", "small", "big"), fast]

    def _take(self, how: str, given: dict[str, Any]) -> None:
        if not self._logged_in:
            raise acp.RequestError.auth_required()
        servers = [f"{type(server).__name__} {server.name}" for server in given.get("mcp_servers") or []]
        self._given = "; ".join([how, *servers, *(given.get("additional_directories") or [])])

    def _note(self, call: str) -> None:
        with CALLS.open("a") as file:
            file.write(call + "\n")

    # --- a turn -----------------------------------------------------------------------------------------------------

    async def _say(self, update: Any) -> None:
        await self._conn.session_update(SESSION, update)

    async def prompt(self, prompt: Any, session_id: str, **_: Any) -> Any:
        text = prompt[0].text
        if text == "tell":
            told = f"{self._given}; {self._set}; {CALLS.read_text().split()}"
        elif await self._asked() != "y":
            return schema.PromptResponse(stop_reason="cancelled")
        else:
            await self._tell_state()
            await self._use_files_and_a_terminal()
            told = ", ".join(type(block).__name__ for block in prompt) + "; " + await self._fill_in()
        await self._say(acp.update_agent_message_text(told))
        usage = schema.Usage(total_tokens=9, input_tokens=7, output_tokens=2)
        return schema.PromptResponse(stop_reason="end_turn", usage=usage)

    async def _asked(self) -> str:
        diff = acp.tool_diff_content("/workspace/notes/sdk.txt", "one\n")
        await self._say(acp.start_tool_call("t1", "Write notes", kind="edit", status="pending", content=[diff]))
        options = [
            schema.PermissionOption(option_id="n", name="No", kind="reject_once"),
            schema.PermissionOption(option_id="y", name="Yes", kind="allow_once"),
        ]
        answer = await self._conn.request_permission(
            session_id=SESSION, tool_call=acp.update_tool_call("t1"), options=options
        )
        await self._say(acp.update_tool_call("t1", status="completed"))
        return str(getattr(answer.outcome, "option_id", "cancelled"))

    async def _tell_state(self) -> None:
        await self._say(acp.update_agent_thought_text("Let me see."))
        await self._say(acp.update_plan([acp.plan_entry("Write notes", status="completed")]))
        await self._say(helpers.update_available_commands([schema.AvailableCommand(name="fix", description="Fix it")]))
        await self._say(schema.SessionInfoUpdate(session_update="session_info_update", title="Notes"))
        cost = schema.Cost(amount=0.25, currency="USD")
        await self._say(schema.UsageUpdate(session_update="usage_update", used=5, size=100, cost=cost))

    async def _use_files_and_a_terminal(self) -> None:
        path = "/workspace/notes/sdk.txt"
        await self._conn.write_text_file(session_id=SESSION, path=path, content="one\ntwo\nthree\n")
        part = await self._conn.read_text_file(session_id=SESSION, path=path, line=2, limit=1)
        assert part.content == "two\n"
        terminal = await self._conn.create_terminal(session_id=SESSION, command="wc", args=["-l", path])
        ids = {"session_id": SESSION, "terminal_id": terminal.terminal_id}
        ended = await self._conn.wait_for_terminal_exit(**ids)
        output = await self._conn.terminal_output(**ids)
        assert (ended.exit_code, output.output.split()[0]) == (0, "3")
        await self._conn.release_terminal(**ids)

    async def _fill_in(self) -> str:
        """A form and an address."""
        name = schema.ElicitationStringPropertySchema(type="string", title="Your name")
        wanted = schema.ElicitationSchema(properties={"name": name}, required=["name"])
        form = schema.ElicitationFormSessionMode(session_id=SESSION, requested_schema=wanted)
        filled = await self._conn.create_elicitation("Who are you?", form)
        address = schema.ElicitationUrlSessionMode(
            session_id=SESSION, elicitation_id="e-1", url="https://example.org/device"
        )
        agreed = await self._conn.create_elicitation("Log in there", address)
        await self._conn.complete_elicitation("e-1")
        return f"{filled.content['name']} {agreed.action}"

    async def cancel(self, session_id: str, **_: Any) -> None:
        return


if __name__ == "__main__":
    asyncio.run(acp.run_agent(EveryAgent(), use_unstable_protocol=True))
