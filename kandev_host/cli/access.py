"""The host that a command talks to: the one named by KANDEV_URL, the one that runs, or one of its own for the time."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from kandev_host.errors import StartupError
from kandev_host.presence import running
from kandev_host.settings import ServerSettings
from kandev_host.settings.load import Loaded

if TYPE_CHECKING:
    from pathlib import Path

    from kandev_host.client import Client


@asynccontextmanager
async def open_client(loaded: Loaded, *, runs: bool = False) -> AsyncIterator[tuple[Client, str]]:
    """A logged-in client, and the host's address. Raises `StartupError`, or what starting a host raises.

    A host of our own for the time leaves the queue alone: it does what it is asked, once. Unless it `runs` agents, it
    only answers, and leaves everything as it finds it.
    """
    from kandev_host.client import connect

    url, token = remote(loaded)
    if url is not None and token is not None:
        async with connect(url, token) as client:
            yield client, url
        return
    from kandev_host.host import Host

    settings = msgspec.structs.replace(
        loaded.settings,
        server=ServerSettings(port=0),
        orchestrator=msgspec.structs.replace(loaded.settings.orchestrator, attempts=1),
    )
    async with (
        Host(settings, loaded.data_dir, queue=False, answers=not runs) as host,
        connect(host.url, host.token_path.read_text().strip()) as client,
    ):
        yield client, host.url


@asynccontextmanager
async def running_client(loaded: Loaded) -> AsyncIterator[Client]:
    """A logged-in client of the host that runs. Raises `StartupError` when none does."""
    from kandev_host.client import connect

    async with connect(*running_host(loaded)) as client:
        yield client


def running_host(loaded: Loaded) -> tuple[str, str]:
    """Address and token of the host that runs. Raises `StartupError` when none does."""
    url, token = remote(loaded)
    if url is None or token is None:
        raise StartupError(f"no host runs on {loaded.data_dir}; start it with: kandev-host up")
    return url, token


def moving_host(loaded: Loaded) -> tuple[Callable[[], str], Callable[[], str]]:
    """As `running_host`, asked anew for each connection: for a client that waits for a host to come back."""
    from kandev_host.client import ConnectionLost

    def now() -> tuple[str, str]:
        try:
            return running_host(loaded)
        except StartupError as error:
            raise ConnectionLost(str(error)) from None

    return lambda: now()[0], lambda: now()[1]


def remote(loaded: Loaded) -> tuple[str | None, str | None]:
    """Address and token of a host that runs already, if there is one.

    The local token goes to the host that runs here alone: another address needs a token of its own.
    """
    found = running(loaded.data_dir)
    url = os.environ.get("KANDEV_URL") or (found.url if found else None)
    if url is None:
        return None, None
    token = os.environ.get("KANDEV_TOKEN")
    if token is None and "KANDEV_URL" in os.environ and (found is None or _plain(found.url) != _plain(url)):
        raise StartupError(f"KANDEV_URL names {url}, which is not the host that runs here: set KANDEV_TOKEN as well")
    if token is None:
        try:
            token = _local_token(loaded.data_dir)
        except OSError as error:
            raise StartupError(f"no token for {url}: {error.strerror}; set KANDEV_TOKEN or --data-dir") from error
    return url, token


def _local_token(folder: Path) -> str:
    """Raises `StartupError` for one that others may have: the host refuses it, and does not say why."""
    path = folder / "token"
    for each, may, mode in ((folder, "enter", "700"), (path, "read", "600")):
        if each.stat().st_mode & 0o077:
            raise StartupError(f"others may {may} {each}, so its token lets nobody in: chmod {mode} {each}")
    return path.read_text().strip()


def _plain(url: str) -> str:
    """Without the certificate that is to be there."""
    return url.partition("#")[0].rstrip("/")
