"""Reading what an agent answered or asks, and saying clearly what is wrong with it."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from kandev_host.errors import AgentError
from kandev_host.models import Session
from kandev_host.protocol import acp, jsonrpc
from kandev_host.protocol.acp import Json
from kandev_host.protocol.jsonrpc import RpcError
from kandev_host.sessions.failures import AgentFailed, Cause
from kandev_host.sessions.forms import wrong_form

T = TypeVar("T")
WRONG = Cause("config")
MESSAGE_CHARS = 16 << 10
URL_CHARS = 8 << 10
ID_CHARS = 255
CALL_ID_CHARS = 1024
_WEB = re.compile(r"https?://[^\s/]\S*", re.IGNORECASE)


def read(raw: Raw, type: type[T], method: str) -> T:
    """The result of a call, typed. Raises `AgentError`."""
    try:
        return msgspec.json.decode(raw, type=type)
    except (msgspec.DecodeError, RecursionError) as error:
        raise AgentError(f"The agent's answer to {method} cannot be used: {error}") from error


def check_version(result: acp.InitializeResult) -> acp.InitializeResult:
    """ACP: a client that cannot speak the agent's version disconnects."""
    if result.protocol_version != acp.VERSION:
        told = f"The agent speaks version {result.protocol_version} of ACP, this host version {acp.VERSION}"
        raise AgentFailed(told, WRONG)
    return result


def check_auth(result: acp.InitializeResult, method_id: str) -> None:
    """Is this a method that a client may call? A `terminal` method is a program for a person, never a call."""
    methods = {method["id"]: method for method in result.auth_methods or [] if isinstance(method.get("id"), str)}
    if not methods:
        return  # some agents list none and still want the call
    if method_id not in methods:
        raise AgentFailed(f"The agent has no log-in method {method_id!r}; it has {_listed(methods)}", WRONG)
    if methods[method_id].get("type") == "terminal":
        raise AgentFailed(f"The log-in method {method_id!r} works in a terminal only: log in there first", WRONG)


def choose_mode(session: Session, mode: str) -> tuple[str, Json] | None:
    """The call that sets this mode; None if it is set already. Raises `AgentError` if the agent does not have it.

    Config options supersede modes (ACP); the option is found by its category.
    """
    options = [option for option in session.config_options or [] if option.get("category") == "mode"]
    for option in options:
        if mode in _values(option):
            if option.get("currentValue") == mode:
                return None
            params = {"sessionId": session.acp_session_id, "configId": option.get("id"), "value": mode}
            return "session/set_config_option", params
    modes = session.modes or {}
    known = {item["id"] for item in _dicts(modes.get("availableModes")) if isinstance(item.get("id"), str)}
    if mode in known:
        if modes.get("currentModeId") == mode:
            return None
        return "session/set_mode", {"sessionId": session.acp_session_id, "modeId": mode}
    offered = known.union(*(_values(option) for option in options))
    raise AgentFailed(f"The agent has no mode {mode!r}, in which it would ask; it has {_listed(offered)}", WRONG)


def replace_mode(session: Session, mode: str, options: list[Json] | None) -> Session:
    """The session's row after its mode was set; `options` is the complete new list, if one came."""
    if options is not None:
        return msgspec.structs.replace(session, config_options=options)
    if session.modes is None:
        return session
    return msgspec.structs.replace(session, modes={**session.modes, "currentModeId": mode})


def read_permission(params: Raw) -> tuple[str, Json, list[Json]]:
    """Session, call and options of a permission request. Raises `RpcError` for options that cannot be told apart."""
    try:
        request = msgspec.json.decode(params, type=acp.PermissionParams)
        options = msgspec.convert(request.options, list[acp.PermissionOption])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise RpcError(jsonrpc.INVALID_PARAMS, f"Invalid params: {error}") from error
    call_id = request.tool_call.get("toolCallId")
    if not isinstance(call_id, str) or len(call_id) > CALL_ID_CHARS:
        told = f"toolCall.toolCallId is missing, or longer than {CALL_ID_CHARS} characters"
        raise RpcError(jsonrpc.INVALID_PARAMS, f"Invalid params: {told}")
    if len({option.option_id for option in options}) != len(options):
        raise RpcError(jsonrpc.INVALID_PARAMS, "Invalid params: two options have the same id")
    return request.session_id, request.tool_call, request.options


def read_elicitation(params: Raw) -> acp.ElicitationParams:
    """What an agent wants of a person. Raises `RpcError` for what cannot be shown to one."""
    try:
        asked = msgspec.json.decode(params, type=acp.ElicitationParams)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise RpcError(jsonrpc.INVALID_PARAMS, f"Invalid params: {error}") from error
    if (complaint := _wrong_elicitation(asked)) is not None:
        raise RpcError(jsonrpc.INVALID_PARAMS, f"Invalid params: {complaint}")
    return asked


def _wrong_elicitation(asked: acp.ElicitationParams) -> str | None:
    if len(asked.message) > MESSAGE_CHARS:
        return f"message is longer than {MESSAGE_CHARS} characters"
    if any(len(id or "") > ID_CHARS for id in (asked.tool_call_id, asked.elicitation_id)):
        return f"an id is longer than {ID_CHARS} characters"
    if asked.mode == "form":
        return wrong_form(asked.requested_schema)
    if asked.mode != "url":
        return f"mode is neither form nor url: {asked.mode[:ID_CHARS]}"
    if not asked.elicitation_id:
        return "elicitationId is missing"
    if not asked.url or len(asked.url) > URL_CHARS or not _WEB.fullmatch(asked.url):
        return f"url is no address of http or https, of at most {URL_CHARS} characters"
    return None


def _values(option: Json) -> set[str]:
    """The values of a select option, whose list is flat or in groups."""
    found = set()
    for item in _dicts(option.get("options")):
        found |= {entry.get("value") for entry in (_dicts(item.get("options")) or [item])}
    return {value for value in found if isinstance(value, str)}


def _dicts(value: Any) -> list[Json]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _listed(names: Any) -> str:
    return ", ".join(sorted(map(str, names))) or "none"
