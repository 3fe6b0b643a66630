"""What makes and fetches the images of a runtime that has some."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

# Called with each line of what an engine says while it works, from any thread.
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Image:
    """One that the engine has. `names` are all its names with their tags."""

    id: str
    names: tuple[str, ...]
    size_bytes: int


class Images(Protocol):
    """Each call raises `Unavailable`, with the fix, where there is no engine or it refuses."""

    @property
    def address(self) -> str:
        """The engine, as other programs are told in DOCKER_HOST."""
        ...

    async def found(self, name: str) -> Image | None:
        """The image of this name and tag, or None."""
        ...

    async def build(
        self, context: str, dockerfile: str, *, names: Sequence[str], arguments: dict[str, str], fresh: bool, tell: Tell
    ) -> Image:
        """Make it from a folder of this machine and call it `names`; `fresh` takes no layer of an earlier one."""
        ...

    async def pull(self, name: str, *, tell: Tell) -> Image:
        """Fetch it from the registry that its name says."""
        ...
