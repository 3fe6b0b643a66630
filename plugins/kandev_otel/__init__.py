"""The telemetry "otel": traces, metrics and logs over OTLP/HTTP, to an OpenTelemetry collector or whatever takes that.

Extra `kandev-host[otel]`. What the settings leave open, the standard `OTEL_…` variables may say.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from kandev_host import Environment, Provider, Telemetry, hookimpl
from kandev_otel.headers import check_headers

EXTRA = "kandev-host[otel]"
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

Signal = Literal["traces", "metrics", "logs"]
Seconds = Annotated[float, Meta(gt=0)]


class OtelSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table `[telemetry.otel]`.

    `endpoint` is where OTLP/HTTP is taken, without /v1/traces: http://127.0.0.1:4318 unless given here or in
    OTEL_EXPORTER_OTLP_ENDPOINT. `headers` has headers to send, each with where its value is, "env:VARIABLE" of the
    host's environment or "file:/PATH": never the secret itself. `signals` are sent. `sampled_ratio` says of how many
    traces the spans are (0 to 1; all unless given here or in OTEL_TRACES_SAMPLER); a client's own traceparent decides
    for itself. `service_name` is kandev-host unless given here or in OTEL_SERVICE_NAME. Spans and lines wait
    `interval_s` for others, metrics are sent every `metrics_interval_s`, and `timeout_s` is for one request with its
    repetitions.
    """

    endpoint: str | None = None
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    signals: tuple[Signal, ...] = ("traces", "metrics", "logs")
    sampled_ratio: Annotated[float, Meta(ge=0, le=1)] | None = None
    service_name: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    interval_s: Seconds = 2.0
    metrics_interval_s: Seconds = 30.0
    timeout_s: Seconds = 5.0

    def __post_init__(self) -> None:
        """Raise `ValueError` for what is no address, no header, or a secret where the place of one belongs."""
        if self.endpoint is not None and not re.fullmatch(r"https?://[^\s/@?#]+(/[^\s@?#]*)?", self.endpoint):
            raise ValueError("endpoint is an http:// or https:// address without user, as in http://127.0.0.1:4318")
        whole = re.fullmatch(r"(.*)/v1/(?:traces|metrics|logs)/?", self.endpoint or "")
        if whole is not None:
            raise ValueError(f'each signal adds its own path: write endpoint = "{whole[1]}"')
        for name, source in self.headers.items():
            kind, _, place = source.partition(":")
            if not _HEADER.fullmatch(name):
                raise ValueError(f"headers has {name!r}, which is no name of a header")
            if not (_VARIABLE.fullmatch(place) if kind == "env" else kind == "file" and place.startswith(("/", "~/"))):
                raise ValueError(f"headers.{name} says where its value is: env:VARIABLE or file:/PATH")


@asynccontextmanager
async def open_telemetry(settings: OtelSettings, environment: Environment) -> AsyncIterator[Telemetry]:
    """Send from now on. Raises `StartupError` for a header whose secret is not there."""
    from kandev_otel.pipeline import opened

    async with opened(settings, environment.version) as sink:
        yield sink


@hookimpl
def kandev_telemetry() -> list[Provider[OtelSettings, Telemetry]]:
    missing = None if _installed() else EXTRA
    return [Provider("otel", open_telemetry, OtelSettings, missing, check=check_headers)]


def _installed() -> bool:
    """Is the exporter there? `opentelemetry` is a namespace of many packages; looking must import none of them."""
    found = find_spec("opentelemetry")
    places = [] if found is None else found.submodule_search_locations or []
    return any(Path(place, "exporter/otlp/proto/http").is_dir() for place in places)
