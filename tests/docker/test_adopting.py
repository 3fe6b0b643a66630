"""Containers that go on without their host, held to the part of the contract that is about that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import docker
import pytest

from kandev_host.testing.runtime.owning import OwningContract

from .conftest import IMAGE
from .dockerd import Dockerd


class TestAdopting(OwningContract):
    plugin = "kandev_docker"

    @pytest.fixture
    def settings(self, dockerd: Dockerd, sdk: docker.APIClient) -> Mapping[str, Any]:
        return {"socket": dockerd.socket, "image": IMAGE, "pull": "never", "after_host_death": "adopt"}
