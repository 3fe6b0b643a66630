"""docs/metrics.md, the alerts and the dashboard name metrics and labels that there are."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

from kandev_host.metrics import METRICS, Metric

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ROOT / "config/prometheus"
NAME = re.compile(r"\b(?:kandev|process)_[a-z_]+")
SELECTOR = re.compile(r"\b(kandev_[a-z_]+)\{([^}]*)\}")
GROUPED = re.compile(r"\bby \(([^)]*)\)")
PROCESS = {
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_virtual_memory_bytes",
}
OF_SCRAPE = {"job", "instance", "le"}


def series() -> dict[str, set[str]]:
    """Every series that a scrape may have, with its labels."""
    found = {name: set() for name in PROCESS}
    for metric in METRICS.values():
        ends = ("_bucket", "_count", "_sum") if metric.kind == "histogram" else ("",)
        found |= {metric.name + end: set(metric.labels) for end in ends}
    return found


def queries() -> list[str]:
    alerts = (SHIPPED / "alerts.yml").read_text()
    dashboard = json.loads((SHIPPED / "grafana.json").read_text())
    targets = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    rules = [block.partition("\n        ")[0] for block in alerts.split("expr: ")[1:]]
    folded = [block.split("for:")[0].split("labels:")[0] for block in alerts.split("expr: >-")[1:]]
    return [*targets, *rules, *folded]


def test_the_table_is_that_of_the_code() -> None:
    spec = importlib.util.spec_from_file_location("generate_metrics", ROOT / "docs/generate_metrics.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (ROOT / "docs/metrics.md").read_text()
    assert module.generated(page) == page, "run: python docs/generate_metrics.py"


def test_alerts_dashboard_and_page_name_only_metrics_that_there_are() -> None:
    known = series().keys() | METRICS.keys()
    told = {
        "alerts": "\n".join(queries()),
        "dashboard": (SHIPPED / "grafana.json").read_text(),
        "page": (ROOT / "docs/metrics.md").read_text(),
    }
    modules = {"kandev_host", "kandev_telemetry"}
    assert {where: set(NAME.findall(text)) - known - modules for where, text in told.items()} == {
        where: set() for where in told
    }


def test_every_metric_is_on_the_dashboard() -> None:
    shown = (SHIPPED / "grafana.json").read_text()
    assert [name for name in METRICS if name not in shown] == []


@pytest.mark.parametrize("query", queries())
def test_queries_use_labels_that_their_metrics_have(query: str) -> None:
    known = series()
    for name, selector in SELECTOR.findall(query):
        assert set(re.findall(r"(\w+)\s*[=!]", selector)) <= known[name] | OF_SCRAPE
    labels = set().union(*(known[name] for name in NAME.findall(query) if name in known))
    for group in GROUPED.findall(query):
        assert {label.strip() for label in group.split(",")} <= labels | OF_SCRAPE


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS.keys())
def test_names_follow_the_conventions(metric: Metric) -> None:
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert metric.name.endswith("_seconds") if metric.kind == "histogram" else not metric.buckets
    assert list(metric.buckets) == sorted(set(metric.buckets))
    assert not [label for label in metric.labels if label == "id" or label.endswith("_id")]
