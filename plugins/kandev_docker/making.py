"""Making and fetching images for `kandev-host image`: what the engine says on the way is passed on."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from kandev_docker import DockerSettings
from kandev_docker.engine import Engine, Missing, socket_path
from kandev_docker.pulls import Pulls, parts
from kandev_host import Image, Images, Pull, Tell, errors
from kandev_sandbox.beside import beside

if TYPE_CHECKING:
    from docker import APIClient

# What the engine, apt, npm and pip say where a name leads nowhere.
_OFFLINE = re.compile(
    r"no such host|dial tcp|i/o timeout|network is unreachable|connection refused|temporary failure (in name )?resol"
    r"|EAI_AGAIN|ENOTFOUND|Client\.Timeout",
    re.IGNORECASE,
)
_OFFLINE_FIX = (
    "let the engine reach the registry (its proxy is a setting of the engine), or `docker load` what another machine"
    " saved; a base without any registry: kandev-host image lean"
)
_ABSENT = re.compile(r"pull access denied|manifest unknown|not found|repository does not exist", re.IGNORECASE)


class EngineImages:
    """Of one engine. What takes long has a deadline of its own between two words of the engine."""

    def __init__(self, engine: Engine, patient: Engine, pulls: Pulls) -> None:
        self._pulls = pulls
        self._engine = engine
        self._patient = patient

    @property
    def address(self) -> str:
        return f"unix://{self._engine.path}"

    async def found(self, name: str) -> Image | None:
        try:
            told = await self._engine.call(lambda client: client.inspect_image(name))
        except Missing:
            return None
        return Image(str(told["Id"]), tuple(told.get("RepoTags") or ()), int(told.get("Size") or 0))

    async def build(
        self, context: str, dockerfile: str, *, names: Sequence[str], arguments: dict[str, str], fresh: bool, tell: Tell
    ) -> Image:
        first, *others = names

        def build(client: APIClient, said: _Said) -> None:
            steps = client.build(
                path=context, dockerfile=dockerfile, tag=first, buildargs=arguments, nocache=fresh, rm=True,
                forcerm=True, decode=True,
            )  # fmt: skip
            said.follow(steps)
            for name in others if said.error is None and not said.over else ():
                repository, tag = parts(name)
                client.tag(first, repository, tag)

        return await self._long(build, first, f"The image {first!r} was not built", tell)

    async def pull(self, name: str, *, tell: Callable[[Pull], None]) -> Image:
        await self._engine.facts()
        failed = f"The image {name!r} cannot be pulled"
        try:
            await self._pulls.pulled(name, {}, tell)
        except errors.Unavailable as error:
            raise _explained(failed, str(error.message), error.details.get("fix")) from error
        return await self._there(name, failed)

    async def _long(self, work: Callable[[APIClient, _Said], None], name: str, failed: str, tell: Tell) -> Image:
        await self._engine.facts()  # that there is none, or that it may not be asked, is known at once
        said = _Said(tell)
        try:
            await self._patient.call(lambda client: work(client, said), what="finish")
        except errors.Unavailable as error:
            raise _explained(failed, str(error.message)) from error
        finally:
            said.over = True
        if said.error is not None:
            raise _explained(failed, said.error)
        return await self._there(name, failed)

    async def _there(self, name: str, failed: str) -> Image:
        image = await self.found(name)
        if image is None:
            raise errors.Unavailable(f"{failed}: the engine does not know it afterwards.")
        return image


class _Said:
    """What the engine says, step by step. Nobody is told any more once it is `over`."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self.error: str | None = None
        self.over = False

    def follow(self, steps: Iterable[dict[str, Any]]) -> None:
        for step in steps:
            if self.over:
                return
            if "error" in step:
                self.error = str(step["error"])
                return
            # Bars of progress come many times a second, and each says less than the words after it.
            words = str(step.get("stream") or step.get("status") or "").strip()
            if words and "progressDetail" not in step:
                self._tell(f"{step['id']}: {words}" if step.get("id") else words)


def _explained(failed: str, said: str, fix: str | None = None) -> errors.Unavailable:
    if _OFFLINE.search(said):
        return errors.Unavailable(f"{failed}: {said}", fix=_OFFLINE_FIX)
    if _ABSENT.search(said):
        return errors.Unavailable(
            f"{failed}: {said}", fix="check its name and the log-in of the engine, or build it: kandev-host image build"
        )
    return errors.Unavailable(f"{failed}: {said}", fix=fix)


@asynccontextmanager
async def open_images(settings: DockerSettings) -> AsyncIterator[Images]:
    """Ask the engine of the settings."""
    path = socket_path(settings.socket)
    engine, patient = Engine(path, settings.engine_timeout_s), Engine(path, settings.pull_timeout_s)
    pulls = Pulls(engine, settings.pull_timeout_s, settings.pull_stall_s)
    try:
        async with beside() as tasks:
            pulls.open(tasks)
            yield EngineImages(engine, patient, pulls)
    finally:
        engine.close()
        patient.close()
