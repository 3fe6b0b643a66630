"""What people give to commands: texts from arguments or standard input, repositories, JSON, limits."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
_URL = re.compile(r"[a-z][a-z0-9+.-]*://|[^/\s@]+@[^/\s:]+:", re.IGNORECASE)


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
