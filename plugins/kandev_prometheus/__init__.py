"""The telemetry "prometheus": GET /metrics for a Prometheus server (extra `kandev-host[prometheus]`)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from kandev_host import Environment, Provider, Route, Telemetry, hookimpl

if TYPE_CHECKING:
    from kandev_prometheus.exposition import Prometheus

EXTRA = "kandev-host[prometheus]"
TOKEN_FILE = "metrics-token"  # noqa: S105 - a file name


class PrometheusSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table `[telemetry.prometheus]`.

    `path` is where metrics are read. With `own_token` the data folder gets a file `metrics-token` (0600), whose token
    is good for that alone; without, it takes the local token.
    """

    path: Annotated[str, msgspec.Meta(pattern=r"^/[A-Za-z0-9_./-]*$")] = "/metrics"
    own_token: bool = True


@asynccontextmanager
async def open_telemetry(settings: PrometheusSettings, environment: Environment) -> AsyncIterator[Telemetry]:
    """Count from now on. Raises `StartupError` for a token file that others could read."""
    from kandev_host import Principal, TokenFile
    from kandev_prometheus.exposition import SCOPE, Prometheus

    scraper = Principal(id="metrics", kind="service", name="metrics", scopes=frozenset({SCOPE}))
    folder = Path(environment.data_dir)
    yield Prometheus(settings.path, TokenFile(folder, TOKEN_FILE, scraper) if settings.own_token else None)


@hookimpl
def kandev_telemetry() -> list[Provider[PrometheusSettings, Telemetry]]:
    missing = None if find_spec("prometheus_client") else EXTRA
    return [Provider("prometheus", open_telemetry, PrometheusSettings, missing)]


@hookimpl
def kandev_routes(services: Any) -> list[Route]:
    if not services.telemetry:
        return []
    from kandev_prometheus.exposition import Prometheus

    return [_route(sink) for sink in services.telemetry if isinstance(sink, Prometheus)]


def _route(sink: Prometheus) -> Route:
    from kandev_prometheus.exposition import SCOPE

    return Route("GET", sink.path, sink.serve, SCOPE, sink.authenticator)
