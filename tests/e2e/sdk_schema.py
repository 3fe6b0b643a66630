"""The official SDK's schema as the judge of what went over the pipes of an agent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from acp import schema
from pydantic import TypeAdapter

ASKED: Mapping[str, Any] = {
    "initialize": schema.InitializeRequest,
    "authenticate": schema.AuthenticateRequest,
    "logout": schema.LogoutRequest,
    "session/new": schema.NewSessionRequest,
    "session/load": schema.LoadSessionRequest,
    "session/resume": schema.ResumeSessionRequest,
    "session/list": schema.ListSessionsRequest,
    "session/close": schema.CloseSessionRequest,
    "session/delete": schema.DeleteSessionRequest,
    "session/set_mode": schema.SetSessionModeRequest,
    "session/set_config_option": schema.SetSessionConfigOptionSelectRequest,
    "session/set_config_option boolean": schema.SetSessionConfigOptionBooleanRequest,
    "session/prompt": schema.PromptRequest,
    "session/cancel": schema.CancelNotification,
    "$/cancel_request": schema.CancelRequestNotification,
}
ANSWERED: Mapping[str, Any] = {
    "session/request_permission": schema.RequestPermissionResponse,
    "elicitation/create": schema.CreateElicitationResponse,
    "fs/read_text_file": schema.ReadTextFileResponse,
    "fs/write_text_file": schema.WriteTextFileResponse,
    "terminal/create": schema.CreateTerminalResponse,
    "terminal/output": schema.TerminalOutputResponse,
    "terminal/wait_for_exit": schema.WaitForTerminalExitResponse,
    "terminal/kill": schema.KillTerminalResponse,
    "terminal/release": schema.ReleaseTerminalResponse,
}


def judged(capture: Iterable[Mapping[str, Any]]) -> set[str]:
    """What the host asked and answered, by method; each message is valid, with nothing that the schema knows not.

    Raises what pydantic raises, or `AssertionError`.
    """
    seen = set()
    asked_by_agent: dict[Any, str] = {}
    for message, by_agent in ((entry["line"], entry["dir"] == "out") for entry in capture if entry["dir"] != "err"):
        if by_agent:
            if "method" in message and "id" in message:
                asked_by_agent[message["id"]] = message["method"]
            continue
        assert message["jsonrpc"] == "2.0"
        if "method" in message:
            name = message["method"]
            name += " boolean" if message["params"].get("type") == "boolean" else ""
            model, sent = ASKED[name], message["params"]
        else:
            name = asked_by_agent[message["id"]]
            model, sent = ANSWERED[name], message["result"]
        seen.add(name)
        known = TypeAdapter(model).validate_python(sent)
        assert TypeAdapter(model).dump_python(known, by_alias=True, exclude_unset=True, mode="json") == sent
    return seen
