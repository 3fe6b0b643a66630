"""The images that come as Dockerfiles in config/images: what each is called, and what it is made from."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from kandev_host.cli.shipped import shipped
from kandev_host.errors import NotFound, StartupError

BASE = "base"
HOST = "host"
_LABEL = re.compile(r'org\.opencontainers\.image\.(title|version|description)="([^"]*)"')


class Recipe(msgspec.Struct, frozen=True):
    """One folder with a Dockerfile. Agent types name its image by `repository`, without a tag."""

    name: str
    folder: Path
    repository: str
    version: str
    description: str

    @property
    def tags(self) -> tuple[str, ...]:
        """What the image is called once it is built; `latest` is what agent types mean."""
        return (f"{self.repository}:latest", f"{self.repository}:{self.version}")

    @property
    def dockerfile(self) -> Path:
        return self.folder / "Dockerfile"

    @property
    def needs_base(self) -> bool:
        return "${BASE}" in self.dockerfile.read_text()

    @property
    def context(self) -> Path:
        """The folder that is sent to the engine. Raises `StartupError` for the host itself without a checkout."""
        if self.name != HOST:
            return self.folder
        checkout = self.folder.parents[2]
        if not (checkout / "pyproject.toml").exists():
            raise StartupError(
                "The image of the host is built from a checkout of its source; this is an installed copy"
            )
        return checkout


def recipes() -> dict[str, Recipe]:
    """By name, the base first: the others are made on it."""
    folders = [path.parent for path in shipped("images").glob("*/Dockerfile")]
    found = [_read(folder) for folder in sorted(folders, key=lambda folder: (folder.name != BASE, folder.name))]
    return {recipe.name: recipe for recipe in found}


def recipe(name: str) -> Recipe:
    """Raises `NotFound`, with the names that there are."""
    found = recipes()
    if name not in found:
        raise NotFound("image", name, known=list(found))
    return found[name]


def _read(folder: Path) -> Recipe:
    labels = dict(_LABEL.findall((folder / "Dockerfile").read_text()))
    return Recipe(folder.name, folder, labels["title"], labels["version"], labels["description"])
