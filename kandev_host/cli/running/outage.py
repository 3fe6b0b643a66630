"""What a command that waits for its host says of that."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kandev_host.client import ClientError


class Outage:
    """Tells once that the host is away, and once that it is back, however long it takes."""

    def __init__(self, tell: Callable[[str], object]) -> None:
        self._tell = tell
        self._lasts = False

    def begins(self, error: ClientError) -> None:
        if not self._lasts:
            self._tell(f"{error.message.rstrip('.')}. Waiting for the host to come back.")
        self._lasts = True

    def ends(self) -> None:
        self._tell("Connected again.")
        self._lasts = False
