"""`kandev-host image build|lean|list|pull|scan`."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kandev_host.cli.options import as_json, example, load_settings, settings_options
from kandev_host.cli.output import emit, table
from kandev_host.cli.pulls import Bar
from kandev_host.cli.recipes import BASE, HOST, Recipe, recipe, recipes
from kandev_host.cli.shipped import shipped
from kandev_host.errors import StartupError
from kandev_host.printable import printable

if TYPE_CHECKING:
    from kandev_host.interfaces import Image, Images, Tell
    from kandev_host.settings.load import Loaded

# Scanner → its arguments before the image, for people and for programs; both end with 1 for what is high or critical.
SCANNERS = {
    "trivy": (["image", "--exit-code", "1", "--severity", "HIGH,CRITICAL"], ["--quiet", "--format", "json"]),
    "grype": (["--fail-on", "high"], ["--quiet", "--output", "json"]),
}
SCAN_TIMEOUT_S = 1800
LEAN_TIMEOUT_S = 1800
LEAN = "kandev-base"


@click.group(epilog=example("kandev-host image list\nkandev-host image build gemini"))
def command() -> None:
    """The images that agents run in where the runtime makes containers."""


@asynccontextmanager
async def _opened(loaded: Loaded) -> AsyncIterator[Images]:
    """What makes images: of the runtime of the settings if it has some, else of the one that has."""
    from kandev_host.plugins import load_plugins
    from kandev_host.settings.load import decode_table

    plugins = load_plugins(loaded.settings.plugins)
    found = {name: provider for name, provider in plugins.providers["runtime"].items() if provider.images}
    if not found:
        raise StartupError("No runtime makes containers here: pip install 'kandev-host[docker]'")
    name = loaded.settings.use.runtime if loaded.settings.use.runtime in found else sorted(found)[0]
    provider = plugins.provider("runtime", name)
    if provider.images is None or provider.settings is None:
        raise StartupError(f"The runtime {name} makes no images")
    settings = decode_table("runtime", name, loaded.settings.runtime.get(name, {}), provider.settings)
    async with provider.images(settings) as images:
        yield images


def _asking(work: Callable[..., Coroutine[Any, Any, int | None]]) -> Callable[..., int | None]:
    """A command that asks the engine: it takes `loaded` and `as_json` first."""

    @wraps(work)
    def run(config: Path | None, data_dir: Path | None, as_json: bool, **more: Any) -> int | None:
        import anyio

        from kandev_host.logs import logging_to

        loaded = load_settings(config, data_dir)

        async def asked() -> int | None:
            return await work(loaded, as_json, **more)

        with logging_to(loaded.settings.log):
            return anyio.run(asked)

    return settings_options(as_json(run))


@command.command(
    "list", epilog=example("kandev-host image list\nkandev-host image list --json | jq '.images[] | select(.id)'")
)
@_asking
async def listed(loaded: Loaded, as_json: bool) -> None:
    """The images that come as Dockerfiles.

    What each is called, which agents run in it, and whether it is built.
    """
    from kandev_host.errors import Unavailable

    why: Unavailable | None = None
    rows: list[tuple[Recipe, Image | None]]
    try:
        async with _opened(loaded) as images:
            rows = [(made, await images.found(made.tags[0])) for made in recipes().values()]
    except Unavailable as error:
        if as_json:
            raise
        why, rows = error, [(made, None) for made in recipes().values()]
    agents = _agents(loaded)
    if as_json:
        emit({"images": [_told(made, image) | {"agents": agents.get(made.repository, [])} for made, image in rows]})
        return
    table(
        ["NAME", "IMAGE", "VERSION", "SIZE", "AGENTS"],
        (
            [
                made.name,
                made.repository,
                made.version,
                f"{image.size_bytes / 1e6:.0f} MB" if image else "not built" if why is None else "not known",
                ", ".join(agents.get(made.repository, [])) or "-",
            ]
            for made, image in rows
        ),
    )
    if why is not None:
        raise why


@command.command(
    epilog=example(
        "kandev-host image lean\n"
        "kandev-host image lean --tag team/tools:1 --package jq --add ./tools:/opt/tools\n"
        "kandev-host image lean --output base.tar"
    )
)
@click.option("--tag", default=f"{LEAN}:latest", show_default=True, help="Name of the image.")
@click.option("--package", "packages", metavar="NAME", multiple=True, help="One more package; repeatable.")
@click.option("--add", "added", metavar="PATH:/TARGET", multiple=True, help="A file or folder; repeatable.")
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the layer to this file; asks no engine."
)
@_asking
async def lean(
    loaded: Loaded, as_json: bool, tag: str, packages: tuple[str, ...], added: tuple[str, ...], output: Path | None
) -> int:
    """Make a small base image without a registry.

    Of the packages of the Debian or Ubuntu that this runs on: Python, git, certificates and busybox, with what
    --package and --add name. It needs apt-get and dpkg-deb, and no root.
    """
    words = [sys.executable, str(shipped("images/lean")), f"--tag={tag}"]
    words += [f"--package={name}" for name in packages] + [f"--add={what}" for what in added]
    if output is not None:
        return await _lean([*words, f"--output={output}"], os.environ, as_json, "path")
    async with _opened(loaded) as images:
        await images.found(tag)  # where there is no engine, nothing is fetched for it
        address = images.address
    return await _lean(words, {**os.environ, "DOCKER_HOST": address}, as_json, "id")


async def _lean(words: list[str], env: Mapping[str, str], as_json: bool, made: str) -> int:
    """What went wrong it says itself, on stderr."""
    import anyio

    try:
        with anyio.fail_after(LEAN_TIMEOUT_S):
            done = await anyio.run_process(words, check=False, stderr=None, env=env)
    except TimeoutError as error:
        raise StartupError(f"The image was not made within {LEAN_TIMEOUT_S} s") from error
    told = done.stdout.decode(errors="replace").strip()
    if done.returncode == 0:
        if as_json:
            emit({made: told})
        else:
            click.echo(printable(f"Made {told}"))
    return done.returncode


@command.command(
    epilog=example(
        "kandev-host image build base\n"
        "kandev-host image build gemini claude\n"
        "kandev-host image build --all --fresh --json"
    )
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "every", is_flag=True, help="All but the image of the host itself.")
@click.option("--fresh", is_flag=True, help="Take no layer of an earlier build, and so the newest packages of Debian.")
@_asking
async def build(loaded: Loaded, as_json: bool, names: tuple[str, ...], every: bool, fresh: bool) -> None:
    """Build images from their Dockerfiles.

    The base too where it is missing.

    The engine must reach the registries of Docker, Debian and npm. What it says goes to stderr.
    """
    known = recipes()
    wanted = [name for name in known if name != HOST] if every else list(dict.fromkeys(names))
    if not wanted:
        raise click.UsageError(f"name what to build ({', '.join(known)}), or --all")
    asked = [recipe(name) for name in wanted]
    made = []
    async with _opened(loaded) as images:
        base = known[BASE]
        if BASE not in wanted and any(one.needs_base for one in asked) and await images.found(base.tags[1]) is None:
            asked.insert(0, base)
        for one in sorted(asked, key=lambda one: one.name != BASE):
            made.append((one, await _build(images, one, base, fresh)))
            if not as_json:
                click.echo(f"Built {one.tags[1]} ({made[-1][1].size_bytes / 1e6:.0f} MB)")
    if as_json:
        emit({"images": [_told(one, image) for one, image in made]})


async def _build(images: Images, one: Recipe, base: Recipe, fresh: bool) -> Image:
    return await images.build(
        str(one.context),
        str(one.dockerfile.relative_to(one.context)),
        names=one.tags,
        arguments={"BASE": base.tags[1]} if one.needs_base else {},
        fresh=fresh,
        tell=_telling(one.name),
    )


@command.command(
    epilog=example("kandev-host image pull registry.example.org/team/agent:2\nkandev-host image pull auggie")
)
@click.argument("name")
@_asking
async def pull(loaded: Loaded, as_json: bool, name: str) -> None:
    """Fetch an image from its registry.

    Of any name, or the one of a NAME in `image list`. How far it is goes to stderr: on a terminal one line, else a line
    every few seconds, with --json an object each.
    """
    wanted = _reference(name)
    bar = Bar(as_json=as_json)
    async with _opened(loaded) as images:
        try:
            image = await images.pull(wanted, tell=bar.tell)
        finally:
            bar.end()
    if as_json:
        emit({"name": wanted, "id": image.id, "size_bytes": image.size_bytes})
    else:
        click.echo(printable(f"Pulled {wanted} ({image.size_bytes / 1e6:.0f} MB)"))


@command.command(
    epilog=example("kandev-host image scan gemini\nkandev-host image scan kandev-base:1 --json > scan.json")
)
@click.argument("name")
@_asking
async def scan(loaded: Loaded, as_json: bool, name: str) -> int:
    """Look for known vulnerabilities in an image.

    With trivy or grype, whichever is installed.

    What the scanner says is shown as it is, with --json as its JSON. Exit status 1 if one is high or critical.
    """
    import anyio

    found = next((scanner for scanner in SCANNERS if shutil.which(scanner)), None)
    if found is None:
        raise StartupError(
            "No scanner is installed. Install trivy (https://trivy.dev) or grype (https://github.com/anchore/grype),"
            " so that it is in PATH, and try again"
        )
    wanted = _reference(name)
    async with _opened(loaded) as images:
        if await images.found(wanted) is None:
            raise StartupError(f"The engine has no image {wanted}. First: kandev-host image build, or image pull")
        address = images.address
    first, for_programs = SCANNERS[found]
    words = [found, *first, *(for_programs if as_json else []), wanted]
    try:
        with anyio.fail_after(SCAN_TIMEOUT_S):
            done = await anyio.run_process(
                words, check=False, stdout=None, stderr=None, env={**os.environ, "DOCKER_HOST": address}
            )
    except TimeoutError as error:
        raise StartupError(f"{found} did not end within {SCAN_TIMEOUT_S} s") from error
    return done.returncode


def _telling(name: str) -> Tell:
    return lambda line: click.echo(printable(f"{name}: {line}"), err=True)


def _reference(name: str) -> str:
    """The image of a recipe, or the name as it is."""
    known = recipes()
    if name in known:
        return known[name].tags[0]
    if not name or name.startswith("-"):
        raise click.UsageError(f"{name!r} is no name of an image")
    return name


def _told(one: Recipe, image: Image | None) -> dict[str, Any]:
    return {
        "name": one.name,
        "image": one.repository,
        "version": one.version,
        "description": one.description,
        "id": image.id if image else None,
        "size_bytes": image.size_bytes if image else None,
    }


def _agents(loaded: Loaded) -> dict[str, list[str]]:
    """Image → the agent types that name it."""
    from kandev_host.agent_types import effective
    from kandev_host.plugins import load_plugins

    types = effective(load_plugins(loaded.settings.plugins).agent_types, loaded.settings.agents)
    named: dict[str, list[str]] = {}
    for name, kind in types.items():
        if kind.image:
            named.setdefault(kind.image.removesuffix(":latest"), []).append(name)
    return named
