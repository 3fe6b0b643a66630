"""Settings that cannot be read again: the host goes on with those that it has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kandev_host.errors import SettingsError, StartupError
from kandev_host.reloading import Reloads
from kandev_host.settings import Settings
from kandev_host.settings.load import Loaded

pytestmark = pytest.mark.anyio


def gone() -> Loaded:
    return Loaded(Settings(), Path("/nowhere"))


def wrong() -> Loaded:
    raise SettingsError("line 5")


def unforeseen() -> Loaded:
    raise RecursionError("maximum recursion depth exceeded")


def readable() -> Loaded:
    return Loaded(Settings(), Path("/nowhere"), Path("/nowhere/config.toml"))


def unstartable(_settings: Settings) -> None:
    raise StartupError("no such secret")


@pytest.mark.parametrize(
    ("load", "why"),
    [
        (gone, "config.toml is gone"),
        (readable, "no such secret"),
        (wrong, "line 5"),
        (unforeseen, "cannot be read (RecursionError)"),
    ],
)
async def test_what_cannot_be_read_leaves_the_old_settings_and_the_host(load: Callable[[], Loaded], why: str) -> None:
    running = SimpleNamespace(
        settings_path="/nowhere/config.toml", problem=None, changed=["x"], loads=1, loaded_at="then"
    )
    unused: Any = None
    services: Any = SimpleNamespace(running=running)
    reloads = Reloads(
        settings=Settings(),
        services=services,
        gateway=unused,
        retention=unused,
        given={},
        noted=lambda _settings: None,
        check=unstartable,
    )
    assert not await reloads.reload(load)
    assert why in running.problem
    assert (running.changed, running.loads, running.loaded_at) == ([], 2, "then")
