"""What makes and fetches the images of a runtime that has some."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Literal, Protocol

import msgspec

# Called with each line of what an engine says while it works, from any thread.
Tell = Callable[[str], None]


class Image(msgspec.Struct, frozen=True):
    """One that the engine has. `names` are all its names with their tags."""

    id: str
    names: tuple[str, ...]
    size_bytes: int


class Pull(msgspec.Struct, frozen=True, kw_only=True):
    """How far the pull of an image has come. `labels` are those of the process that waits for it.

    Bytes are those of the layers whose size is known so far; `message` says why one has failed.
    """

    image: str
    state: Literal["pulling", "pulled", "failed"]
    layers_done: int = 0
    layers_total: int = 0
    bytes_done: int = 0
    bytes_total: int = 0
    message: str = ""
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)


class Pulling(Protocol):
    """What a runtime has besides, if it makes its places from images."""

    async def fetch(self, image: str | None, labels: Mapping[str, str]) -> None:
        """Have the image here (None: its default one), pulling it if need be. Raises `Unavailable`.

        Those who ask for the same one wait for the same pull, which ends when none of them waits any more. Nobody else
        bounds it: the runtime ends one that takes too long.
        """
        ...

    def pulls(self) -> AsyncIterator[Pull]:
        """What is told of pulls from now on, once for each who waits, for one reader: at most twice a second each, and
        at least every half a minute, by which a client knows what it waits for."""
        ...


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

    async def pull(self, name: str, *, tell: Callable[[Pull], None]) -> Image:
        """Fetch it from the registry that its name says. `tell` is called on the event loop."""
        ...
