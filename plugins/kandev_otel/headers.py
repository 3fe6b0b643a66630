"""The headers to send: where the settings say that their values are, they are looked up."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from kandev_host import secrets
from kandev_host.errors import StartupError

if TYPE_CHECKING:
    from kandev_otel import OtelSettings


def headers_of(settings: OtelSettings) -> dict[str, str]:
    """By name, each value known as a secret from now on. Raises `StartupError` for one that is not there."""
    found = {name: _value(f"telemetry.otel.headers.{name}", source) for name, source in settings.headers.items()}
    register(found.values())
    return found


def check_headers(settings: OtelSettings) -> None:
    """What a start would refuse."""
    headers_of(settings)


def register(values: Iterable[str]) -> None:
    for value in values:
        for word in (value, *value.split()):
            secrets.register(word, "a header for OTLP")


def _value(key: str, source: str) -> str:
    kind, _, place = source.partition(":")
    if kind == "env":
        value, fix = os.environ.get(place, ""), "set that variable for the host"
    else:
        fix = "write the header's value into that file"
        try:
            value = Path(place).expanduser().read_text().strip()
        except (OSError, RuntimeError, UnicodeDecodeError) as error:
            raise StartupError(f"{key}: {place} cannot be read ({error}): {fix}") from error
    if not value or not value.isprintable():
        raise StartupError(f"{key}: {place} holds no value for a header: {fix}")
    return value
