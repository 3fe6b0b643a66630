"""Errors of the client: what the host answered, or why there is no answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


class ClientError(Exception):
    """What the host answered (`code`, `message`, `details` of the protocol), or why it could not be asked.

    Not the host's: UNAVAILABLE when nobody listens or the connection ended (`details.close_code`), and TIMEOUT.
    """

    def __init__(self, code: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.details = dict(details or {})

    @property
    def resync_required(self) -> bool:
        """Events were missed for good: read anew what you show, and subscribe without `after_seq`."""
        return self.details.get("resync_required") is True


class ConnectionLost(ClientError):
    """No answer, because the connection ended: what was asked may have happened or not."""

    def __init__(self, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__("UNAVAILABLE", message, details)


def host_error(payload: msgspec.Raw) -> ClientError:
    """The error that the host answered, also when it is not shaped as the protocol says."""
    said = msgspec.json.decode(payload)
    if not isinstance(said, dict):
        return ClientError("INTERNAL_ERROR", "The host answered with an error that says nothing")
    details = said.get("details")
    return ClientError(str(said.get("code")), str(said.get("message")), details if isinstance(details, dict) else None)
