"""The runtimes that need nothing but this machine, held to the contract of all runtimes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from kandev_host.testing import RuntimeContract


class TestBwrap(RuntimeContract):
    plugin = "kandev_bwrap"
    lacks = frozenset({"adoption"})
    processes_limit = 64

    @pytest.fixture
    def settings(self) -> Mapping[str, Any]:
        return {"max_processes": self.processes_limit, "disk": "watch", "disk_watch_interval_s": 0.1}


class TestHost(RuntimeContract):
    plugin = "kandev_unjailed"
    confines = False
    lacks = frozenset({"adoption", "read_only", "shells", "snapshots", "terminals"})

    @pytest.fixture
    def settings(self) -> Mapping[str, Any]:
        return {"i_understand_there_is_no_jail": True}
