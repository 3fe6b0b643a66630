"""The host that a command talks to: the one named by KANDEV_URL, the one that runs, or one of its own for the time."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from kandev_host.errors import StartupError
from kandev_host.presence import running
from kandev_host.settings.load import Loaded

if TYPE_CHECKING:
    from kandev_host.client import Client


@asynccontextmanager
async def open_client(loaded: Loaded) -> AsyncIterator[tuple[Client, str]]:
    """A logged-in client, and the host's address. Raises `StartupError`, or what starting a host raises."""
    from kandev_host.client import connect

    url, token = remote(loaded)
    if url is not None and token is not None:
        async with connect(url, token) as client:
            yield client, url
        return
    from kandev_host.host import Host

    settings = msgspec.structs.replace(
        loaded.settings, server=msgspec.structs.replace(loaded.settings.server, host="127.0.0.1", port=0)
    )
    async with (
        Host(settings, loaded.data_dir) as host,
        connect(host.url, host.token_path.read_text().strip()) as client,
    ):
        yield client, host.url


def remote(loaded: Loaded) -> tuple[str | None, str | None]:
    """Address and token of a host that runs already, if there is one."""
    url = os.environ.get("KANDEV_URL")
    if url is None:
        found = running(loaded.data_dir)
        url = found.url if found else None
    if url is None:
        return None, None
    token = os.environ.get("KANDEV_TOKEN")
    if token is None:
        try:
            token = (loaded.data_dir / "token").read_text().strip()
        except OSError as error:
            raise StartupError(f"no token for {url}: {error.strerror}; set KANDEV_TOKEN or --data-dir") from error
    return url, token
