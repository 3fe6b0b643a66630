"""The registry of a host, and what it says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kandev_host.metrics import METRICS, VALUES_LIMIT
from kandev_prometheus.exposition import Prometheus

pytestmark = pytest.mark.anyio


async def told(sink: Prometheus) -> dict[tuple[str, ...], float]:
    request: Any = SimpleNamespace(headers={})
    body = (await sink.serve(request)).body
    assert isinstance(body, bytes)
    families = text_string_to_metric_families(body.decode())
    return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}


async def test_each_host_has_a_registry_of_its_own() -> None:
    one, other = Prometheus("/metrics"), Prometheus("/metrics")
    one.count("kandev_tasks_created_total", 2, {})
    assert (await told(one))["kandev_tasks_created_total",] == 2
    assert (await told(other))["kandev_tasks_created_total",] == 0


async def test_every_metric_of_the_list_is_described() -> None:
    request: Any = SimpleNamespace(headers={})
    body = (await Prometheus("/metrics").serve(request)).body
    assert isinstance(body, bytes)
    text = body.decode()
    assert [name for name, metric in METRICS.items() if f"# TYPE {name} {metric.kind}" not in text] == []
    assert [metric.summary for metric in METRICS.values() if metric.summary not in text] == []


async def test_values_of_a_label_are_bounded() -> None:
    sink = Prometheus("/metrics")
    for _ in range(2):
        for number in range(VALUES_LIMIT + 50):
            sink.count("kandev_agent_retries_total", 1, {"agent_type": f"type-{number}"})
    found = {key[1]: value for key, value in (await told(sink)).items() if key[0] == "kandev_agent_retries_total"}
    assert len(found) == VALUES_LIMIT + 1
    assert (found["type-0"], found["other"]) == (2, 100)


async def test_gauges_are_those_of_the_moment() -> None:
    class Gauges:
        live = 2.0

        async def refresh(self) -> None:
            self.live += 1

        def samples(self) -> Any:
            return [("kandev_agents", {"agent_type": "demo", "status": "x"}, self.live)] if self.live > 0 else []

    sink, gauges = Prometheus("/metrics"), Gauges()
    sink.watch(gauges)
    assert (await told(sink))["kandev_agents", "demo", "x"] == 3
    gauges.live = -1
    assert not [key for key in await told(sink) if key[0] == "kandev_agents"]
