"""What people give to commands: texts from arguments or standard input, repositories, JSON, limits."""

from __future__ import annotations

import base64
import json
import mimetypes
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import click

F = TypeVar("F", bound=Callable[..., Any])
Paths = tuple[str, ...]
FILE_BYTES = 8 << 20
_URL = re.compile(r"[a-z][a-z0-9+.-]*://|[^/\s@]+@[^/\s:]+:", re.IGNORECASE)


class _Moment(click.DateTime):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"{value!r} is not a time such as 2026-01-31 or 2026-01-31T09:30:00Z", param, ctx)


MOMENT = _Moment(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"])


def text_of(argument: str, what: str = "prompt", *, may_be_empty: bool = False) -> str:
    """The argument; of `-`, standard input. Raises `UsageError` when it is empty or not UTF-8."""
    try:
        text = sys.stdin.read() if argument == "-" else argument
        text.encode()
    except UnicodeError as error:  # decoding what was piped in, or bytes that Python smuggled through the arguments
        raise click.UsageError(f"The {what} is not UTF-8.") from error
    if not may_be_empty and not text.strip():
        raise click.UsageError(f"The {what} is empty.")
    return text


def prompt_of(argument: str, *, blocks: bool) -> str | list[Any]:
    """A prompt as text, or with `blocks` as ACP content blocks in JSON. Raises `UsageError`."""
    text = text_of(argument)
    if not blocks:
        return text
    found = json_of(text, "--blocks")
    if not isinstance(found, list):
        raise click.UsageError("--blocks: the prompt is no JSON list of ACP content blocks.")
    return found


def said(argument: str, *, blocks: bool, image: Paths, file: Paths, link: Paths) -> str | list[Any]:
    """As `prompt_of`, with files and links behind it. Raises `UsageError`."""
    prompt = prompt_of(argument, blocks=blocks)
    added = [*map(_image, image), *map(_file, file), *map(_link, link)]
    if not added:
        return prompt
    return [*([{"type": "text", "text": prompt}] if isinstance(prompt, str) else prompt), *added]


def _image(path: str) -> dict[str, Any]:
    kind = mimetypes.guess_type(path)[0] or ""
    if not kind.startswith("image/"):
        raise click.UsageError(f"--image: {path} is no image by its name; is it a .png, .jpg, .gif or .webp?")
    return {"type": "image", "mimeType": kind, "data": base64.b64encode(_content(path, "--image")).decode()}


def _file(path: str) -> dict[str, Any]:
    """Its name only: where it lies here says nothing to an agent in its jail."""
    content, name = _content(path, "--file"), Path(path).name
    resource: dict[str, Any] = {"uri": f"attachment:///{quote(name)}"}
    kind = mimetypes.guess_type(path)[0]
    if kind is not None:
        resource["mimeType"] = kind
    try:
        resource["text"] = content.decode()
    except UnicodeDecodeError:
        resource["blob"] = base64.b64encode(content).decode()
    return {"type": "resource", "resource": resource}


def _link(uri: str) -> dict[str, Any]:
    if ":" not in uri:
        raise click.UsageError(f"--link: {uri} is no URI; a file of the workspace is file:///workspace/NAME")
    return {"type": "resource_link", "uri": uri, "name": uri.rstrip("/").rpartition("/")[2] or uri}


def _content(path: str, option: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            content = file.read(FILE_BYTES + 1)
    except OSError as error:
        raise click.UsageError(f"{option}: {path}: {error.strerror}.") from error
    if len(content) > FILE_BYTES:
        raise click.UsageError(f"{option}: {path} is larger than {FILE_BYTES >> 20} MiB.")
    return content


def content_options(command: F) -> F:
    """--blocks, --image, --file and --link; the command takes them by name, for `said`."""
    image = click.option("--image", metavar="FILE", multiple=True, help="Show it this image; repeatable.")
    file = click.option("--file", metavar="FILE", multiple=True, help="Give it the content of a file; repeatable.")
    link = click.option("--link", metavar="URI", multiple=True, help="Name this to it, to look at; repeatable.")
    return blocks_option(image(file(link(command))))


blocks_option = click.option("--blocks", is_flag=True, help="The prompt is a JSON list of ACP content blocks.")


def repository(repo: str) -> str:
    """A URL as it is, a local folder as an absolute path. Raises `UsageError` for what is neither."""
    if _URL.match(repo):
        return repo
    path = Path(repo).expanduser()
    if not path.is_dir():
        raise click.UsageError(f"--repo: there is no folder {repo}, and it is not a URL.")
    return str(path.resolve())


def json_of(text: str, option: str) -> Any:
    """JSON that was given to an option. Raises `UsageError`."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise click.UsageError(f"{option}: not JSON: {error}") from error


def resource_options(command: F) -> F:
    """--cpu, --memory and --disk; the command takes them by name, for `resources_of`."""
    cpu = click.option("--cpu", metavar="N", help="CPUs at most, as 1.5.")
    memory = click.option("--memory", metavar="SIZE", help="Memory at most, as 2g.")
    disk = click.option("--disk", metavar="SIZE", help="Disk at most, as 10g.")
    return cpu(memory(disk(command)))


def resources_of(cpu: str | None, memory: str | None, disk: str | None) -> dict[str, str] | None:
    """The limits that were given; None for none."""
    limits = {"cpu_limit": cpu, "memory_limit": memory, "disk_limit": disk}
    return {name: limit for name, limit in limits.items() if limit is not None} or None
