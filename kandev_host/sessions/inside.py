"""What a host does for an agent inside a jail of the agent's own workspace: where, and under which bounds.

The kernel of that jail is what resolves a path, so a link, or one that is swapped in time, leads nowhere that the agent
could not go by itself. Only the name is checked here.
"""

from __future__ import annotations

from pathlib import PurePosixPath

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from kandev_host.interfaces import ProcessSpec
from kandev_host.protocol import jsonrpc
from kandev_host.protocol.acp import Camel
from kandev_host.protocol.jsonrpc import RpcError
from kandev_host.sessions.answers import T

ROOTS = tuple(map(PurePosixPath, ("/workspace", "/home/agent", "/tmp")))  # noqa: S108 (inside)
DIRECTORIES = PurePosixPath("/directories")
PATH_CHARS = 4096


class OfSession(Camel):
    """Params of a request about a session."""

    session_id: str


def params_of(params: Raw, type: type[T], session_id: str | None) -> T:
    """The params of an agent's request in its own session. Raises `RpcError`."""
    try:
        read = msgspec.json.decode(params, type=type)
        asked = msgspec.json.decode(params, type=OfSession).session_id
    except (msgspec.DecodeError, RecursionError) as error:
        raise invalid(str(error)) from error
    if session_id is None or asked != session_id:
        raise invalid("sessionId is of no open session")
    return read


def invalid(why: str) -> RpcError:
    """The request cannot be served as it is."""
    return RpcError(jsonrpc.INVALID_PARAMS, f"Invalid params: {why}")


def check_path(path: str) -> str:
    """An absolute path under a folder that agents have. Raises `RpcError`."""
    if "\0" in path or len(path) > PATH_CHARS:
        raise invalid("this is no path")
    pure = PurePosixPath(path)
    named = pure.parts[:2] == DIRECTORIES.parts and len(pure.parts) > 2
    if not path.startswith("/") or ".." in pure.parts or not (named or any(map(pure.is_relative_to, ROOTS))):
        raise invalid(f"{path!r} is not an absolute path under {', '.join(map(str, ROOTS))} or {DIRECTORIES}/NAME")
    return str(pure)


def beside(spec: ProcessSpec, command: tuple[str, ...], **changes: object) -> ProcessSpec:
    """A further process of the run's place: the same folders, as writable as they are to the agent, and no network.

    What the agent was given in its environment is the agent's: it is not handed on.
    """
    base = replace(spec, command=command, env={}, network="none", allow=(), nested_sandbox=False)
    return replace(base, **changes)
