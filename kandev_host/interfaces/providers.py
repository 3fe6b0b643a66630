"""Selectable implementations: what the settings choose by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, TypeVar

import msgspec

from kandev_host.interfaces.images import Images
from kandev_host.interfaces.upkeep import Upkeep

S = TypeVar("S")
T = TypeVar("T")


class Provider(msgspec.Struct, Generic[S, T], frozen=True):
    """One selectable implementation: `[use] runtime = NAME` chooses it, `[runtime.NAME]` holds its settings.

    `settings` is a msgspec Struct (`forbid_unknown_fields`) or None for one without settings. `missing` names
    the extra to install when a library of the provider is absent: it is then listed, but selecting it is an error.
    `images` is for a runtime that has some: what makes and fetches them, without the runtime. `upkeep` is for a store:
    what backs it up, checks and replaces it, without opening it; without one the host says that it cannot. `check`
    raises the `StartupError` that `open` would for these settings, as for a secret that is not where they say, and
    opens nothing: `config check`, `doctor` and each reload ask it.
    """

    name: str
    open: Callable[[S, Environment], AbstractAsyncContextManager[T]]
    settings: type[S] | None = None
    missing: str | None = None
    images: Callable[[S], AbstractAsyncContextManager[Images]] | None = None
    upkeep: Callable[[S, Environment], Upkeep] | None = None
    check: Callable[[S], None] | None = None


class Environment(msgspec.Struct, frozen=True):
    """What the host tells a provider that it opens: its data folder (0700) and its own version."""

    data_dir: str
    version: str


class Availability(msgspec.Struct, frozen=True):
    """Can it be used? If not: why, and the exact thing to do about it."""

    ok: bool
    reason: str | None = None
    fix: str | None = None
    details: Mapping[str, Any] = msgspec.field(default_factory=dict)
