"""One class per situation. The wire code of each is fixed here, and nowhere else.

Every error carries a message for people and `details` for programs. `gateway.dispatch` turns a
`KandevError` into an error message; whatever is not a `KandevError` becomes INTERNAL_ERROR there.
"""

from __future__ import annotations

from typing import Any, ClassVar

# What may have passed when the same is asked again.
PASSING = frozenset({"BUSY", "RATE_LIMITED", "STORAGE_FULL", "TIMEOUT", "UNAVAILABLE"})


class KandevError(Exception):
    """Base of all errors that may reach a client. `details` must be JSON-ready and hold no secret."""

    code: ClassVar[str] = "INTERNAL_ERROR"

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = {key: value for key, value in details.items() if value is not None}


class BadRequest(KandevError):
    """The frame is not JSON, or not an envelope."""

    code = "BAD_REQUEST"


class ValidationFailed(KandevError):
    """A field is missing, wrong or out of bounds; `field` is its path, as in `blocked_by[0]`."""

    code = "VALIDATION_ERROR"

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message, field=field)


class UnknownAction(KandevError):
    """No such action; `did_you_mean` names the nearest one."""

    code = "UNKNOWN_ACTION"

    def __init__(self, action: str, did_you_mean: str | None = None) -> None:
        hint = f"; did you mean {did_you_mean}?" if did_you_mean else ""
        super().__init__(f"Unknown action {action!r}{hint}", did_you_mean=did_you_mean)


class Unauthorized(KandevError):
    """No credentials, or bad ones."""

    code = "UNAUTHORIZED"


class Forbidden(KandevError):
    """The principal lacks `scope`; more words and details (as the `owner` of a board) where that is not all."""

    code = "FORBIDDEN"

    def __init__(self, scope: str, message: str | None = None, **details: Any) -> None:
        super().__init__(message or f"This needs the scope {scope}", scope=scope or None, **details)


class NotFound(KandevError):
    """No `kind` has this `id`. More details (such as the known names) may follow."""

    code = "NOT_FOUND"

    def __init__(self, kind: str, id: str, **details: Any) -> None:
        super().__init__(f"No {kind.replace('_', ' ')} {id!r}", kind=kind, id=id, **details)


class Conflict(KandevError):
    """The present `state` does not allow it."""

    code = "CONFLICT"


class RateLimited(KandevError):
    """Too many requests; `retry_after_s` says when to come back."""

    code = "RATE_LIMITED"

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"Too many requests; retry in {retry_after_s:.2f} s", retry_after_s=retry_after_s)


class PayloadTooLarge(KandevError):
    """A field is larger than `limit_bytes`."""

    code = "PAYLOAD_TOO_LARGE"

    def __init__(self, message: str, limit_bytes: int, field: str | None = None) -> None:
        super().__init__(message, limit_bytes=limit_bytes, field=field)


class Unavailable(KandevError):
    """A runtime, agent or store cannot be used: why, and what to do about it."""

    code = "UNAVAILABLE"

    def __init__(self, message: str, reason: str | None = None, fix: str | None = None, **details: Any) -> None:
        super().__init__(message, reason=reason or message, fix=fix, **details)


class Misconfigured(Unavailable):
    """A runtime refuses what it is asked to start, and would again: a setting or a task is wrong."""


class TimedOut(KandevError):
    """A deadline passed."""

    code = "TIMEOUT"


class StorageFull(KandevError):
    """The disk is full: reads go on, nothing was written."""

    code = "STORAGE_FULL"


class Busy(KandevError):
    """The database stayed locked by another process, or a queue stayed full; nothing was written."""

    code = "BUSY"


class AgentError(KandevError):
    """An agent broke the protocol, died, or answered with an error. Lives in `agent.status`, not on the wire."""

    code = "UNAVAILABLE"


class StartupError(Exception):
    """The host cannot start: one line for the terminal, with the fix in it. Exit status 1."""


class SettingsError(StartupError):
    """A settings file, environment variable or flag is wrong."""


class PluginError(StartupError):
    """A plugin is broken, unknown, duplicated or misspelt; the message names it and the fix."""


class PluginFailed(PluginError):
    """What a plugin provides did not start: the message names it and says what to do."""
