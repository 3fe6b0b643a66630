"""What config/prometheus ships, read by Prometheus' own tool."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SHIPPED = Path(__file__).resolve().parents[2] / "config/prometheus"


def promtool(*arguments: str, cwd: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("needs promtool (Debian's package prometheus)")
    done = subprocess.run(["promtool", *arguments], cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_configuration_and_rules(tmp_path: Path) -> None:
    folder = tmp_path / "prometheus"
    shutil.copytree(SHIPPED, folder)
    (folder / "metrics-token").write_text("x\n")
    promtool("check", "config", "prometheus.yml", cwd=folder)
    promtool("check", "rules", "alerts.yml", cwd=folder)


def test_the_alerts_fire_when_they_should(tmp_path: Path) -> None:
    shutil.copy(SHIPPED / "alerts.yml", tmp_path)
    (tmp_path / "cases.yml").write_text(CASES)
    promtool("test", "rules", "cases.yml", cwd=tmp_path)


CASES = """
rule_files: [alerts.yml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {series: 'up{job="kandev-host", instance="a"}', values: '1x5 0x10'}
      - {series: 'kandev_store_errors_total{operation="commit", code="STORAGE_FULL"}', values: '0x5 3x10'}
      - {series: 'kandev_queue_tasks{instance="a", state="waiting"}', values: '2x60'}
      - {series: 'kandev_queue_tasks{instance="a", state="running"}', values: '0x60'}
      - {series: 'kandev_queue_tasks{instance="b", state="waiting"}', values: '2x60'}
      - {series: 'kandev_queue_tasks{instance="b", state="running"}', values: '0x50 1x10'}
    alert_rule_test:
      - {eval_time: 5m, alertname: KandevHostDown, exp_alerts: []}
      - eval_time: 9m
        alertname: KandevHostDown
        exp_alerts:
          - exp_labels: {severity: critical, job: kandev-host, instance: a}
            exp_annotations:
              summary: kandev-host cannot be scraped
              description: Is it running (kandev-host doctor), and has its metrics-token been replaced?
      - eval_time: 7m
        alertname: KandevStorageFull
        exp_alerts:
          - exp_labels: {severity: critical, operation: commit, code: STORAGE_FULL}
            exp_annotations:
              summary: The disk of the kandev-host database is full
              description: Reads go on, writes are refused. Make room; it recovers by itself.
      - eval_time: 55m
        alertname: KandevQueueStuck
        exp_alerts:
          - exp_labels: {severity: warning, instance: a, state: waiting}
            exp_annotations:
              summary: Tasks wait in the queue, and none is run
              description: kandev-host queue list says what each waits for; perhaps the queue is paused.
"""
