"""The images that containers are made of: found, or pulled where the settings let the engine do that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import anyio
import msgspec

from kandev_docker.engine import Engine, EngineGone, Missing
from kandev_docker.owned import OURS
from kandev_docker.pulls import Pulls
from kandev_host import errors

Pull = Literal["missing", "never", "always"]
# Built here (`kandev-host image build`), published by nobody: whoever took these names in a registry would be run.
OWN = ("kandev-base", "kandev/")
PULL_AGAIN_S = 10.0
"""After a pull that failed: a list of agent types asks for the same image many times, and waits for each."""


class Image(msgspec.Struct, frozen=True):
    """`id` is its content's, so that a tag that moves meanwhile changes nothing; `volumes` and `path` are its own."""

    id: str
    name: str
    volumes: tuple[str, ...]
    os: str
    path: str | None = None


class Images:
    """Of one engine."""

    def __init__(self, engine: Engine, pull: Pull, pulls: Pulls) -> None:
        self.pulls = pulls
        self._engine = engine
        self._pull = pull
        self._failed: dict[str, tuple[float, errors.Unavailable]] = {}

    async def ready(self, name: str, labels: Mapping[str, str]) -> Image:
        """It is there now; `labels` say who waits for it. Raises `Unavailable`, with the fix."""
        if self._pull == "always" and not name.startswith(OWN):
            await self._pulled(name, labels)
            return await self._found(name)
        try:
            return await self._found(name)
        except Missing as error:
            if name.startswith(OWN):
                fix = "build it: kandev-host image build (docs/docker.md), or name another image in the settings"
                raise errors.Unavailable(f"The engine has no image {name!r}, and it is not pulled.", fix=fix) from error
            if self._pull == "never":
                fix = f'docker pull {name}, build it (kandev-host image build), or set pull = "missing"'
                raise errors.Unavailable(f"The engine has no image {name!r}, and pulls none.", fix=fix) from error
        await self._pulled(name, labels)
        return await self._found(name)

    async def here(self, name: str) -> Image | None:
        """If it need not be pulled, or cannot be. Raises as `ready`."""
        try:
            return await self._found(name)
        except Missing:
            return await self.ready(name, {}) if self._pull == "never" or name.startswith(OWN) else None

    async def _found(self, name: str) -> Image:
        told = await self._engine.call(lambda client: client.inspect_image(name))
        config: dict[str, Any] = told.get("Config") or {}
        if any(str(label).startswith(OURS) for label in config.get("Labels") or ()):
            # The engine would give them to its containers, which are known by these.
            raise errors.Unavailable(f"The image {name!r} has labels of our containers.", fix="use another image")
        env = dict(str(pair).partition("=")[::2] for pair in config.get("Env") or ())
        volumes = tuple(sorted(config.get("Volumes") or ()))
        return Image(told["Id"], name, volumes, str(told.get("Os", "")), env.get("PATH"))

    async def _pulled(self, name: str, labels: Mapping[str, str]) -> None:
        until_s, failed = self._failed.get(name, (0.0, None))
        if failed is not None and anyio.current_time() < until_s:
            raise errors.Unavailable(failed.message, fix=failed.details["fix"])
        try:
            await self.pulls.pulled(name, labels)
        except EngineGone:
            raise
        except errors.Unavailable as error:
            told = errors.Unavailable(
                f"The image {name!r} cannot be pulled: {error.message}",
                fix="build it (kandev-host image list), docker load it, or name another: "
                "image of [agents.NAME] or of [runtime.docker]",
            )
            self._failed[name] = (anyio.current_time() + PULL_AGAIN_S, told)
            raise told from error
