"""Containers, held to the contract of all runtimes. What outlives its host is in test_survival.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import docker
import pytest

from kandev_host.testing import RuntimeContract

from .conftest import IMAGE
from .dockerd import Dockerd


class TestDocker(RuntimeContract):
    plugin = "kandev_docker"
    lacks = frozenset({"adoption"})
    processes_limit = 64

    @pytest.fixture
    def settings(self, dockerd: Dockerd, sdk: docker.APIClient) -> Mapping[str, Any]:
        return {
            "socket": dockerd.socket,
            "image": IMAGE,
            "pull": "never",
            "max_processes": self.processes_limit,
            "disk_watch_interval_s": 0.1,
            "after_host_death": "stop",
        }
